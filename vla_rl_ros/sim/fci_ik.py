# SPDX-License-Identifier: Apache-2.0
"""One small step of inverse kinematics, as the control box takes it at every millisecond."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.types import FloatArray

_DAMPING = np.eye(6) * 1e-6
_ELBOW_GAIN = 0.05


def elbow(q_rad: FloatArray) -> tuple[float, float]:
    """Position of joint 3 and the sign of joint 4, as libfranka describes an elbow."""
    return q_rad.item(2), 1.0 if q_rad.item(3) > 0.0 else -1.0


def elbow_pull(elbow_rad: float | None, q_rad: FloatArray) -> float:
    """How far joint 3 should go in this step towards a wanted elbow, where one is wanted."""
    return 0.0 if elbow_rad is None else _ELBOW_GAIN * (elbow_rad - q_rad.item(2))


def resolve(jacobian: FloatArray, motion: FloatArray, elbow_step_rad: float) -> FloatArray:
    """Smallest joint step for a TCP motion, with a step of joint 3 in its null space.

    Args:
        jacobian: Of the TCP, shape (6, 7).
        motion: Small displacement and rotation vector in the Jacobian's axes, shape (6,).
        elbow_step_rad: Wanted step of joint 3.

    Returns:
        Joint step, shape (7,).
    """
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + _DAMPING)
    step = inverse @ motion
    if elbow_step_rad != 0.0:
        wanted = np.zeros(7)
        wanted[2] = elbow_step_rad
        step += wanted - inverse @ (jacobian @ wanted)
    return np.asarray(step)
