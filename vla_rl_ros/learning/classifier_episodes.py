# SPDX-License-Identifier: Apache-2.0
"""Episodes of the fast simulator to label: the policy's own, and failures that look like success.

What a classifier has to tell from success is not the empty table but the peg that stands on the
rim. Where a real cell shows such moments by and by, the simulator stages them: `STAGED` names
them per task. Every episode follows from its kind and seed alone. Called by `vla-rl-ros label
--simulate` and by the benches of the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.chunking import hold_action
from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose
from vla_rl_ros.data.label_frames import EpisodeFrames
from vla_rl_ros.learning.base_eval import DelayedExecutor
from vla_rl_ros.policies.experts import ExpertView, expert_action
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import TASKS, Task

POLICY, WRONG_TASK = "policy", "wrong_task"
STAGED: Mapping[Task, tuple[str, ...]] = {
    Task.LIFT: ("empty_hand", "too_low", "dropped", WRONG_TASK),
    Task.PEG: ("on_the_rim", "beside_the_block", "too_shallow"),
    Task.BUTTON: ("beside", "touched", WRONG_TASK),
}
"""Failures that look like success, by task."""
DELAY_TICKS = 2
STAGED_SEEDS = 1_000_000
"""Added to the seeds of staged episodes, so that none has the layout of a policy episode.

