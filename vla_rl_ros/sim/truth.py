# SPDX-License-Identifier: Apache-2.0
"""What is really the case in the simulated cell, as seen from another process.

Objects and success are read from the mapped state, which costs the simulation nothing; resets and
health go through the scene's socket. `look` belongs to one thread, the requests may come from
another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim.layouts import HOME_POSITION_M, sample_layout
from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneClient
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import object_poses
from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, SnapshotReader
from vla_rl_ros.sim.tasks import Task, is_success, task_by_name
from vla_rl_ros.sim.variants import variant

_HEALTH_KEYS = (
    "real_time_factor",
    "episode_real_time_factor",
    "sim_time_s",
    "backlog_s",
    "num_backlogs_given_up",
    "busy_p99_ms",
    "num_resets",
    "num_missed_commands",
    "num_unstable_steps",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """The scene at one time.

    Attributes:
        stamp_ns: Wall time at which the simulator wrote it.
        objects: True poses in the base frame, as `scene_poses.object_poses`.
        is_success: Whether the task of the last reset is solved.
    """

    stamp_ns: int
    objects: dict[str, Pose]
    is_success: bool


class SceneTruth:
    """Reads a running simulator and asks it for resets."""

    def __init__(self, run_dir: Path, variant_name: str, task: str) -> None:
        """Find the simulator.

        Args:
            run_dir: Where it keeps socket, model and state.
            variant_name: Variant it was started with.
            task: Task whose success is judged until the first reset.

        Raises:
            ConfigError: Unknown variant or task.
            SceneError: It does not answer.
            DeviceError: It has written no state.
        """
        self._config = variant(variant_name)
        self._task = task_by_name(task)
        self._client = SceneClient(run_dir / SOCKET_NAME)
        self._client.request("ping")
        try:
            self._model = mujoco.MjModel.from_binary_path(str(run_dir / MODEL_NAME))
        except ValueError as error:
            raise SceneError(f"no model in {run_dir}: is the simulator running?") from error
        self._data = mujoco.MjData(self._model)
        self._ids = SceneIds.from_model(self._model)
        self._reader = SnapshotReader(run_dir / SNAPSHOT_NAME)
        self.latest: Moment | None = None
        """What `look` saw last."""

    def look(self) -> Moment | None:
        """The scene now, None before the simulator's first step."""
        snapshot = self._reader.read()
        if snapshot is None:
            return self.latest
        snapshot.apply(self._data)
        mujoco.mj_kinematics(self._model, self._data)
        self.latest = Moment(
            stamp_ns=snapshot.stamp_ns,
            objects=object_poses(self._data, self._ids),
            is_success=is_success(self._task, self._data, self._ids),
        )
        return self.latest

    def start(self, task: str, seed: int) -> dict[str, Any]:
        """Where the arm has to start for a reset; empties the hand where it starts low.

        Args:
            task: Task name.
            seed: Seed of the reset.

        Returns:
            ``start_offset_m``: offset of the TCP from its home position, base axes;
            ``gripper_width_m``: what the gripper has to be commanded to before the reset.
        """
        which = task_by_name(task)
        if which is Task.PEG_OUT:
            self._client.request("clear_hand")
        layout = sample_layout(which, self._config, np.random.default_rng(seed))
        offset_m = layout.start.position_m - np.asarray(HOME_POSITION_M)
        return {"start_offset_m": offset_m.tolist(), "gripper_width_m": layout.gripper_width_m}

    def reset(self, task: str, seed: int) -> dict[str, Any]:
        """Arrange the scene; returns what the scene answers.

        Raises:
            SceneError: It refused.
        """
        answer = self._client.request("reset", task=task, seed=seed)
        self._task = task_by_name(task)
        return answer

    def check(self, task: str) -> dict[str, Any]:
        """Judge another task from now on, touching nothing.

        Returns:
            ``problem``: why it cannot begin in the present state, empty when it can.

        Raises:
            SceneError: It refused.
        """
        answer = self._client.request("check", task=task)
        self._task = task_by_name(task)
        return answer

    def health(self) -> dict[str, float]:
        """How well the simulation keeps time and what went wrong in it.

        Raises:
            SceneError: It does not answer.
        """
        stats = self._client.request("stats")
        return {key: float(stats[key]) for key in _HEALTH_KEYS if key in stats}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
