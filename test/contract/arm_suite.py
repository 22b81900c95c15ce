# SPDX-License-Identifier: Apache-2.0
"""What every `Arm` must do, run against the fake and against libfranka."""

from __future__ import annotations

import time

import numpy as np
import pytest
from waiting import until

from vla_rl_ros.core.errors import ArmFaultError, DeviceError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import PRESETS
from vla_rl_ros.core.types import Pose, Twist
from vla_rl_ros.hardware.protocols import Arm, ArmMode

COMPLIANT, PRECISE = PRESETS["compliant"], PRESETS["precise"]


def shifted(pose: Pose, *offset_m: float) -> Pose:
    return offset_pose(pose, np.array(offset_m), np.zeros(3))


class ArmSuite:
    """Subclasses give the fixture `arm` (closed), a home and ways to break it."""

    home_q_rad: tuple[float, ...]
    tolerance_m = 0.003

    def break_by_reflex(self, arm: Arm) -> None:
        raise NotImplementedError

    def break_link(self, arm: Arm) -> None:
        raise NotImplementedError

    @pytest.fixture
    def homed(self, arm: Arm) -> Arm:
        """Open, without fault, at home."""
        arm.open()
        if arm.fault is not None:
            # What an earlier test left behind.
            arm.recover()
        arm.move_joints(np.array(self.home_q_rad), 0.5)
        return arm

    def drag(self, arm: Arm, goal: Pose) -> None:
        """Stream references to a goal, as the control loop does."""
        start = arm.state().pose
        twist = Twist()
        for step in range(1, 41):
            pose = shifted(start, *(step / 40 * (goal.position_m - start.position_m)))
            arm.set_reference(Pose(pose.position_m, goal.quat_xyzw), twist)
            time.sleep(0.005)

    def distance_m(self, arm: Arm, goal: Pose) -> float:
        return float(np.linalg.norm(arm.state().pose.position_m - goal.position_m))

    def test_a_closed_arm_has_no_state_and_takes_no_command(self, arm: Arm) -> None:
        assert arm.mode is ArmMode.DISCONNECTED
        with pytest.raises(DeviceError):
            arm.state()
        with pytest.raises(DeviceError):
            arm.start_impedance(COMPLIANT)
        arm.stop()
        arm.close()

    def test_opening_and_closing_may_be_repeated(self, arm: Arm) -> None:
        arm.open()
        arm.open()
        assert arm.mode is ArmMode.IDLE
        arm.close()
        arm.close()
        assert arm.mode is ArmMode.DISCONNECTED
        arm.open()
        assert arm.mode is ArmMode.IDLE

    def test_states_are_fresh_and_finite(self, homed: Arm) -> None:
        before_ns = time.time_ns()
        first = homed.state()
        assert before_ns - 50_000_000 <= first.stamp_ns <= time.time_ns()
        for values in (first.q_rad, first.dq_rad_per_s, first.tau_nm):
            assert values.shape == (7,)
            assert np.isfinite(values).all()
        assert until(lambda: homed.state().stamp_ns > first.stamp_ns, 0.1)

    def test_engaging_does_not_move_the_arm(self, homed: Arm) -> None:
        before = homed.state().pose
        homed.start_impedance(COMPLIANT)
        assert homed.mode is ArmMode.IMPEDANCE
        assert not until(lambda: self.distance_m(homed, before) > 0.001, 0.3)

    def test_the_arm_follows_its_reference(self, homed: Arm) -> None:
        homed.start_impedance(COMPLIANT)
        goal = shifted(homed.state().pose, 0.0, 0.01, 0.02)
        self.drag(homed, goal)
        assert until(lambda: self.distance_m(homed, goal) < self.tolerance_m)

    def test_a_reference_without_impedance_has_no_effect(self, homed: Arm) -> None:
        before = homed.state().pose
        homed.set_reference(shifted(before, 0.0, 0.0, 0.02), Twist())
        assert homed.mode is ArmMode.IDLE
        homed.start_impedance(COMPLIANT)
        assert not until(lambda: self.distance_m(homed, before) > 0.001, 0.2)

    def test_other_clips_keep_the_reference(self, homed: Arm) -> None:
        homed.start_impedance(COMPLIANT)
        goal = shifted(homed.state().pose, 0.0, 0.0, 0.02)
        self.drag(homed, goal)
        assert until(lambda: self.distance_m(homed, goal) < self.tolerance_m)
        homed.start_impedance(PRECISE)
        homed.set_settings(COMPLIANT)
        assert homed.mode is ArmMode.IMPEDANCE
        assert not until(lambda: self.distance_m(homed, goal) > 0.004, 0.3)

    def test_stop_comes_to_rest_and_may_be_repeated(self, homed: Arm) -> None:
        homed.start_impedance(COMPLIANT)
        self.drag(homed, shifted(homed.state().pose, 0.0, 0.0, 0.03))
        started_s = time.monotonic()
        homed.stop()
        assert time.monotonic() - started_s < 0.6
        assert homed.mode is ArmMode.IDLE
        rest = homed.state().pose
        assert not until(lambda: self.distance_m(homed, rest) > 0.001, 0.2)
        homed.stop()
        assert homed.mode is ArmMode.IDLE

    def test_planned_motions_end_where_they_should(self, homed: Arm) -> None:
        goal = shifted(homed.state().pose, 0.0, 0.03, 0.04)
        homed.start_impedance(COMPLIANT)
        homed.move_tcp(goal, 0.2)
        assert homed.mode is ArmMode.IDLE
        # The control box settles for some 100 ms after the motion has ended.
        assert until(lambda: self.distance_m(homed, goal) < 0.002)
        homed.move_joints(np.array(self.home_q_rad), 0.5)
        q_rad = np.array(self.home_q_rad)
        assert until(lambda: np.abs(homed.state().q_rad - q_rad).max() < 5e-3)

    def test_a_reflex_is_latched_and_recovered_from(self, homed: Arm) -> None:
        homed.start_impedance(COMPLIANT)
        self.break_by_reflex(homed)
        assert until(lambda: homed.mode is ArmMode.FAULT, 2.0)
        assert homed.fault is not None
        assert homed.fault.kind == "reflex"
        with pytest.raises(ArmFaultError, match="reflex"):
            homed.start_impedance(COMPLIANT)
        with pytest.raises(ArmFaultError):
            homed.move_joints(np.array(self.home_q_rad), 0.5)
        homed.stop()
        started_s = time.monotonic()
        homed.recover()
        assert time.monotonic() - started_s < 1.0
        assert homed.fault is None
        assert homed.mode is ArmMode.IDLE
        before = homed.state().pose
        homed.start_impedance(COMPLIANT)
        assert not until(lambda: self.distance_m(homed, before) > 0.001, 0.2)

    def test_a_lost_link_is_latched_and_connected_anew(self, homed: Arm) -> None:
        homed.start_impedance(COMPLIANT)
        self.break_link(homed)
        assert until(lambda: homed.mode is ArmMode.FAULT, 4.0)
        assert homed.fault is not None
        assert homed.fault.kind == "link_lost"
        with pytest.raises(DeviceError):
            homed.state()

        def recovered() -> bool:
            try:
                homed.recover()
            except DeviceError:
                return False
            return True

        assert until(recovered, 10.0)
        assert homed.mode is ArmMode.IDLE
        assert until(lambda: homed.state().stamp_ns > time.time_ns() - 20_000_000, 1.0)
        homed.start_impedance(COMPLIANT)
        homed.stop()

    def test_recovery_without_a_fault_changes_nothing(self, homed: Arm) -> None:
        homed.recover()
        assert homed.mode is ArmMode.IDLE
        homed.start_impedance(COMPLIANT)
        with pytest.raises(DeviceError, match="stop it first"):
            homed.recover()
        assert homed.mode is ArmMode.IMPEDANCE
