# SPDX-License-Identifier: Apache-2.0
"""From the axes of a device to an increment of the arm, and back: dead zone, mapping, scale.

    device -> operator's frame (x away from him, y left, z up) -> dead zone -> `teleop/joy`
           -> mapping -> scale -> increment per tick in the base frame, SI

The operator's frame is right-handed (REP-103). Where he stands does not matter to the device, only
to `mapping`. Called by `core.teleop` and by who reads a device; the way back by simulated hands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.teleop_config import AXES, NOT_USED, NUM_AXES, TeleopConfig
from vla_rl_ros.core.types import FloatArray


def without_dead_zone(axes: Sequence[float] | FloatArray, dead_zone: float) -> FloatArray:
    """Cut the middle out of each axis and stretch the rest, so that nothing jumps at its edge.

    Args:
        axes: Deflections, shape (6,); beyond [-1, 1] they are clipped.
        dead_zone: Deflection that counts as none, in [0, 1).
    """
    clipped = np.clip(np.asarray(axes, dtype=np.float64), -1.0, 1.0)
    size = np.maximum(np.abs(clipped) - dead_zone, 0.0) / (1.0 - dead_zone)
    return np.asarray(np.copysign(size, clipped) + 0.0, dtype=np.float64)


def mapping_matrix(mapping: Sequence[str]) -> FloatArray:
    """Matrix M, shape (6, 6), with ``base = M @ operator``; entries are -1, 0 and 1."""
    matrix = np.zeros((NUM_AXES, NUM_AXES))
    for row, entry in enumerate(mapping):
        name = entry.removeprefix("-")
        if name != NOT_USED:
            matrix[row, AXES.index(name)] = -1.0 if entry.startswith("-") else 1.0
    return matrix


def increment_of(axes: FloatArray, config: TeleopConfig, spec: ActionSpec) -> FloatArray:
    """Increment of one tick, base frame, SI, shape (6,), of axes behind the dead zone."""
    wanted = mapping_matrix(config.mapping) @ axes * np.asarray(config.scale)
    return spec.to_si(np.append(wanted, 0.0))[:GRIPPER_INDEX]


def axes_of(increment: FloatArray, config: TeleopConfig, spec: ActionSpec) -> FloatArray:
    """Inverse of `increment_of`, clipped to [-1, 1]: how far to push for an increment.

    An axis that is locked, or scaled to nothing, stays where it is.
    """
    wanted = spec.to_normalised(np.append(increment, 0.5))[:GRIPPER_INDEX]
    scale = np.asarray(config.scale)
    pushed = np.divide(wanted, scale, out=np.zeros(NUM_AXES), where=scale > 0.0)
    axes = np.clip(mapping_matrix(config.mapping).T @ pushed, -1.0, 1.0)
    return np.asarray(axes, dtype=np.float64)


def with_dead_zone(axes: FloatArray, dead_zone: float) -> FloatArray:
    """Inverse of `without_dead_zone` for axes in [-1, 1]; what is zero stays zero."""
    pushed = np.copysign(dead_zone, axes) + axes * (1.0 - dead_zone)
    return np.asarray(np.where(axes == 0.0, 0.0, pushed), dtype=np.float64)
