# SPDX-License-Identifier: Apache-2.0
"""The controller when a call fails, a hold is asked for, or its own thread breaks down."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from unit.test_control_loop import Bench, at, home_request, make_handle

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import Pose
from vla_rl_ros.hardware.arm_controller import ArmController
from vla_rl_ros.hardware.control_types import ControlLoopConfig, ControlMode
from vla_rl_ros.hardware.fakes import HOME_POSE, FakeArm, FakeGripper
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.home_motion import go_home
from vla_rl_ros.hardware.protocols import ArmMode


def test_recovery_first_stops_an_arm_that_engaged_after_its_call_was_given_up() -> None:
    bench = Bench()
    engage = bench.arm.start_impedance

    def give_up(*_: object) -> None:
        raise DeviceError("no answer within 2 s")

    bench.arm.start_impedance = give_up  # type: ignore[method-assign]
    bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    assert bench.mode is ControlMode.FAULT
    engage(PRESETS["compliant"])
    assert bench.arm.mode is ArmMode.IMPEDANCE
    assert bench.controller.recover().result(1.0)
    assert bench.mode is ControlMode.IDLE
    assert bench.arm.mode is ArmMode.IDLE


def test_an_arm_that_engaged_but_says_no_state_is_stopped() -> None:
    bench = Bench()
    engage = bench.arm.start_impedance

    def fall_silent(settings: ImpedanceSettings) -> None:
        engage(settings)
        bench.arm.is_silent = True

    bench.arm.start_impedance = fall_silent  # type: ignore[method-assign]
    bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    assert bench.mode is ControlMode.FAULT
    assert bench.arm.mode is ArmMode.IDLE


def test_an_error_no_device_raises_is_a_latched_fault() -> None:
    bench = Bench()

    def break_down(*_: object) -> None:
        raise ZeroDivisionError("oops")

    bench.arm.start_impedance = break_down  # type: ignore[method-assign]
    bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    snapshot = bench.controller.step()
    assert snapshot.mode is ControlMode.FAULT
    assert "ZeroDivisionError: oops" in snapshot.fault


def test_settings_changed_while_the_spring_engages_are_applied() -> None:
    bench = Bench()
    engage = bench.arm.start_impedance
    wanted = ImpedanceSettings(stiffness_n_per_m=500.0)

    def change_meanwhile(settings: ImpedanceSettings) -> None:
        engage(settings)
        bench.controller.set_settings(wanted)

    bench.arm.start_impedance = change_meanwhile  # type: ignore[method-assign]
    bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    assert bench.mode is ControlMode.RUN
    assert bench.arm.settings == wanted


def test_a_failed_home_leaves_a_stopped_arm_stopped() -> None:
    bench = Bench()
    bench.run(0.1, at(0.0))
    bench.run(0.7)
    assert bench.mode is ControlMode.STOPPED
    future = bench.controller.home(home_request(offset_m=(0.5, 0.0, 0.0)))
    with pytest.raises(DeviceError, match="workspace box"):
        future.result(1.0)
    assert bench.mode is ControlMode.STOPPED


def test_a_hold_of_an_idle_arm_refuses_targets_and_home_until_recovery() -> None:
    bench = Bench()
    assert "nothing moves it until recover" in bench.controller.hold()
    assert bench.controller.step().is_held
    with pytest.raises(InvalidCommandError, match="held"):
        bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    with pytest.raises(DeviceError, match="call recover first"):
        bench.controller.home(home_request())
    assert "start_impedance" not in bench.arm.calls
    assert bench.controller.recover().result(1.0)
    bench.run(0.1, at(0.0))
    assert bench.mode is ControlMode.RUN


def test_a_hold_outlasts_the_stop_in_silence() -> None:
    bench = Bench()
    bench.run(0.1, at(0.0))
    assert bench.controller.hold() == "the reference is frozen"
    bench.run(0.7)
    snapshot = bench.controller.step()
    assert snapshot.mode is ControlMode.STOPPED
    assert snapshot.is_held


def test_a_hold_ends_a_motion_to_home() -> None:
    arm = FakeArm()
    arm.open()
    controller = ArmController(
        arm, None, ControlLoopConfig(), ReferenceLimits(), PRESETS["compliant"]
    )
    controller.enable()
    is_moving, is_stopped = threading.Event(), threading.Event()

    def move_joints(*_: object) -> None:
        is_stopped.clear()
        is_moving.set()
        assert is_stopped.wait(5.0)
        raise DeviceError("stopped before its end")

    arm.move_joints = move_joints  # type: ignore[method-assign]
    arm.stop = is_stopped.set  # type: ignore[method-assign]
    future = controller.home(home_request())
    assert is_moving.wait(5.0)
    controller.hold()
    with pytest.raises(DeviceError, match="before its end"):
        future.result(5.0)
    assert controller.step().is_held
    with pytest.raises(DeviceError, match="call recover first"):
        controller.home(home_request())
    controller.close()


def test_a_loop_that_breaks_down_stops_the_arm_and_keeps_the_error() -> None:
    arm = FakeArm()
    handle = make_handle(arm)
    handle.acquire()
    try:
        handle.controller.enable()
        first = handle.loop.wait_cycle(0, 5.0)
        assert first is not None
        arm.start_impedance(PRESETS["compliant"])

        def break_down() -> None:
            raise ZeroDivisionError("oops")

        arm.state = break_down  # type: ignore[assignment]
        last = first
        while last.mode is not ControlMode.FAULT:
            newer = handle.loop.wait_cycle(last.cycle, 5.0)
            assert newer is not None
            last = newer
        assert "ZeroDivisionError: oops" in last.fault
        assert isinstance(handle.loop.error, ZeroDivisionError)
        assert arm.mode is ArmMode.IDLE
        with pytest.raises(InvalidCommandError, match="inactive"):
            handle.controller.submit_target(HOME_POSE, 0)
    finally:
        handle.release()


def test_the_gripper_moves_after_the_arm_has_risen() -> None:
    arm, gripper = FakeArm(), FakeGripper(is_homed=False)
    arm.open()
    low = Pose(HOME_POSE.position_m - np.array([0.0, 0.0, 0.25]), HOME_POSE.quat_xyzw)
    arm.move_tcp(low, 0.1)
    worker = GripperWorker(gripper)
    seen: list[str] = []
    rise = arm.move_tcp

    def watched_rise(pose: Pose, speed_fraction: float) -> None:
        worker.step()
        seen.extend(gripper.calls)
        rise(pose, speed_fraction)

    arm.move_tcp = watched_rise  # type: ignore[method-assign]
    worker.start()
    try:
        go_home(arm, worker, home_request(clearance_m=0.2), ReferenceLimits())
    finally:
        worker.stop()
    assert seen == ["open"]
    assert gripper.calls == ["open", "homing", "move 0.08", "close"]