Episodes are split into training and calibration one by one; a layout would be in both."""
_HOLD_TICKS = 3
_AFTER_TICKS = 6
_STAGED_TICKS = 60
_NOISE = np.array([0.0015, 0.0015, 0.0015, 0.002, 0.002, 0.008])
_MAX_DRAWS = 20
_PEG_TIP_M = 0.035
_FINGERTIP_M = 0.008
_BUTTON_TOP_M = 0.05
_OVER_M = 0.008
_ABOVE_M = 0.012
_OTHER = {Task.LIFT: Task.BUTTON, Task.BUTTON: Task.LIFT}
_TARGETS = {Task.LIFT: "cube", Task.PEG: "hole", Task.BUTTON: "button"}

Watcher = Callable[[Mapping[str, ImageArray], FloatArray], bool]
"""Sees images and (x, y, z, width) of a tick; says whether the episode is over."""


class EpisodeMaker:
    """Plays episodes of one task; not thread-safe.

    Attributes:
        task: What is to be done.
        policy: Plays the episodes of kinds `POLICY` and `WRONG_TASK`; may be set later.
        sim: The simulator.
    """

    def __init__(self, task: Task, policy: ChunkPolicy | None) -> None:
        """Compile the scene.

        Args:
            task: What is to be done.
            policy: Plays the episodes of kinds `POLICY` and `WRONG_TASK`; None for none of these.
        """
        self.task, self.policy = task, policy
        self.sim = FastSim()

    def close(self) -> None:
        """Free the renderer."""
        self.sim.close()

    def play(self, kind: str, seed: int, watcher: Watcher | None = None) -> EpisodeFrames:
        """Play one episode.

        Args:
            kind: `POLICY` or one of `STAGED`.
            seed: Of layout and noise.
            watcher: Ends the episode where it says so, as the cell's supervisor would. Without
                one it ends half a second after the task has been solved for 0.2 s, or with its
                time.

        Raises:
            ConfigError: Unknown kind, or no policy to play it.
        """
        if kind not in (POLICY, *STAGED.get(self.task, ())):
            known = ", ".join((POLICY, *STAGED.get(self.task, ())))
            raise ConfigError(
                f"'{kind}' is no kind of episode of {self.task.value}; known: {known}"
            )
        if kind in (POLICY, WRONG_TASK):
            return self._policy_episode(kind, seed, watcher)
        for draw in range(_MAX_DRAWS):
            rng = np.random.default_rng([seed, draw])
            frames = self._staged_episode(kind, seed, rng, watcher)
            # Staged as a failure, but a cube can slip into a hand that aimed beside it.
            if frames.truth is not None and not frames.truth.any():
                return frames
        raise ConfigError(f"{kind} of seed {seed} succeeds each time it is staged")

    def _policy_episode(self, kind: str, seed: int, watcher: Watcher | None) -> EpisodeFrames:
        if self.policy is None:
            raise ConfigError(f"episodes of kind '{kind}' need a policy")
        told = self.task if kind == POLICY else _OTHER[self.task]
        self.sim.reset(self.task, seed=seed)
        self.policy.reset()
        executor = DelayedExecutor(self.policy, DELAY_TICKS)
        last: FloatArray | None = None

        def act(tick: int, images: Mapping[str, ImageArray]) -> FloatArray:
            nonlocal last
            sim = self.sim
            observation = PolicyObservation(
                stamp_ns=round(sim.time_s * 1e9),
                images=dict(images),
                state=sim.state(),
                instruction=TASKS[told].instruction,
                task=told.value,
                last_action=last,
                target=sim.tcp(),
            )
            last = executor.act(tick, observation, hold_action(float(sim.is_open_commanded)))
            return last

        limit = round(TASKS[self.task].time_limit_s / self.sim.spec.control_period_s)
        return self._run(kind, seed, act, limit, watcher)

    def _staged_episode(
        self, kind: str, seed: int, rng: np.random.Generator, watcher: Watcher | None
    ) -> EpisodeFrames:
        self.sim.reset(self.task, seed=seed)
        stage = _Stage(self.sim, self.task, kind, rng)
        return self._run(kind, seed, lambda tick, _: stage.action(tick), _STAGED_TICKS, watcher)

    def _run(
        self,
        kind: str,
        seed: int,
        act: Callable[[int, Mapping[str, ImageArray]], FloatArray],
        limit: int,
        watcher: Watcher | None,
    ) -> EpisodeFrames:
        sim, stamps, states, truth = self.sim, [], [], []
        stacks: dict[str, list[ImageArray]] = {name: [] for name in CAMERAS}
        solved_since: int | None = None
        last_tick = limit
        for tick in range(limit + 1):
            images, is_solved = sim.images(), sim.is_success()
            stamps.append(round(sim.time_s * 1e9))
            states.append([*sim.tcp().position_m, sim.gripper_state().width_m])
            truth.append(is_solved)
            for name, image in images.items():
                stacks[name].append(image)
            solved_since = (
                None if not is_solved else tick if solved_since is None else solved_since
            )
            if watcher is not None:
                if watcher(images, np.array(states[-1])):
                    break
            elif solved_since is not None and tick - solved_since == _HOLD_TICKS - 1:
                last_tick = min(tick + _AFTER_TICKS, limit)
            if tick >= last_tick:
                break
            sim.step(act(tick, images))
        return self._frames(kind, seed, stamps, stacks, states, truth)

    def _frames(
        self,
        kind: str,
        seed: int,
        stamps: list[int],
        stacks: Mapping[str, list[ImageArray]],
        states: list[list[float]],
        truth: list[bool],
    ) -> EpisodeFrames:
        is_done = np.array(truth)
        held = _held_at(is_done)
        return EpisodeFrames(
            episode=episode_name(self.task, kind, seed),
            task=self.task.value,
            source=f"simulate {self.task.value} {kind} {seed}",
            kind=kind,
            outcome=Outcome.TIMEOUT if held is None else Outcome.SUCCESS,
            stamps_ns=np.array(stamps),
            images={name: np.stack(own) for name, own in stacks.items()},
            states=np.array(states, dtype=np.float32),
            start_ns=stamps[0],
            end_ns=stamps[-1] if held is None else stamps[held],
            truth=is_done,
        )


def episode_name(task: Task, kind: str, seed: int) -> str:
    """Name of a simulated episode, unique and fit for a file name."""
    return f"sim_{task.value}_{kind}_{seed}"


def _held_at(truth: NDArray[np.bool_]) -> int | None:
    """First tick at which success has held for `_HOLD_TICKS` samples."""
    if len(truth) < _HOLD_TICKS:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(truth, _HOLD_TICKS)
    held = np.flatnonzero(runs.all(1))
    return int(held[0]) + _HOLD_TICKS - 1 if len(held) else None


def episodes(
    maker: EpisodeMaker, num_policy: int, num_staged: int, first_seed: int
) -> Iterator[tuple[str, int]]:
    """Kinds and seeds of a collection: policy episodes, and staged ones of all kinds in turn."""
    kinds = STAGED.get(maker.task, ())
    if num_staged and not kinds:
        raise ConfigError(f"no failures of {maker.task.value} can be staged: leave --staged out")
    for number in range(max(num_policy, num_staged)):
        if number < num_policy:
            yield POLICY, first_seed + number
        if number < num_staged:
            yield kinds[number % len(kinds)], STAGED_SEEDS + first_seed + number


class _Stage:
    """A scripted failure: the expert, deceived about what it sees."""

    def __init__(self, sim: FastSim, task: Task, kind: str, rng: np.random.Generator) -> None:
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
