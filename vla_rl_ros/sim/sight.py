# SPDX-License-Identifier: Apache-2.0
"""What somebody who looks at the cell sees, and how far from done a task seems to him.

Used by the stand-in operator (`sim.operator`) and by `tools/stand_in.py`, which shows him the
cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.types import FloatArray, Pose

_PEG_TIP_M = 0.035
_PEG_OVER_M, _PEG_DEPTH_M, _PEG_SUNK_M = 0.006, 0.02, 0.04


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """What there is to be seen at one moment.

    Attributes:
        time_s: When.
        tcp: Pose of the hand, base frame.
        width_m: Distance between the fingers.
        objects: Base-frame poses by name, as `sim/objects` has them.
    """

    time_s: float
    tcp: Pose
    width_m: float
    objects: Mapping[str, Pose]


def remaining_m(task: str, sight: Sight) -> float:
    """How far a task is from done, as somebody judges who looks at it.

    Args:
        task: ``lift``, ``peg`` or ``button``.
        sight: What is seen.
    """
    tcp, objects = sight.tcp.position_m, sight.objects
    if task == "peg":
        peg, hole = objects["peg"], objects["hole"].position_m
        tip = peg.position_m + _PEG_TIP_M * _z_axis(peg.quat_xyzw)
        beside = math.dist(tip[:2], hole[:2])
        to_sink = min(_PEG_SUNK_M, max(0.0, float(tip[2] - hole[2]) + _PEG_DEPTH_M))
        # Beside the hole depth is worth nothing, and the way down to it is no step back.
        return beside + (to_sink if beside < _PEG_OVER_M else _PEG_SUNK_M)
    if task == "button":
        return math.dist(tcp, objects["button"].position_m)
    cube = objects["cube"].position_m
    height_left = max(0.0, 0.12 - float(cube[2]))
    return height_left + (0.0 if cube[2] > 0.04 else math.dist(tcp, cube))


def _z_axis(quat_xyzw: FloatArray) -> FloatArray:
    x, y, z, w = quat_xyzw.tolist()
    return np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
