# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the running cell: resets, ground truth, measurements.

Every operation runs in the simulation thread between two steps and takes well below a
millisecond. Arguments come from outside and are checked; a mistake is answered with a `SceneError`
and changes nothing. Faults are caused by `sim.scene_faults`. Called by `sim.cell_process` through
the scene's channel.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim import placing
from vla_rl_ros.sim.fci_server import FciServer
from vla_rl_ros.sim.layouts import HOME_POSITION_M, sample_layout
from vla_rl_ros.sim.pacing import Pacer
from vla_rl_ros.sim.probe import Recorder, WallGauge
from vla_rl_ros.sim.scene_args import num_steps, number, refuse_rest
from vla_rl_ros.sim.scene_channel import Args, Handler, Result
from vla_rl_ros.sim.scene_faults import SceneFaults
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import object_poses
from vla_rl_ros.sim.starts import start_problem
from vla_rl_ros.sim.tasks import TASKS, Task, is_success, task_by_name
from vla_rl_ros.sim.variants import SceneConfig

_GRASP_SPEED_M_PER_S, _GRASP_FORCE_N = 0.05, 60.0
_MAX_RECORD_S = 600.0
# What a reset may change without compiling the model anew.
_RUN_TIME_PARAMS = ("object_spread_m", "start_spread_m")


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
        self._task = Task.LIFT
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
            "inject": SceneFaults(server).inject,
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
        refuse_rest(args)
        return {"sim_time_s": self._data.time, "stamp_ns": time.time_ns()}

    def stats(self, args: Args) -> Result:
        """Answer how well time is kept and what the control box counted."""
        refuse_rest(args)
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
        task = task_by_name(str(args.pop("task", "")))
        seed = int(number(args, "seed", None, 0, 2**53))
        overrides = {name: args.pop(name) for name in _RUN_TIME_PARAMS if name in args}
        refuse_rest(args)
        layout = sample_layout(task, self._with_overrides(overrides), np.random.default_rng(seed))
        self._park_wall()
        placing.apply_layout(self._model, self._data, self._ids, layout)
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
            "start_offset_m": (layout.start.position_m - HOME_POSITION_M).tolist(),
            "gripper_width_m": layout.gripper_width_m,
            "instruction": TASKS[task].instruction,
            "time_limit_s": TASKS[task].time_limit_s,
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
        self._task = task_by_name(str(args.pop("task", "")))
        refuse_rest(args)
        self._pacer.mark_episode()
        return {"problem": start_problem(self._task, self._data, self._ids)}

    def clear_hand(self, args: Args) -> Result:
        """Park the peg, so that the arm may go low without it."""
        refuse_rest(args)
        placing.park_peg(self._model, self._data, self._ids)
        self._num_resets += 1
        return {}

    def objects(self, args: Args) -> Result:
        """Answer the true poses and whether the task (default: that of the last reset) is done."""
        name = args.pop("task", self._task.value)
        refuse_rest(args)
        task = task_by_name(str(name))
        return {
            "sim_time_s": self._data.time,
            "stamp_ns": time.time_ns(),
            "task": task.value,
            "is_success": is_success(task, self._data, self._ids),
            "objects": self._object_poses(),
        }

    def _object_poses(self) -> dict[str, dict[str, list[float]]]:
        poses = object_poses(self._data, self._ids)
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
        refuse_rest(args)
        placing.place_wall(self._model, self._data, self._ids, face_m)
        self._wall.start()
        return {"face_m": face_m.tolist()}

    def remove_wall(self, args: Args) -> Result:
        """Put the wall back out of reach."""
        refuse_rest(args)
        self._park_wall()
        return {}

    def _park_wall(self) -> None:
        placing.park_wall(self._model, self._data, self._ids)
        self._wall.stop()

    def contact_force(self, args: Args) -> Result:
        """Answer the true force of the arm on the wall and the peak since the last such call."""
        refuse_rest(args)
        return {
            "force_n": self._wall.force_n.tolist(),
            "peak_n": self._wall.take_peak_n(),
            "estimated_force_n": self._server.robot.external.wrench[:3].tolist(),
        }

    def record_start(self, args: Args) -> Result:
        """Record a row at every step, for at most ``duration_s``."""
        duration_s = number(args, "duration_s", 60.0, 0.001, _MAX_RECORD_S)
        refuse_rest(args)
        self._recorder.start(num_steps(duration_s))
        return {"columns": list(Recorder.COLUMNS)}

    def record_stop(self, args: Args) -> Callable[[], Result]:
        """Write the recorded rows to a ``.npy`` file in the run directory and answer its path."""
        refuse_rest(args)
        return self._recorder.stop()

    def shutdown(self, args: Args) -> Result:
        """Stop the simulation."""
        refuse_rest(args)
        self._stop()
        return {}
