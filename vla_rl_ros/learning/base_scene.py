# SPDX-License-Identifier: Apache-2.0
"""Scenes for demonstrations: a few compiled cells, whose friction, light and cameras vary.

Called by `base_episodes` and `base_relays`. What a compiled model fixes (fit and hold of the peg)
is drawn among a few cells, the rest is drawn for every episode and written into the model.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.sim.variants import SceneConfig

_CELLS = (
    SceneConfig(peg_clearance_m=0.001),
    SceneConfig(peg_clearance_m=0.002),
    SceneConfig(peg_clearance_m=0.001, peg_is_welded=False),
)
_PEG_CELL_WEIGHTS = (0.65, 0.15, 0.2)
_NOMINAL_FRICTION_PART = 0.4
"""Part of the episodes at the friction of the nominal cell; the others reach up to full."""
_LIGHT_SCALE = (0.6, 1.3)
_CAMERA_SHIFT_M = {"wrist": 0.003, "front": 0.02}
_CAMERA_TURN_RAD = {"wrist": 0.02, "front": 0.03}


class VaryingCells:
    """The fast simulators of one process. Not thread-safe."""

    def __init__(self) -> None:
        """Compile every cell."""
        self._cells = [_Cell(FastSim(config)) for config in _CELLS]

    def draw(self, task: Task, rng: np.random.Generator) -> FastSim:
        """Choose a cell for a task and vary it; the caller resets it.

        Args:
            task: Only the peg's task tells the cells apart.
            rng: Source of randomness; equal states give equal cells.
        """
        choice = rng.choice(len(self._cells), p=_PEG_CELL_WEIGHTS)
        cell = self._cells[choice if task is Task.PEG else 0]
        cell.vary(rng)
        return cell.sim

    def close(self) -> None:
        """Free the renderers; idempotent."""
        for cell in self._cells:
            cell.sim.close()


class _Cell:
    """One simulator and the nominal values of what varies in it."""

    def __init__(self, sim: FastSim) -> None:
        model = sim.model
        self.sim = sim
        scale = sim.config.joint_friction_scale
        self._full_friction = model.dof_frictionloss[sim.ids.arm_dof] / scale
        self._lights = [
            (array, array.copy())
            for array in (model.vis.headlight.ambient, model.vis.headlight.diffuse,
                          model.light_diffuse)
        ]  # fmt: skip
        self._camera_pos, self._camera_quat = model.cam_pos.copy(), model.cam_quat.copy()

    def vary(self, rng: np.random.Generator) -> None:
        model, ids = self.sim.model, self.sim.ids
        is_nominal = rng.random() < _NOMINAL_FRICTION_PART
        friction = rng.uniform(0.2, 1.0)
        model.dof_frictionloss[ids.arm_dof] = self._full_friction * (
            self.sim.config.joint_friction_scale if is_nominal else friction
        )
        light = rng.uniform(*_LIGHT_SCALE)
        for array, nominal in self._lights:
            array[:] = light * nominal
        for name in CAMERAS:
            camera = ids.cameras[name]
            shift = _CAMERA_SHIFT_M[name] * rng.uniform(-1.0, 1.0, 3)
            turn = _CAMERA_TURN_RAD[name] * rng.uniform(-1.0, 1.0, 3)
            model.cam_pos[camera] = self._camera_pos[camera] + shift
            model.cam_quat[camera] = _turned(self._camera_quat[camera], turn)


def _turned(quat_wxyz: FloatArray, turn_rad: FloatArray) -> FloatArray:
    """Apply a rotation vector in the rotated frame's own axes."""
    rotation = Rotation.from_quat(quat_wxyz[[1, 2, 3, 0]]) * Rotation.from_rotvec(turn_rad)
    return np.asarray(rotation.as_quat()[[3, 0, 1, 2]], dtype=np.float64)
