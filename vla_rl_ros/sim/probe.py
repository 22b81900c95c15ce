# SPDX-License-Identifier: Apache-2.0
"""Measurements at the rate of the physics: true wall force and 1 kHz rows for benchmarks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fci_robot import FciRobot


class WallGauge:
    """True contact force of whatever touches the wall, without filter or estimate.

    Attributes:
        force_n: Force on the wall at the last step, base axes, shape (3,).
        is_active: Whether the wall stands in the scene.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, wall_body: int) -> None:
        """Bind to a model.

        Args:
            model: Compiled scene.
            data: Live state.
            wall_body: Body id of the wall.
        """
        self._model, self._data = model, data
        self._is_wall = model.geom_bodyid == wall_body
        self._contact = np.zeros(6)
        self._peak_n = 0.0
        self.force_n: FloatArray = np.zeros(3)
        self.is_active = False

    def start(self) -> None:
        """Begin measuring."""
        self.is_active = True
        self._peak_n = 0.0

    def stop(self) -> None:
        """Stop measuring; the force reads zero."""
        self.is_active = False
        self.force_n = np.zeros(3)

    def take_peak_n(self) -> float:
        """Largest magnitude since the last call."""
        peak_n, self._peak_n = self._peak_n, 0.0
        return peak_n

    def update(self) -> None:
        """Sum up the contacts of the last step."""
        data = self._data
        force_n = np.zeros(3)
        if data.ncon:
            is_wall = self._is_wall[data.contact.geom]
            for index in np.flatnonzero(is_wall.any(axis=1)):
                mujoco.mj_contactForce(self._model, data, index, self._contact)
                on_second = self._contact[:3] @ data.contact.frame[index].reshape(3, 3)
                force_n += on_second if is_wall[index, 1] else -on_second
        self.force_n = force_n
        self._peak_n = max(self._peak_n, float(np.linalg.norm(force_n)))


class Recorder:
    """Rows of the arm's true motion and forces, one per step."""

    COLUMNS = (
        "sim_time_s",
        "wall_time_s",
        "tcp.x_m",
        "tcp.y_m",
        "tcp.z_m",
        "wall.fx_n",
        "wall.fy_n",
        "wall.fz_n",
        "tcp.fx_n",
        "tcp.fy_n",
        "tcp.fz_n",
        "tcp.tx_nm",
        "tcp.ty_nm",
        "tcp.tz_nm",
    )

    def __init__(
        self, run_dir: Path, robot: FciRobot, data: mujoco.MjData, wall: WallGauge
    ) -> None:
        """Bind to an arm.

        Args:
            run_dir: Where files are written.
            robot: The arm.
            data: Live state.
            wall: Source of the true wall force.
        """
        self._run_dir, self._robot, self._data, self._wall = run_dir, robot, data, wall
        self._rows: FloatArray | None = None
        self._num_rows = 0
        self._counter = itertools.count(1)

    @property
    def is_active(self) -> bool:
        """Whether rows are being taken."""
        return self._rows is not None and self._num_rows < len(self._rows)

    def start(self, num_rows: int) -> None:
        """Forget earlier rows and take up to `num_rows` new ones.

        Raises:
            SceneError: If a recording is running.
        """
        if self._rows is not None:
            raise SceneError("a recording is running, stop it first")
        self._rows = np.empty((num_rows, len(self.COLUMNS)))
        self._num_rows = 0

    def update(self) -> None:
        """Take one row."""
        if self._rows is None:
            return
        row = self._rows[self._num_rows]
        row[0], row[1] = self._data.time, time.time()
        row[2:5] = self._robot.tcp_in_base[:3, 3]
        row[5:8] = self._wall.force_n
        row[8:14] = self._robot.external.wrench
        self._num_rows += 1

    def stop(self) -> Callable[[], dict[str, Any]]:
        """End the recording.

        Returns:
            A function that writes the file and says where; not for the simulation thread.

        Raises:
            SceneError: If none was started.
        """
        if self._rows is None:
            raise SceneError("no recording is running")
        rows, self._rows = self._rows[: self._num_rows], None
        path = self._run_dir / f"record_{next(self._counter)}.npy"

        def save() -> dict[str, Any]:
            np.save(path, rows)
            return {"path": str(path), "columns": list(self.COLUMNS), "num_rows": len(rows)}

        return save
