# SPDX-License-Identifier: Apache-2.0
"""From sparse targets to the dense reference that the Cartesian spring follows.

Owns every limit between a target message and the arm: workspace box, step, tilt, speed, and the
distance between reference and measured pose. References are functions of time, never of a tick
count, so a late caller cannot make the arm catch up. Called by the arm's control loop and by the
fast simulator; the caller brings the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.geometry import offset_pose, pose_increment, rotation_error_rad
from vla_rl_ros.core.impedance import ImpedanceSettings, clip_error
from vla_rl_ros.core.types import FloatArray, Pose, Twist

_DOWN = np.array([0.0, 0.0, -1.0])
# Rounding must not push a pose on the box's surface off it.
_STEP_SLACK = 1.0 + 1e-9


@dataclass(frozen=True, kw_only=True)
class ReferenceLimits:
    """Where and how fast the reference may go, base frame."""

    box_min_m: tuple[float, ...] = param(
        (0.28, -0.35, 0.005), doc="Lower corner of the workspace box.", unit="m", live=True
    )
    box_max_m: tuple[float, ...] = param(
        (0.72, 0.35, 0.6), doc="Upper corner of the workspace box.", unit="m", live=True
    )
    max_step_m: float = param(
        0.05, doc="Largest move of one target.", unit="m", low=0.0, high=0.2, live=True
    )
    max_step_rad: float = param(
        0.3, doc="Largest turn of one target.", unit="rad", low=0.0, high=1.0, live=True
    )
    max_speed_m_per_s: float = param(
        0.3, doc="Largest reference speed.", unit="m/s", low=0.01, high=1.0, live=True
    )
    max_speed_rad_per_s: float = param(
        1.2, doc="Largest reference turn rate.", unit="rad/s", low=0.01, high=2.5, live=True
    )
    max_tilt_rad: float = param(
        0.8,
        doc="Largest angle between the tool axis and straight down.",
        unit="rad",
        low=0.0,
        high=3.1416,
        live=True,
    )

    def __post_init__(self) -> None:
        """Check bounds and that the box has a volume."""
        check_bounds(self)
        if len(self.box_min_m) != 3 or len(self.box_max_m) != 3:
            raise ConfigError("box_min_m and box_max_m need three values each")
        corners = zip(self.box_min_m, self.box_max_m, strict=True)
        if not all(low < high for low, high in corners):
            raise ConfigError(
                f"box_min_m={self.box_min_m} must lie below box_max_m={self.box_max_m}"
            )


def limit_target(
    target: Pose, reference: Pose, limits: ReferenceLimits
) -> tuple[Pose, tuple[str, ...]]:
    """Pull a target into the limits, by one step at most.

    The step bound has the last word: a reference outside the box or tilted too far comes back in
    steps.

    Args:
        target: Wanted TCP pose.
        reference: Goal the arm is following now; steps are measured from it.
        limits: Box, step and tilt limits.

    Returns:
        The limited pose and the names of the limits that acted, out of ``box``, ``step``,
        ``tilt``.
    """
    flags = []
    limited, is_far = _limit_step(target, reference, limits)
    if is_far:
        flags.append("step")
    position, is_outside = _limit_box(limited.position_m, limits)
    if is_outside:
        flags.append("box")
    quat, is_tilted = _limit_tilt(limited.quat_xyzw, limits.max_tilt_rad)
    if is_tilted:
        flags.append("tilt")
    limited = Pose(position, quat)
    if is_outside or is_tilted:
        limited, is_far = _limit_step(limited, reference, limits)
        if is_far:
            flags.append("step")
    return limited, tuple(dict.fromkeys(flags))


def _limit_box(position_m: FloatArray, limits: ReferenceLimits) -> tuple[FloatArray, bool]:
    """Pull a position into the box."""
    sides = zip(limits.box_min_m, position_m.tolist(), limits.box_max_m, strict=True)
    if all(low <= value <= high for low, value, high in sides):
        return position_m, False
    return np.clip(position_m, limits.box_min_m, limits.box_max_m), True


def _limit_step(target: Pose, reference: Pose, limits: ReferenceLimits) -> tuple[Pose, bool]:
    """Shorten the way from the reference to the target; a near target stays as it is."""
    translation, rotvec = pose_increment(target, reference)
    is_far = False
    for vector, bound in ((translation, limits.max_step_m), (rotvec, limits.max_step_rad)):
        if math.hypot(*vector.tolist()) > bound * _STEP_SLACK:
            vector *= bound / float(np.linalg.norm(vector))
            is_far = True
    return (offset_pose(reference, translation, rotvec) if is_far else target), is_far


def _limit_tilt(quat_xyzw: FloatArray, max_tilt_rad: float) -> tuple[FloatArray, bool]:
    """Turn the tool axis back towards straight down until it is within the limit."""
    x, y, _, _ = quat_xyzw.tolist()
    # The last element of the rotation matrix, 1 - 2 (x^2 + y^2), is the tool axis' height.
    tilt = math.acos(max(-1.0, min(1.0, 2.0 * (x * x + y * y) - 1.0)))
    if tilt <= max_tilt_rad:
        return quat_xyzw, False
    rotation = Rotation.from_quat(quat_xyzw)
    tool_axis = rotation.apply([0.0, 0.0, 1.0])
    axis = np.cross(tool_axis, _DOWN)
    norm = float(np.linalg.norm(axis))
    # Straight up has no shortest way down: any horizontal axis will do.
    axis = axis / norm if norm > 1e-9 else rotation.apply([1.0, 0.0, 0.0])
    back = Rotation.from_rotvec(axis * (tilt - max_tilt_rad))
    return np.asarray((back * rotation).as_quat(), dtype=np.float64), True


class ReferenceInterpolator:
    """Moves a reference to each new target in a given time, at constant velocity.

    Example:
        A target at t=0 with duration 0.1 s is reached at t=0.1 s; sampling at 0.05 s gives the
        middle and the constant twist, sampling at 0.2 s gives the target and a zero twist.
    """

    def __init__(self, pose: Pose) -> None:
        """Start at rest at `pose`."""
        self.reset(pose)

    def reset(self, pose: Pose) -> None:
        """Rest at `pose`, forgetting any motion."""
        self._start = pose
        self._start_s = 0.0
        self._duration_s = 0.0
        self._translation_m: FloatArray = np.zeros(3)
        self._rotvec_rad: FloatArray = np.zeros(3)
        self._goal = pose

    @property
    def goal(self) -> Pose:
        """The pose at which the motion ends."""
        return self._goal

    def set_target(
        self, target: Pose, now_s: float, duration_s: float, limits: ReferenceLimits
    ) -> None:
        """Head for `target`, arriving after `duration_s` or later if the speed limits ask for it.

        Args:
            target: New goal, already limited by `limit_target`.
            now_s: Present time of the caller's clock.
            duration_s: Time to take, normally the control period.
            limits: Speed limits.
        """
        start, _ = self.sample(now_s)
        translation, rotvec = pose_increment(target, start)
        self._duration_s = max(
            duration_s,
            float(np.linalg.norm(translation)) / limits.max_speed_m_per_s,
            float(np.linalg.norm(rotvec)) / limits.max_speed_rad_per_s,
        )
        self._start, self._goal, self._start_s = start, target, now_s
        self._translation_m, self._rotvec_rad = translation, rotvec

    def sample(self, now_s: float) -> tuple[Pose, Twist]:
        """Reference pose and twist at `now_s`; the twist is zero at rest."""
        elapsed_s = max(0.0, now_s - self._start_s)
        if elapsed_s >= self._duration_s:
            return self._goal, Twist()
        fraction = elapsed_s / self._duration_s
        pose = offset_pose(
            self._start, fraction * self._translation_m, fraction * self._rotvec_rad
        )
        return pose, Twist(
            self._translation_m / self._duration_s, self._rotvec_rad / self._duration_s
        )

    def freeze(self, now_s: float) -> Pose:
        """Rest at the present reference and return it."""
        pose, _ = self.sample(now_s)
        self.reset(pose)
        return pose


def clip_to_measured(
    reference: Pose, twist: Twist, measured: Pose, settings: ImpedanceSettings
) -> tuple[Pose, Twist, tuple[bool, ...]]:
    """Keep the reference within the error clip around the measured pose.

    The feed-forward velocity is dropped on saturated axes: damping acts on the velocity error, so
    feed-forward into a contact would add force beyond stiffness times clip.

    Args:
        reference: Reference pose of the interpolator.
        twist: Its feed-forward twist.
        measured: Measured TCP pose.
        settings: Clips, asymmetric per axis.

    Returns:
        Reference pose, twist, and for x y z rx ry rz whether the clip acts.
    """
    error_m = reference.position_m - measured.position_m
    clipped_m = clip_error(error_m, settings)
    rotvec = rotation_error_rad(reference.quat_xyzw, measured.quat_xyzw)
    bound_rad = np.asarray(settings.clip_rad)
    clipped_rad = np.clip(rotvec, -bound_rad, bound_rad)
    saturated = np.concatenate([clipped_m != error_m, clipped_rad != rotvec])
    flags = tuple(bool(flag) for flag in saturated)
    if not any(flags):
        return reference, twist, flags
    pose = offset_pose(measured, clipped_m, clipped_rad)
    feed_forward = Twist(
        np.where(saturated[:3], 0.0, twist.linear_m_per_s),
        np.where(saturated[3:], 0.0, twist.angular_rad_per_s),
    )
    return pose, feed_forward, flags
