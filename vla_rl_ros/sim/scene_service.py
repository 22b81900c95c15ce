# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the running cell: resets, ground truth, faults, measurements.

Every operation runs in the simulation thread between two steps and takes well below a
millisecond. Arguments come from outside and are checked here; a mistake is answered with a
`SceneError` and changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim import tasks
from vla_rl_ros.sim.fci_server import FciServer
from vla_rl_ros.sim.fci_wire import FciError
from vla_rl_ros.sim.pacing import Pacer
from vla_rl_ros.sim.probe import Recorder, WallGauge
from vla_rl_ros.sim.scene_channel import Args, Handler, Result
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.starts import start_problem
from vla_rl_ros.sim.variants import SceneConfig

_GRASP_SPEED_M_PER_S, _GRASP_FORCE_N = 0.05, 60.0
_MAX_STALL_S = 2.0
_MAX_DROP_S = 60.0
_MAX_RECORD_S = 600.0
_STEPS_PER_S = 1000
# What a reset may change without compiling the model anew.
_RUN_TIME_PARAMS = ("object_spread_m", "start_spread_m")


def number(args: Args, name: str, default: float | None, low: float, high: float) -> float:
    """Take a number out of the arguments.

    Args:
        args: Arguments of a request; the number is removed from them.
        name: Key, with its unit.
        default: Value if it is absent, None where it is required.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        SceneError: If it is absent, not a number or out of range.
    """
    value = args.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SceneError(f"'{name}' must be a number, not {value!r}")
    if not low <= value <= high:
        raise SceneError(f"'{name}' = {value} is outside [{low}, {high}]")
    return float(value)


def _refuse_rest(args: Args) -> None:
    if args:
        raise SceneError(f"unknown arguments: {', '.join(sorted(args))}")


def _pose(pose: Pose) -> dict[str, list[float]]:
    return {"position_m": pose.position_m.tolist(), "quat_xyzw": pose.quat_xyzw.tolist()}


