# SPDX-License-Identifier: Apache-2.0
"""Layouts: where things stand at the start of an episode, drawn from a seed.

Drawn in the same order for every task, so equal seeds of `lift` and `button` give the same scene
and only the instruction decides. World frame and base frame are the same. `sim.placing` puts a
layout into the live scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.scene import (
    BLOCK_HALF_HEIGHT_M,
    CUBE_HALF_M,
    PEG_HALF_LENGTH_M,
    PEG_IN_HAND_M,
)
from vla_rl_ros.sim.tasks import PEG_START_M, Task
from vla_rl_ros.sim.variants import SceneConfig

DOWN_XYZW = (1.0, 0.0, 0.0, 0.0)
HOME_POSITION_M = (0.5, 0.0, 0.25)
MAX_GRIPPER_WIDTH_M = 0.08

_TABLE_MIDDLE_M = (0.5, 0.0)
# Closer than this the open hand, 20 cm wide, would touch one object while it grasps another.
_MIN_DISTANCE_M = 0.12
_CUBE_YAW_RAD = 0.6
# So deep the peg stands in its hole where pulling it out begins.
_PEG_DEPTH_M = 0.025
_MAX_DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where everything stands at the start of an episode.

    Attributes:
        task: The task it was drawn for.
        cube: Pose of the cube's centre.
        button_xy_m: Middle of the button, shape (2,).
        hole_xy_m: Middle of the hole, shape (2,).
        start: TCP pose in which the arm begins.
    """

    task: Task
    cube: Pose
    button_xy_m: FloatArray
    hole_xy_m: FloatArray
    start: Pose

    @property
    def has_peg_in_hand(self) -> bool:
        """Whether the peg is between the fingers; otherwise it is parked out of sight."""
        return self.task in (Task.PEG, Task.PEG_OUT)

    @property
    def gripper_width_m(self) -> float:
        """Width the gripper should be commanded to at the start: 0 holds the peg."""
        return 0.0 if self.has_peg_in_hand else MAX_GRIPPER_WIDTH_M


def sample_layout(task: Task, config: SceneConfig, rng: np.random.Generator) -> Layout:
    """Draw a collision-free start.

    Args:
        task: Decides only where the TCP starts and whether it holds the peg.
        config: Spread of objects and start.
        rng: Source of randomness; equal states give equal layouts.

    Raises:
        SceneError: If the objects do not fit into the spread.
    """
    objects_m = _spread_apart(config, rng)
    cube_xy, button_xy, hole_xy = objects_m
    yaw = rng.uniform(-_CUBE_YAW_RAD, _CUBE_YAW_RAD)
    offset = rng.uniform(-1.0, 1.0, 3)
    if task is Task.PEG:
        low, high = PEG_START_M
        height = low + 0.5 * (offset[2] + 1.0) * (high - low)
        start = np.append(hole_xy + config.start_spread_m * offset[:2], height)
    elif task is Task.PEG_OUT:
        height = 2.0 * BLOCK_HALF_HEIGHT_M - _PEG_DEPTH_M + PEG_HALF_LENGTH_M + PEG_IN_HAND_M
        start = np.append(hole_xy, height)
    else:
        start = np.asarray(HOME_POSITION_M) + config.start_spread_m * offset
    return Layout(
        task=task,
        cube=Pose(
            np.append(cube_xy, CUBE_HALF_M),
            np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)]),
        ),
        button_xy_m=button_xy,
        hole_xy_m=hole_xy,
        start=Pose(start, np.asarray(DOWN_XYZW)),
    )


def _spread_apart(config: SceneConfig, rng: np.random.Generator) -> FloatArray:
    """Three positions on the table, shape (3, 2), no two of them too close."""
    spread = np.asarray(config.object_spread_m)
    for _ in range(_MAX_DRAWS):
        positions = np.asarray(_TABLE_MIDDLE_M) + spread * rng.uniform(-1.0, 1.0, (3, 2))
        gaps = positions - positions[[1, 2, 0]]
        if np.min(np.hypot(gaps[:, 0], gaps[:, 1])) >= _MIN_DISTANCE_M:
            return positions
    raise SceneError(
        f"three objects {_MIN_DISTANCE_M} m apart do not fit into object_spread_m="
        f"{config.object_spread_m}; make it larger"
    )
