# SPDX-License-Identifier: Apache-2.0
"""What an expert looks at, and what it makes of it: is the cube held, where is the peg's tip.

Read by the rules (`experts`) and by the guess of what comes next (`expert_chunks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.types import FloatArray, Pose

HELD_WIDTH_M = (0.030, 0.045)
"""Distances between fingers that have closed on the cube."""
FINGERTIP_M = 0.008
"""How far the fingertips reach beyond the TCP."""
PEG_TOLERANCE_M = 0.0016
"""Distance of the peg's tip from the middle of the hole at which it is taken to go in."""
_PEG_TIP_M = 0.035


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertView:
    """What an expert looks at.

    Attributes:
        tcp: Measured TCP pose, base frame.
        gripper_width_m: Measured distance between the fingers.
        is_gripper_open: Whether the last gripper command was to open.
        objects: Base-frame poses of ``cube`` (centre), ``button`` (middle of the cap's top),
            ``hole`` (its middle at the top of the block) and ``peg`` (centre; the tip is 35 mm
            along its z axis).
        tick: Control ticks since the start; only the phase of the peg's search depends on it.
        episode: Counts episodes; only where the peg that is pulled out ends depends on it.
    """

    tcp: Pose
    gripper_width_m: float
    is_gripper_open: bool
    objects: Mapping[str, Pose]
    tick: int = 0
    episode: int = 0
    _matrix: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the rotation matrix of the TCP once."""
        object.__setattr__(self, "_matrix", rotation_matrix(self.tcp.quat_xyzw))

    @property
    def rotation(self) -> FloatArray:
        """Orientation of the TCP, shape (3, 3)."""
        return self._matrix


def rotation_matrix(quat_xyzw: FloatArray) -> FloatArray:
    """Rotation matrix of a unit quaternion, shape (3, 3)."""
    x, y, z, w = quat_xyzw.tolist()
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def is_around_cube(view: ExpertView) -> bool:
    """Whether the cube is where the fingers close."""
    offset = view.objects["cube"].position_m - view.tcp.position_m
    return math.hypot(offset[0], offset[1]) < 0.012 and abs(offset[2]) < 0.014


def is_holding_cube(view: ExpertView) -> bool:
    """Whether the fingers have closed on the cube."""
    low, high = HELD_WIDTH_M
    is_around = not view.is_gripper_open and is_around_cube(view)
    return is_around and low < view.gripper_width_m < high


def peg_errors(view: ExpertView) -> tuple[FloatArray, float]:
    """Offset from tip to hole in the plane, shape (2,), and the tip's height above the block."""
    peg, hole = view.objects["peg"], view.objects["hole"].position_m
    tip = peg.position_m + _PEG_TIP_M * rotation_matrix(peg.quat_xyzw)[:, 2]
    return hole[:2] - tip[:2], float(tip[2] - hole[2])