class SceneService:
    """The operations of the scene channel on one simulated cell."""

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        ids: SceneIds,
        config: SceneConfig,
        server: FciServer,
        pacer: Pacer,
        run_dir: Path,
        stop: Callable[[], None],
    ) -> None:
        """Bind to the parts of a running cell.

        Args:
            model: Compiled scene.
            data: Live state.
            ids: Addresses in it.
            config: Variant it was compiled for.
            server: Simulated control box.
            pacer: Schedule of the steps.
            run_dir: Where recordings go.
            stop: Ends the simulation after this step.
        """
        self._model, self._data, self._ids, self._config = model, data, ids, config
        self._server, self._pacer, self._stop = server, pacer, stop
        self._wall = WallGauge(model, data, ids.bodies["wall"])
        self._recorder = Recorder(run_dir, server.robot, data, self._wall)
        self._task = tasks.Task.LIFT
        self._num_resets = 0
        self.handlers: dict[str, Handler] = {
            "ping": self.ping,
            "stats": self.stats,
            "reset": self.reset,
            "check": self.check,
            "clear_hand": self.clear_hand,
            "objects": self.objects,
            "place_wall": self.place_wall,
            "remove_wall": self.remove_wall,
            "contact_force": self.contact_force,
            "inject": self.inject,
            "record_start": self.record_start,
            "record_stop": self.record_stop,
            "shutdown": self.shutdown,
        }

    def after_step(self) -> None:
        """Measure what was asked for; called after each step."""
        if self._wall.is_active:
            self._wall.update()
        if self._recorder.is_active:
            self._recorder.update()

    def ping(self, args: Args) -> Result:
        """Answer with the simulated and the wall time."""
        _refuse_rest(args)
        return {"sim_time_s": self._data.time, "stamp_ns": time.time_ns()}

    def stats(self, args: Args) -> Result:
        """Answer how well time is kept and what the control box counted."""
        _refuse_rest(args)
        server, warning = self._server, self._data.warning
        return {
            "sim_time_s": self._data.time,
            **dataclasses.asdict(self._pacer.stats()),
            "is_in_motion": server.current_motion_id != 0,
            "is_reflex": server.is_reflex,
            "num_resets": self._num_resets,
            "num_missed_commands": server.watch.num_missed,
            "num_malformed_clients": server.num_malformed,
            "num_unstable_steps": int(warning.number[mujoco.mjtWarning.mjWARN_BADQACC]),
        }

    def reset(self, args: Args) -> Result:
        """Put the objects where seed and task say; the arm is driven by its own driver.

        Arguments: ``task``, ``seed``, optionally ``object_spread_m`` and ``start_spread_m``.
        """
        task = tasks.task_by_name(str(args.pop("task", "")))
        seed = int(number(args, "seed", None, 0, 2**53))
        overrides = {name: args.pop(name) for name in _RUN_TIME_PARAMS if name in args}
        _refuse_rest(args)
        layout = tasks.sample_layout(
            task, self._with_overrides(overrides), np.random.default_rng(seed)
        )
        self._park_wall()
        tasks.apply_layout(self._model, self._data, self._ids, layout)
        if layout.has_peg_in_hand:
            # The peg appears between the fingers; they must not let go before the driver knows.
            self._server.robot.set_hand_goal(
                layout.gripper_width_m, _GRASP_SPEED_M_PER_S, _GRASP_FORCE_N
            )
        self._task = task
        self._num_resets += 1
        self._pacer.mark_episode()
        return {
            "task": task.value,
            "seed": seed,
            "start": _pose(layout.start),
            "start_offset_m": (layout.start.position_m - tasks.HOME_POSITION_M).tolist(),
            "gripper_width_m": layout.gripper_width_m,
            "instruction": tasks.TASKS[task].instruction,
            "time_limit_s": tasks.TASKS[task].time_limit_s,
            "objects": self._object_poses(),
        }

    def _with_overrides(self, overrides: dict[str, Any]) -> SceneConfig:
        for name, value in overrides.items():
            if isinstance(value, list):
                overrides[name] = tuple(value)
        try:
            return dataclasses.replace(self._config, **overrides)
        except TypeError as error:
            raise SceneError(f"bad variant parameter: {error}") from error

    def check(self, args: Args) -> Result:
        """Judge ``task`` from now on; answer why it cannot begin here. Touches nothing."""
        self._task = tasks.task_by_name(str(args.pop("task", "")))
        _refuse_rest(args)
        self._pacer.mark_episode()
        return {"problem": start_problem(self._task, self._data, self._ids)}

    def clear_hand(self, args: Args) -> Result:
        """Park the peg, so that the arm may go low without it."""
        _refuse_rest(args)
        tasks.park_peg(self._model, self._data, self._ids)
        self._num_resets += 1
        return {}

    def objects(self, args: Args) -> Result:
        """Answer the true poses and whether the task (default: that of the last reset) is done."""
        name = args.pop("task", self._task.value)
        _refuse_rest(args)
        task = tasks.task_by_name(str(name))
        return {
            "sim_time_s": self._data.time,
            "stamp_ns": time.time_ns(),
            "task": task.value,
            "is_success": tasks.is_success(task, self._data, self._ids),
            "objects": self._object_poses(),
        }

    def _object_poses(self) -> dict[str, dict[str, list[float]]]:
        poses = tasks.object_poses(self._data, self._ids)
        return {name: _pose(pose) for name, pose in poses.items()}

    def place_wall(self, args: Args) -> Result:
        """Stand a wall in front of the arm, its face at ``x_m``, middle at ``y_m``, ``z_m``."""
        face_m = np.array(
            [
                number(args, "x_m", None, 0.2, 1.5),
                number(args, "y_m", 0.0, -1.0, 1.0),
                number(args, "z_m", 0.25, -0.5, 1.0),
            ]
        )
        _refuse_rest(args)
        tasks.place_wall(self._model, self._data, self._ids, face_m)
        self._wall.start()
        return {"face_m": face_m.tolist()}

    def remove_wall(self, args: Args) -> Result:
        """Put the wall back out of reach."""
        _refuse_rest(args)
        self._park_wall()
        return {}

    def _park_wall(self) -> None:
        tasks.park_wall(self._model, self._data, self._ids)
        self._wall.stop()

    def contact_force(self, args: Args) -> Result:
        """Answer the true force of the arm on the wall and the peak since the last such call."""
        _refuse_rest(args)
        return {
            "force_n": self._wall.force_n.tolist(),
            "peak_n": self._wall.take_peak_n(),
            "estimated_force_n": self._server.robot.external.wrench[:3].tolist(),
        }

    def inject(self, args: Args) -> Result:
        """Cause a ``fault``, e.g. ``reflex``; an unknown one is answered with the known ones."""
        fault = args.pop("fault", None)
        faults: dict[str, Callable[[Args], Result]] = {
            "reflex": lambda rest: self._trip(rest, FciError.CARTESIAN_REFLEX),
            "joint_reflex": lambda rest: self._trip(rest, FciError.JOINT_REFLEX),
            "comm": lambda rest: self._trip(rest, FciError.COMMUNICATION_CONSTRAINTS_VIOLATION),
            "link_drop": self._drop_link,
            "gripper_abort": self._abort_gripper,
            "missed_packet_limit": self._limit_missed_packets,
            "stall": self._stall,
        }
        if not isinstance(fault, str) or fault not in faults:
            raise SceneError(f"unknown fault {fault!r}, known are: {', '.join(sorted(faults))}")
        return faults[fault](args)

    def _trip(self, args: Args, error: FciError) -> Result:
        _refuse_rest(args)
        was_moving = self._server.current_motion_id != 0
        self._server.trip(error)
        return {"was_moving": was_moving}

    def _drop_link(self, args: Args) -> Result:
        duration_s = number(args, "duration_s", 2.0, 0.001, _MAX_DROP_S)
        _refuse_rest(args)
        self._server.drop_link(math.ceil(duration_s * _STEPS_PER_S))
        return {"duration_s": duration_s}

    def _abort_gripper(self, args: Args) -> Result:
        _refuse_rest(args)
        return {"was_moving": self._server.gripper.abort()}

    def _limit_missed_packets(self, args: Args) -> Result:
        self._server.watch.limit = int(number(args, "packets", None, 0, 10_000))
        _refuse_rest(args)
        return {"packets": self._server.watch.limit}

    @staticmethod
    def _stall(args: Args) -> Result:
        duration_s = number(args, "duration_s", None, 0.0, _MAX_STALL_S)
        _refuse_rest(args)
        time.sleep(duration_s)
        return {"duration_s": duration_s}

    def record_start(self, args: Args) -> Result:
        """Record a row at every step, for at most ``duration_s``."""
        duration_s = number(args, "duration_s", 60.0, 0.001, _MAX_RECORD_S)
        _refuse_rest(args)
        self._recorder.start(math.ceil(duration_s * _STEPS_PER_S))
        return {"columns": list(Recorder.COLUMNS)}

    def record_stop(self, args: Args) -> Callable[[], Result]:
        """Write the recorded rows to a ``.npy`` file in the run directory and answer its path."""
        _refuse_rest(args)
        return self._recorder.stop()

    def shutdown(self, args: Args) -> Result:
        """Stop the simulation."""
        _refuse_rest(args)
        self._stop()
        return {}
