# SPDX-License-Identifier: Apache-2.0
"""The reference never jumps, never leaves its limits and depends on time only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.geometry import angle_between_rad, offset_pose
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.reference import (
    ReferenceInterpolator,
    ReferenceLimits,
    clip_to_measured,
    limit_target,
)
from vla_rl_ros.core.types import Pose, Twist

HOME = Pose(np.array([0.5, 0.0, 0.25]), np.array([1.0, 0.0, 0.0, 0.0]))
LIMITS = ReferenceLimits()
small = st.floats(-0.4, 0.4)
vectors = st.tuples(small, small, small).map(np.array)


@given(vectors, vectors)
def test_limited_target_is_inside_every_limit(translation: np.ndarray, rotvec: np.ndarray) -> None:
    target = offset_pose(HOME, 20.0 * translation, 3.0 * rotvec)
    limited, _ = limit_target(target, HOME, LIMITS)
    assert np.all(limited.position_m >= LIMITS.box_min_m)
    assert np.all(limited.position_m <= LIMITS.box_max_m)
    assert np.linalg.norm(limited.position_m - HOME.position_m) <= LIMITS.max_step_m + 1e-9
    assert angle_between_rad(limited.quat_xyzw, HOME.quat_xyzw) <= LIMITS.max_step_rad + 1e-9


@given(vectors, vectors, vectors, vectors)
def test_no_target_moves_a_reference_outside_the_limits_by_more_than_a_step(
    where: np.ndarray, turned: np.ndarray, translation: np.ndarray, rotvec: np.ndarray
) -> None:
    reference = offset_pose(HOME, 2.0 * where, 4.0 * turned)
    target = offset_pose(reference, 20.0 * translation, 3.0 * rotvec)
    limited, _ = limit_target(target, reference, LIMITS)
    assert np.linalg.norm(limited.position_m - reference.position_m) <= LIMITS.max_step_m + 1e-9
    assert angle_between_rad(limited.quat_xyzw, reference.quat_xyzw) <= LIMITS.max_step_rad + 1e-6


def test_a_reference_outside_the_box_comes_back_in_steps() -> None:
    outside = offset_pose(HOME, np.array([0.0, 0.0, 0.45]), np.zeros(3))
    limited, flags = limit_target(outside, outside, LIMITS)
    assert flags == ("box", "step")
    assert limited.position_m[2] == pytest.approx(0.65)


def test_target_within_limits_passes_unchanged() -> None:
    target = offset_pose(HOME, np.array([0.01, -0.01, 0.02]), np.array([0.0, 0.0, 0.1]))
    limited, flags = limit_target(target, HOME, LIMITS)
    assert flags == ()
    assert np.allclose(limited.position_m, target.position_m, atol=1e-12)
    assert angle_between_rad(limited.quat_xyzw, target.quat_xyzw) < 1e-9


def test_tilt_limit_turns_the_tool_back_towards_down() -> None:
    limits = ReferenceLimits(max_step_rad=1.0, max_tilt_rad=0.2)
    target = offset_pose(HOME, np.zeros(3), np.array([0.6, 0.0, 0.0]))
    limited, flags = limit_target(target, HOME, limits)
    assert "tilt" in flags
    tool = Rotation.from_quat(limited.quat_xyzw).apply([0.0, 0.0, 1.0])
    assert np.arccos(-tool[2]) == pytest.approx(0.2, abs=1e-9)


def test_empty_box_is_refused() -> None:
    with pytest.raises(ConfigError, match="below"):
        ReferenceLimits(box_min_m=(0.5, 0.0, 0.5), box_max_m=(0.4, 0.1, 0.6))


@given(vectors, vectors, st.floats(0.0, 1.0))
def test_sampling_is_continuous_and_slower_than_the_limit(
    translation: np.ndarray, rotvec: np.ndarray, when: float
) -> None:
    interpolator = ReferenceInterpolator(HOME)
    interpolator.set_target(offset_pose(HOME, translation, rotvec), 0.0, 0.1, LIMITS)
    step_s = 1e-3
    before, twist = interpolator.sample(when)
    after, _ = interpolator.sample(when + step_s)
    moved = np.linalg.norm(after.position_m - before.position_m)
    assert moved <= LIMITS.max_speed_m_per_s * step_s * (1 + 1e-6) + 1e-12
    assert np.linalg.norm(twist.linear_m_per_s) <= LIMITS.max_speed_m_per_s * (1 + 1e-9)


def test_reference_depends_on_time_not_on_the_number_of_samples() -> None:
    target = offset_pose(HOME, np.array([0.02, 0.0, 0.0]), np.zeros(3))
    often, seldom = ReferenceInterpolator(HOME), ReferenceInterpolator(HOME)
    for interpolator in (often, seldom):
        interpolator.set_target(target, 1.0, 0.1, LIMITS)
    for step in range(50):
        often.sample(1.0 + step * 1e-3)
    assert np.array_equal(often.sample(1.06)[0].position_m, seldom.sample(1.06)[0].position_m)


def test_target_is_reached_exactly_and_the_twist_ends() -> None:
    target = offset_pose(HOME, np.array([0.02, 0.0, 0.0]), np.array([0.0, 0.0, 0.05]))
    interpolator = ReferenceInterpolator(HOME)
    interpolator.set_target(target, 0.0, 0.1, LIMITS)
    middle, twist = interpolator.sample(0.05)
    assert middle.position_m[0] == pytest.approx(0.51)
    assert twist.linear_m_per_s[0] == pytest.approx(0.2)
    end, rest = interpolator.sample(0.1)
    assert np.array_equal(end.position_m, target.position_m)
    assert not rest.linear_m_per_s.any()


def test_freeze_rests_where_the_reference_was() -> None:
    interpolator = ReferenceInterpolator(HOME)
    interpolator.set_target(
        offset_pose(HOME, np.array([0.02, 0, 0]), np.zeros(3)), 0.0, 0.1, LIMITS
    )
    frozen = interpolator.freeze(0.05)
    later, twist = interpolator.sample(5.0)
    assert frozen.position_m[0] == pytest.approx(0.51)
    assert np.array_equal(later.position_m, frozen.position_m)
    assert not twist.linear_m_per_s.any()


def test_clip_is_asymmetric_and_drops_feed_forward_only_where_it_acts() -> None:
    settings = ImpedanceSettings(clip_plus_m=(0.002, 0.01, 0.01), clip_minus_m=(0.008, 0.01, 0.01))
    twist = Twist(np.array([0.1, 0.1, 0.0]), np.zeros(3))
    ahead = offset_pose(HOME, np.array([0.02, 0.001, 0.0]), np.zeros(3))
    pose, feed_forward, saturated = clip_to_measured(ahead, twist, HOME, settings)
    assert pose.position_m[0] - HOME.position_m[0] == pytest.approx(0.002)
    assert pose.position_m[1] - HOME.position_m[1] == pytest.approx(0.001)
    assert feed_forward.linear_m_per_s.tolist() == [0.0, 0.1, 0.0]
    assert saturated == (True, False, False, False, False, False)
    behind = offset_pose(HOME, np.array([-0.02, 0.0, 0.0]), np.zeros(3))
    pose, _, _ = clip_to_measured(behind, twist, HOME, settings)
    assert pose.position_m[0] - HOME.position_m[0] == pytest.approx(-0.008)


def test_rotation_clip_bounds_each_axis() -> None:
    settings = ImpedanceSettings()
    turned = offset_pose(HOME, np.zeros(3), np.array([0.0, 0.0, 0.3]))
    pose, _, saturated = clip_to_measured(turned, Twist(), HOME, settings)
    assert angle_between_rad(pose.quat_xyzw, HOME.quat_xyzw) == pytest.approx(0.1)
    assert saturated[5]
