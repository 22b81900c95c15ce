# SPDX-License-Identifier: Apache-2.0
"""Rules between targets and references: engage, follow, heartbeat, hold, stop, reject."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import Pose
from vla_rl_ros.hardware.control_types import REJECTING, ControlLoopConfig, ControlMode
from vla_rl_ros.hardware.fakes import HOME_POSE
from vla_rl_ros.hardware.target_follower import Event, TargetFollower

WIDE = ImpedanceSettings(clip_plus_m=(1.0,) * 3, clip_minus_m=(1.0,) * 3, clip_rad=(3.0,) * 3)


def at(*offset_m: float) -> Pose:
    return offset_pose(HOME_POSE, np.array(offset_m), np.zeros(3))


def running(**config: float) -> TargetFollower:
    """A follower engaged at home since t=0."""
    follower = TargetFollower(ControlLoopConfig(**config), ReferenceLimits())
    assert follower.accept(at(0.0, 0.0, 0.0), HOME_POSE, 0.0) is Event.ENGAGE
    follower.engaged(HOME_POSE, 0.0)
    return follower


def x_of(follower: TargetFollower, now_s: float, measured: Pose = HOME_POSE) -> float:
    command, _ = follower.step(measured, WIDE, now_s)
    assert command is not None
    return float(command.pose.position_m[0] - HOME_POSE.position_m[0])


def test_the_first_near_target_engages_from_the_measured_pose() -> None:
    follower = TargetFollower(ControlLoopConfig(), ReferenceLimits())
    assert follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.0) is Event.ENGAGE
    assert follower.mode is ControlMode.ENGAGING
    assert follower.step(HOME_POSE, WIDE, 0.0) == (None, Event.NONE)
    follower.engaged(HOME_POSE, 0.05)
    assert follower.mode is ControlMode.RUN
    assert x_of(follower, 0.05) == pytest.approx(0.0)
    assert x_of(follower, 0.15) == pytest.approx(0.02)


@pytest.mark.parametrize(
    "target",
    [at(0.031, 0.0, 0.0), offset_pose(HOME_POSE, np.zeros(3), np.array([0.0, 0.31, 0.0]))],
)
def test_a_first_target_far_from_the_arm_does_not_engage(target: Pose) -> None:
    follower = TargetFollower(ControlLoopConfig(), ReferenceLimits())
    with pytest.raises(InvalidCommandError, match="engage_distance"):
        follower.accept(target, HOME_POSE, 0.0)
    assert follower.mode is ControlMode.IDLE


def test_no_target_is_followed_while_the_pose_is_unknown() -> None:
    follower = TargetFollower(ControlLoopConfig(), ReferenceLimits())
    with pytest.raises(InvalidCommandError, match="no_state"):
        follower.accept(HOME_POSE, None, 0.0)


def test_the_reference_moves_by_time_with_feed_forward_and_rests_with_none() -> None:
    follower = running()
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.01)
    command, _ = follower.step(HOME_POSE, WIDE, 0.06)
    assert command is not None
    assert command.pose.position_m[0] - HOME_POSE.position_m[0] == pytest.approx(0.01)
    assert command.twist.linear_m_per_s[0] == pytest.approx(0.2)
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.09)
    command, _ = follower.step(HOME_POSE, WIDE, 0.12)
    assert command is not None
    assert not command.twist.linear_m_per_s.any()


def test_a_repeated_target_feeds_the_watchdog_without_restarting_the_motion() -> None:
    follower = running()
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.0)
    for now_s in (0.025, 0.05, 0.075):
        follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, now_s)
    assert x_of(follower, 0.09) == pytest.approx(0.018)
    assert follower.target_age_s(0.1) == pytest.approx(0.025)
    assert x_of(follower, 0.14) == pytest.approx(0.02)
    assert follower.mode is ControlMode.RUN


def test_a_repeated_target_beyond_one_step_is_reached_in_steps() -> None:
    follower = running()
    reached, now_s = 0.0, 0.0
    while now_s < 1.0:
        follower.accept(at(0.12, 0.0, 0.0), HOME_POSE, now_s)
        now_s += 0.025
        step_m = x_of(follower, now_s) - reached
        assert step_m <= ReferenceLimits().max_speed_m_per_s * 0.025 + 1e-9
        reached += step_m
    assert reached == pytest.approx(0.12)


def test_silence_holds_within_100_ms_and_stops_within_500_ms() -> None:
    follower = running()
    follower.accept(at(0.05, 0.0, 0.0), HOME_POSE, 0.0)
    cycle_s = 1.0 / follower.config.rate_hz
    history = []
    for cycle in range(1, 120):
        command, event = follower.step(HOME_POSE, WIDE, cycle * cycle_s)
        history.append((cycle * cycle_s, command, event))
    held_s = next(now_s for now_s, _, event in history if event is Event.HELD)
    stopped_s = next(now_s for now_s, _, event in history if event is Event.STOP)
    assert 0.07 < held_s <= 0.1
    assert 0.49 < stopped_s <= 0.5
    held = [command for now_s, command, _ in history if held_s <= now_s < stopped_s]
    assert all(np.array_equal(c.pose.position_m, held[0].pose.position_m) for c in held)
    assert not any(c.twist.linear_m_per_s.any() for c in held)
    assert follower.mode is ControlMode.STOPPED
    with pytest.raises(InvalidCommandError, match="stopped"):
        follower.accept(HOME_POSE, HOME_POSE, 0.6)


def test_a_target_after_a_hold_goes_on_from_the_held_reference() -> None:
    follower = running()
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.0)
    x_of(follower, 0.05)
    held = x_of(follower, 0.2)
    assert follower.mode is ControlMode.HOLD
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.3)
    assert x_of(follower, 0.301) == pytest.approx(held, abs=1e-3)
    assert follower.mode is ControlMode.RUN


def test_far_targets_are_dropped_and_outside_ones_are_limited() -> None:
    follower = running()
    with pytest.raises(InvalidCommandError, match="jump"):
        follower.accept(at(9.0, 0.0, 0.0), HOME_POSE, 0.01)
    turned = offset_pose(HOME_POSE, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    with pytest.raises(InvalidCommandError, match="jump"):
        follower.accept(turned, HOME_POSE, 0.01)
    assert follower.limited == ()
    follower.limits = ReferenceLimits(box_max_m=(0.46, 0.35, 0.6))
    follower.accept(at(0.04, 0.0, 0.0), HOME_POSE, 0.02)
    assert follower.limited == ("box",)
    assert follower.goal is not None
    assert follower.goal.position_m[0] == pytest.approx(0.46)


def test_the_clip_acts_against_the_measured_pose_and_drops_the_feed_forward() -> None:
    follower = running()
    tight = ImpedanceSettings(clip_plus_m=(0.002, 0.01, 0.01), clip_minus_m=(0.01,) * 3)
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.01)
    command, _ = follower.step(HOME_POSE, tight, 0.06)
    assert command is not None
    assert command.pose.position_m[0] - HOME_POSE.position_m[0] == pytest.approx(0.002)
    assert command.twist.linear_m_per_s[0] == 0.0
    assert command.is_saturated == (True, False, False, False, False, False)


def test_a_hold_on_request_rests_and_refuses_until_recovery() -> None:
    follower = running()
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.0)
    follower.hold()
    frozen = x_of(follower, 0.05)
    for now_s in (0.06, 0.1, 0.15, 0.2):
        with pytest.raises(InvalidCommandError, match="held"):
            follower.accept(at(0.03, 0.0, 0.0), HOME_POSE, now_s)
        assert x_of(follower, now_s) == pytest.approx(frozen)
    assert not follower.begin_recovery()
    follower.accept(at(0.02, 0.0, 0.0), HOME_POSE, 0.21)
    assert x_of(follower, 0.32) == pytest.approx(0.02)


def test_rearming_ends_a_stop_but_no_hold_and_no_fault() -> None:
    follower = running()
    with pytest.raises(DeviceError, match="still follows"):
        follower.begin_rearming()
    follower.leave(ControlMode.STOPPED)
    follower.hold()
    with pytest.raises(DeviceError, match="hold was asked for"):
        follower.begin_rearming()
    assert (follower.mode, follower.is_held) == (ControlMode.STOPPED, True)
    assert follower.begin_recovery()
    with pytest.raises(DeviceError, match="busy"):
        follower.begin_rearming()
    follower.fail("reflex: bump")
    with pytest.raises(DeviceError, match="bump"):
        follower.begin_rearming()
    follower.leave(ControlMode.STOPPED)
    follower.begin_rearming()
    assert follower.mode is ControlMode.RECOVERING


@pytest.mark.parametrize("mode", REJECTING)
def test_no_target_is_followed_where_only_a_service_leads_out(mode: ControlMode) -> None:
    follower = running()
    follower.leave(mode)
    with pytest.raises(InvalidCommandError, match=mode.value):
        follower.accept(HOME_POSE, HOME_POSE, 1.0)


def test_homing_waits_for_silence_and_for_a_cleared_fault() -> None:
    follower = running()
    with pytest.raises(DeviceError, match="targets are arriving"):
        follower.begin_homing(0.1)
    follower.begin_homing(0.3)
    with pytest.raises(DeviceError, match="busy"):
        follower.begin_homing(0.4)
    follower.fail("reflex: bump")
    with pytest.raises(DeviceError, match="bump"):
        follower.begin_homing(5.0)
    assert follower.begin_recovery()
    follower.leave(ControlMode.IDLE)
    follower.begin_homing(6.0)
    assert follower.mode is ControlMode.HOMING


def test_an_arm_far_outside_the_box_does_not_engage() -> None:
    low = TargetFollower(
        ControlLoopConfig(), ReferenceLimits(box_max_m=(0.40, 0.35, 0.6), max_step_m=0.2)
    )
    with pytest.raises(InvalidCommandError, match="engage_distance"):
        low.accept(HOME_POSE, HOME_POSE, 0.0)
    assert low.mode is ControlMode.IDLE
    near = TargetFollower(ControlLoopConfig(), ReferenceLimits(box_max_m=(0.44, 0.35, 0.6)))
    assert near.accept(HOME_POSE, HOME_POSE, 0.0) is Event.ENGAGE
