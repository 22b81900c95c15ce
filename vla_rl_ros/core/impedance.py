# SPDX-License-Identifier: Apache-2.0
"""Settings of the Cartesian spring, SERL's parameters ported to a rotation-vector law.

SERL (arXiv 2401.16013, serl_franka_controllers) measures the rotation error as the vector part
of a quaternion, about half the angle. A law that uses the full rotation vector therefore needs
half the rotational stiffness and twice the rotational clip for the same wrench; rotational
damping acts on the angular velocity in both and is unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray

# SERL's 0.2 Nm/rad on every joint, a hundred times that on the first; damping is twice the root
# of each of the two factors.
_NULLSPACE_DAMPING = (2.0 * math.sqrt(0.2) * 2.0 * math.sqrt(100.0), *([2.0 * math.sqrt(0.2)] * 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpedanceSettings:
    """Stiffness, damping and error clip of the Cartesian spring, base axes.

    Attributes:
        stiffness_n_per_m: Translational stiffness.
        damping_ns_per_m: Translational damping.
        stiffness_nm_per_rad: Rotational stiffness on the rotation vector.
        damping_nms_per_rad: Rotational damping.
        clip_plus_m: Error bound towards +x, +y, +z: limits the force in + direction.
        clip_minus_m: Error bound towards -x, -y, -z: limits the force in - direction.
        clip_rad: Error bound on the rotation vector per axis.
        nullspace_stiffness_nm_per_rad: Posture stiffness per joint, in the task's null space.
        nullspace_damping_nms_per_rad: Posture damping per joint.
    """

    stiffness_n_per_m: float = 2000.0
    damping_ns_per_m: float = 89.0
    stiffness_nm_per_rad: float = 75.0
    damping_nms_per_rad: float = 7.0
    clip_plus_m: tuple[float, float, float] = (0.01, 0.01, 0.01)
    clip_minus_m: tuple[float, float, float] = (0.01, 0.01, 0.01)
    clip_rad: tuple[float, float, float] = (0.1, 0.1, 0.1)
    nullspace_stiffness_nm_per_rad: tuple[float, ...] = (20.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)
    nullspace_damping_nms_per_rad: tuple[float, ...] = _NULLSPACE_DAMPING

    def __post_init__(self) -> None:
        """Refuse values that no spring can have."""
        for name in ("clip_plus_m", "clip_minus_m", "clip_rad"):
            clip = getattr(self, name)
            if len(clip) != 3 or not all(np.isfinite(clip)) or min(clip) <= 0.0:
                raise ConfigError(f"{name}={clip!r} must be three positive numbers")
        for name in (
            "stiffness_n_per_m",
            "damping_ns_per_m",
            "stiffness_nm_per_rad",
            "damping_nms_per_rad",
        ):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0.0:
                raise ConfigError(f"{name}={value!r} must be finite and not negative")
        for name in ("nullspace_stiffness_nm_per_rad", "nullspace_damping_nms_per_rad"):
            if len(getattr(self, name)) != 7:
                raise ConfigError(f"{name} needs 7 values, one per joint")

    @property
    def force_bound_n(self) -> float:
        """Largest static force per axis: stiffness times clip (algorithm: |F| <= K * clip)."""
        return self.stiffness_n_per_m * max(*self.clip_plus_m, *self.clip_minus_m)

    @property
    def torque_bound_nm(self) -> float:
        """Largest static torque about an axis of the TCP, as `force_bound_n`."""
        return self.stiffness_nm_per_rad * max(self.clip_rad)

    @property
    def outer_clip_m(self) -> tuple[float, ...]:
        """Symmetric clip per axis that contains both sides, shape (3,)."""
        return tuple(max(sides) for sides in zip(self.clip_plus_m, self.clip_minus_m, strict=True))


PRESETS: dict[str, ImpedanceSettings] = {
    "compliant": ImpedanceSettings(),
    # SERL's 3000/89 and 300/9 with clips of 0.01 m and 0.05; its integral gains are left out.
    "precise": ImpedanceSettings(
        stiffness_n_per_m=3000.0,
        damping_ns_per_m=89.0,
        stiffness_nm_per_rad=150.0,
        damping_nms_per_rad=9.0,
    ),
}


def clip_error(error_m: FloatArray, settings: ImpedanceSettings) -> FloatArray:
    """Clip a position error (target minus measured, base axes) per axis and side, shape (3,)."""
    return np.clip(error_m, -np.asarray(settings.clip_minus_m), np.asarray(settings.clip_plus_m))


def spring_wrench(
    position_error_m: FloatArray,
    rotation_error_rad: FloatArray,
    twist_error: FloatArray,
    settings: ImpedanceSettings,
) -> FloatArray:
    """Wrench of the clipped spring: ``F = K clip(e) + D (v_d - v)``.

    Args:
        position_error_m: Target minus measured TCP position, base axes, shape (3,).
        rotation_error_rad: Rotation vector from measured to target, base axes, shape (3,).
        twist_error: Reference minus measured twist (linear, angular), shape (6,).
        settings: Stiffness, damping and clips.

    Returns:
        Force and torque on the TCP, base axes, shape (6,).
    """
    clip_rad = np.asarray(settings.clip_rad)
    wrench = np.empty(6)
    wrench[:3] = settings.stiffness_n_per_m * clip_error(position_error_m, settings)
    wrench[3:] = settings.stiffness_nm_per_rad * np.clip(rotation_error_rad, -clip_rad, clip_rad)
    wrench[:3] += settings.damping_ns_per_m * twist_error[:3]
    wrench[3:] += settings.damping_nms_per_rad * twist_error[3:]
    return wrench
