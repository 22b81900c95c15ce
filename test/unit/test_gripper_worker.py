# SPDX-License-Identifier: Apache-2.0
"""Newest target wins, repeated targets are not sent again, faults are latched and recovered."""

from __future__ import annotations

import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.fakes import FakeGripper
from vla_rl_ros.hardware.gripper_worker import GripperWorker


def made(*, is_instant: bool = True, object_m: float = 0.0) -> tuple[GripperWorker, FakeGripper]:
    gripper = FakeGripper(is_instant=is_instant, object_m=object_m)
    gripper.open()
    gripper.calls.clear()
    return GripperWorker(gripper), gripper


def commands(gripper: FakeGripper) -> list[str]:
    return [call for call in gripper.calls if call not in ("open", "close")]


def test_a_repeated_target_is_sent_once() -> None:
    worker, gripper = made()
    for width_m in (0.08, 0.08, 0.0805):
        worker.submit(width_m)
        worker.step()
    assert commands(gripper) == ["move 0.08"]
    assert worker.num_commands == 1


def test_a_closed_target_grasps_what_is_there() -> None:
    worker, gripper = made(object_m=0.04)
    worker.submit(0.0)
    worker.step()
    worker.step()
    assert commands(gripper) == ["grasp"]
    assert worker.state is not None
    worker.step()
    assert worker.state.is_grasped
    assert worker.state.width_m == 0.04


def test_opening_moves_no_finger_and_homing_comes_before_the_first_target() -> None:
    gripper = FakeGripper(is_instant=False, is_homed=False)
    gripper.open()
    worker = GripperWorker(gripper)
    worker.step()
    assert gripper.calls == ["open"]
    worker.request_homing()
    worker.submit(0.02)
    worker.step()
    worker.step()
    assert gripper.calls == ["open", "homing"]
    gripper.finish()
    worker.step()
    assert gripper.calls == ["open", "homing", "move 0.02"]
    gripper.finish()
    worker.request_homing()
    worker.step()
    assert gripper.calls == ["open", "homing", "move 0.02"]


def test_the_newest_target_replaces_waiting_and_running_ones() -> None:
    worker, gripper = made(is_instant=False)
    worker.submit(0.0)
    worker.step()
    worker.submit(0.02)
    worker.submit(0.08)
    worker.step()
    assert commands(gripper) == ["grasp", "stop", "move 0.08"]


def test_a_fault_is_latched_until_recovery_with_a_new_connection() -> None:
    worker, gripper = made()
    gripper.failure = "cable"
    worker.step()
    assert worker.fault == "cable"
    gripper.failure = None
    worker.submit(0.0)
    worker.step()
    assert worker.fault == "cable"
    assert commands(gripper) == []
    worker.request_recovery()
    worker.submit(0.0)
    worker.step()
    assert worker.fault is None
    assert gripper.calls == ["close", "open", "grasp"]


def test_recovery_without_a_fault_keeps_the_grasp() -> None:
    worker, gripper = made()
    worker.submit(0.0)
    worker.step()
    worker.request_recovery()
    worker.step()
    assert gripper.calls == ["grasp"]


def test_recovery_waits_until_the_fault_is_gone_or_says_why_not() -> None:
    worker, gripper = made()
    worker.start()
    try:
        worker.recover(5.0)
        gripper.failure = "cable"
        with pytest.raises(DeviceError, match="cable"):
            worker.move_and_wait(0.0, 5.0)
        with pytest.raises(DeviceError, match="fault stays: cable"):
            worker.recover(5.0)
        gripper.failure = None
        worker.recover(5.0)
        assert worker.fault is None
        worker.move_and_wait(0.0, 5.0)
    finally:
        worker.stop()


def test_waiting_ends_with_the_command_or_with_a_sentence() -> None:
    worker, gripper = made(is_instant=False)
    worker.start()
    try:
        with pytest.raises(DeviceError, match=r"not done within 0.1 s"):
            worker.move_and_wait(0.02, 0.1)
        gripper.finish()
        worker.move_and_wait(0.02, 5.0)
        gripper.failure = "cable"
        with pytest.raises(DeviceError, match="cable"):
            worker.move_and_wait(0.08, 5.0)
    finally:
        gripper.failure = None
        worker.stop()
