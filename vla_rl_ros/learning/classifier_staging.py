# SPDX-License-Identifier: Apache-2.0
"""Scripted failures that look like success: the expert, deceived about what it sees.

Called by `classifier_episodes`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.policies.experts import expert_action
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import Task

WRONG_TASK = "wrong_task"
STAGED: Mapping[Task, tuple[str, ...]] = {
    Task.LIFT: ("empty_hand", "too_low", "dropped", WRONG_TASK),
    Task.PEG: ("on_the_rim", "beside_the_block", "too_shallow"),
    Task.BUTTON: ("beside", "touched", WRONG_TASK),
}
"""Failures that look like success, by task."""
_NOISE = np.array([0.0015, 0.0015, 0.0015, 0.002, 0.002, 0.008])
_PEG_TIP_M = 0.035
_FINGERTIP_M = 0.008
_BUTTON_TOP_M = 0.05
_OVER_M = 0.008
_ABOVE_M = 0.012
_TARGETS = {Task.LIFT: "cube", Task.PEG: "hole", Task.BUTTON: "button"}


class Stage:
    """A scripted failure: the expert, deceived about what it sees."""

    def __init__(self, sim: FastSim, task: Task, kind: str, rng: np.random.Generator) -> None:
        """Draw how it fails.

        Args:
            sim: Has just been reset to the task.
            task: What is not going to be done.
            kind: One of `STAGED`, without `WRONG_TASK`, which the policy plays.
            rng: Source of how far beside, how deep, how shaky.
        """
        self._sim, self._task, self._kind, self._rng = sim, task, kind, rng
        angle = rng.uniform(0.0, 2.0 * np.pi)
        radius = {
            "empty_hand": rng.uniform(0.035, 0.06),
            "on_the_rim": rng.uniform(0.004, 0.018),
            "beside_the_block": rng.uniform(0.05, 0.065),
            "beside": rng.uniform(0.03, 0.06),
        }.get(kind, 0.0)
        self._offset = radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        self._height_m = {
            "too_low": rng.uniform(0.03, 0.085),
            "dropped": rng.uniform(0.04, 0.08),
            "on_the_rim": 0.006,
            "beside_the_block": rng.uniform(0.005, 0.035),
            "too_shallow": rng.uniform(0.003, 0.015),
            "touched": rng.uniform(-0.008, 0.003),
        }.get(kind, 0.0)
        self._has_dropped = False
        self._since: int | None = None

    def action(self, tick: int) -> FloatArray:
        """What the deceived hand does now."""
        action = getattr(self, f"_{self._task.value}")(tick)
        action[:GRIPPER_INDEX] += _NOISE * self._rng.standard_normal(GRIPPER_INDEX)
        limited: FloatArray = action
        return limited

    def _expert(self, tick: int) -> FloatArray:
        sim, objects = self._sim, dict(self._sim.objects())
        name = _TARGETS[self._task]
        objects[name] = Pose(objects[name].position_m + self._offset, objects[name].quat_xyzw)
        return expert_action(
            self._task.value,
            ExpertView(
                tcp=sim.tcp(),
                gripper_width_m=sim.gripper_state().width_m,
                is_gripper_open=sim.is_open_commanded,
                objects=objects,
                tick=tick,
            ),
        )

    def _move(self, target_m: FloatArray, *, is_open: bool) -> FloatArray:
        action = np.zeros(ACTION_DIM)
        action[:3] = np.clip(0.8 * (target_m - self._sim.tcp().position_m), -0.014, 0.014)
        action[GRIPPER_INDEX] = float(is_open)
        return action

    def _lift(self, tick: int) -> FloatArray:
        tcp_m = self._sim.tcp().position_m
        if self._since is None:
            action = self._expert(tick)
            if action[GRIPPER_INDEX] < 0.5 and not self._sim.is_open_commanded:
                self._since = tick
            return action
        if tick - self._since < 5:
            return self._move(tcp_m, is_open=False)
        if self._kind == "empty_hand":
            return self._move(np.array([*tcp_m[:2], 0.2]), is_open=False)
        if self._kind == "too_low":
            return self._move(np.array([*tcp_m[:2], self._height_m]), is_open=False)
        # Dropped on the way, and the hand goes on up as if nothing had happened.
        self._has_dropped |= bool(tcp_m[2] > self._height_m)
        return self._move(np.array([*tcp_m[:2], 0.2]), is_open=self._has_dropped)

    def _peg(self, tick: int) -> FloatArray:
        objects = self._sim.objects()
        hole_m = objects["hole"].position_m + self._offset
        to_hole_m = hole_m - objects["peg"].position_m + np.array([0.0, 0.0, _PEG_TIP_M])
        target_m = self._sim.tcp().position_m + to_hole_m
        if self._kind == "too_shallow":
            if self._since is None and to_hole_m[2] <= 0.0:
                return self._expert(tick)
            self._since = tick
            target_m[2] -= self._height_m
        else:
            is_over = np.hypot(*to_hole_m[:2]) < _OVER_M
            target_m[2] += -self._height_m if is_over else _ABOVE_M
        return self._move(target_m, is_open=False)

    def _button(self, tick: int) -> FloatArray:
        action = self._expert(tick)
        sim = self._sim
        to_button_m = sim.objects()["button"].position_m - sim.tcp().position_m
        if self._kind == "touched" and np.hypot(*to_button_m[:2]) < _OVER_M:
            tip_m = sim.tcp().position_m[2] - _FINGERTIP_M
            action[2] = np.clip(0.8 * (_BUTTON_TOP_M - self._height_m - tip_m), -0.014, 0.014)
        return action
