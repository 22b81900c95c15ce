# SPDX-License-Identifier: Apache-2.0
"""The controller around a fake arm with injected time, and the paced thread around it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import Pose
from vla_rl_ros.hardware.arm_controller import ArmController
from vla_rl_ros.hardware.arm_handle import ArmHandle
from vla_rl_ros.hardware.control_loop import ControlLoop
from vla_rl_ros.hardware.control_types import ControlLoopConfig, ControlMode, HomeRequest
from vla_rl_ros.hardware.fakes import HOME_POSE, HOME_Q_RAD, FakeArm, FakeGripper
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.loop_stats import LoopStatistics
from vla_rl_ros.hardware.protocols import ArmMode
from vla_rl_ros.hardware.robot_thread import thread_policies

CYCLE_S = 0.005
REAL_TIME = {os.SCHED_FIFO, os.SCHED_RR}


def at(x_m: float) -> Pose:
    return offset_pose(HOME_POSE, np.array([x_m, 0.0, 0.0]), np.zeros(3))


class InlineExecutor(Executor):
    """Runs a job at once, so that a test needs no thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except DeviceError as error:
            future.set_exception(error)
        return future


class Bench:
    """A controller, a fake arm and a clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.arm = FakeArm(clock=lambda: self.now_s, wall_ns=self.wall_ns)
        self.arm.open()
        self.jobs: list[Callable[[], None]] = []
        self.controller = ArmController(
            self.arm,
            None,
            ControlLoopConfig(),
            ReferenceLimits(),
            PRESETS["compliant"],
            clock=lambda: self.now_s,
            wall_ns=self.wall_ns,
            worker=InlineExecutor(),
        )
        self.controller.enable()
        self.controller.step()

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    @property
    def mode(self) -> ControlMode:
        return self.controller.step().mode

    def run(self, duration_s: float, target: Pose | None = None, every_s: float = 0.025) -> None:
        """Step the cycles of a while, sending a target now and then."""
        sent_s = float("-inf")
        for _ in range(round(duration_s / CYCLE_S)):
            if target is not None and self.now_s - sent_s >= every_s - 1e-9:
                self.controller.submit_target(target, self.wall_ns())
                sent_s = self.now_s
            self.now_s += CYCLE_S
            self.controller.step()


def home_request(**changes: Any) -> HomeRequest:
    values: dict[str, Any] = {
        "q_rad": HOME_Q_RAD,
        "offset_m": (0.0, 0.0, 0.0),
        "clearance_m": 0.0,
        "joint_speed": 0.2,
        "tcp_speed": 0.1,
        "gripper_width_m": 0.08,
    }
    return HomeRequest(**{**values, **changes})


def test_the_arm_follows_targets_and_stops_by_itself_in_silence() -> None:
    bench = Bench()
    bench.run(0.6, at(0.02))
    assert bench.mode is ControlMode.RUN
    assert bench.arm.state().pose.position_m[0] == pytest.approx(0.47, abs=1e-3)
    bench.run(0.2)
    assert bench.mode is ControlMode.HOLD
    assert bench.arm.mode is ArmMode.IMPEDANCE
    bench.run(0.4)
    assert bench.mode is ControlMode.STOPPED
    assert bench.arm.mode is ArmMode.IDLE
    with pytest.raises(InvalidCommandError, match="stopped"):
        bench.controller.submit_target(at(0.02), bench.wall_ns())
    assert bench.controller.recover().result(1.0).startswith("recovered")
    bench.run(0.1, at(0.02))
    assert bench.mode is ControlMode.RUN
    assert bench.arm.calls.count("start_impedance") == 2


def test_rearming_leaves_the_arm_alone_and_a_hold_in_force() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    bench.run(0.6)
    assert bench.mode is ControlMode.STOPPED
    bench.arm.calls.clear()
    assert bench.controller.rearm().result(1.0).startswith("ready")
    assert (bench.mode, bench.arm.calls) == (ControlMode.IDLE, [])
    bench.controller.hold()
    with pytest.raises(DeviceError, match="hold was asked for"):
        bench.controller.rearm()
    with pytest.raises(InvalidCommandError, match="held"):
        bench.controller.submit_target(bench.arm.state().pose, bench.wall_ns())
    assert bench.controller.recover().result(1.0)
    bench.run(0.1, at(0.02))
    assert bench.mode is ControlMode.RUN


def test_reaction_times_and_latency_are_measured() -> None:
    bench = Bench()
    bench.run(0.3, at(0.02))
    bench.run(0.7)
    figures = bench.controller.stats.summary()
    assert figures["reference_rate_hz"] == pytest.approx(200.0, rel=1e-3)
    assert figures["reference_jitter_p99_ms"] == pytest.approx(0.0, abs=1e-6)
    assert figures["target_to_arm_p50_ms"] == pytest.approx(5.0, abs=0.1)
    assert 70.0 < figures["hold_p99_ms"] <= 100.0
    assert 490.0 < figures["stop_p99_ms"] <= 500.0


def test_a_fault_is_latched_until_recovery() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    bench.arm.fail("reflex", "cartesian_reflex")
    snapshot = bench.controller.step()
    assert snapshot.mode is ControlMode.FAULT
    assert "cartesian_reflex" in snapshot.fault
    with pytest.raises(InvalidCommandError, match="fault"):
        bench.controller.submit_target(at(0.02), bench.wall_ns())
    with pytest.raises(DeviceError, match="recover first"):
        bench.controller.home(home_request())
    assert bench.controller.recover().result(1.0)
    assert bench.mode is ControlMode.IDLE
    bench.run(0.1, Pose(bench.arm.state().pose.position_m, HOME_POSE.quat_xyzw))
    assert bench.mode is ControlMode.RUN


def test_a_dead_link_is_a_fault_and_the_loop_goes_on() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    old = bench.controller.step().state
    bench.arm.fail("link_lost", "UDP receive: Timeout")
    snapshot = bench.controller.step()
    assert snapshot.mode is ControlMode.FAULT
    assert snapshot.state is not None
    assert old is not None
    assert snapshot.state.stamp_ns == old.stamp_ns


def test_a_failed_engagement_is_a_fault_with_the_reason() -> None:
    bench = Bench()
    bench.arm.start_impedance = _refuse  # type: ignore[method-assign]
    bench.controller.submit_target(HOME_POSE, bench.wall_ns())
    snapshot = bench.controller.step()
    assert snapshot.mode is ControlMode.FAULT
    assert "not now" in snapshot.fault


def _refuse(*_: object) -> None:
    raise DeviceError("not now")


def test_home_moves_joints_then_straight_and_ends_idle() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    with pytest.raises(DeviceError, match="targets are arriving"):
        bench.controller.home(home_request())
    bench.run(0.25)
    bench.arm.calls.clear()
    request = home_request(offset_m=(0.05, 0.0, 0.1))
    assert bench.controller.home(request).result(1.0) == "home"
    assert bench.arm.calls == ["stop", "move_joints", "move_tcp"]
    assert bench.mode is ControlMode.IDLE
    position_m = bench.arm.state().pose.position_m
    expected_m = HOME_POSE.position_m + np.array([0.05, 0.0, 0.1])
    assert position_m == pytest.approx(expected_m)


def test_a_home_offset_out_of_the_box_is_refused_without_a_fault() -> None:
    bench = Bench()
    future = bench.controller.home(home_request(offset_m=(0.5, 0.0, 0.0)))
    with pytest.raises(DeviceError, match="outside the workspace box"):
        future.result(1.0)
    assert bench.mode is ControlMode.IDLE


def test_home_takes_the_gripper_along() -> None:
    bench = Bench()
    gripper = FakeGripper()
    worker = GripperWorker(gripper)
    worker.start()
    bench.controller.gripper = worker
    try:
        bench.controller.home(home_request(gripper_width_m=0.0)).result(5.0)
    finally:
        worker.stop()
    assert "grasp" in gripper.calls


def test_a_gripper_that_stays_broken_is_said_without_an_arm_fault() -> None:
    bench = Bench()
    gripper = FakeGripper()
    worker = GripperWorker(gripper)
    worker.start()
    bench.controller.gripper = worker
    gripper.failure = "cable"
    try:
        with pytest.raises(DeviceError, match="cable"):
            bench.controller.home(home_request()).result(5.0)
        assert bench.mode is ControlMode.IDLE
        with pytest.raises(DeviceError, match="cable"):
            bench.controller.recover().result(5.0)
        assert bench.mode is ControlMode.IDLE
        gripper.failure = None
        bench.controller.recover().result(5.0)
        assert bench.controller.home(home_request()).result(5.0) == "home"
    finally:
        worker.stop()


def test_gains_change_live_and_other_clips_start_the_spring_anew() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    bench.arm.calls.clear()
    bench.controller.set_settings(ImpedanceSettings(stiffness_n_per_m=1000.0))
    assert bench.arm.calls == ["set_settings"]
    bench.controller.set_settings(ImpedanceSettings(clip_plus_m=(0.02, 0.02, 0.02)))
    assert bench.arm.calls == ["set_settings", "start_impedance"]
    assert bench.mode is ControlMode.RUN
    assert bench.arm.reference[0].position_m[0] == pytest.approx(0.47)


def test_disabling_brings_the_arm_to_rest_and_refuses_targets() -> None:
    bench = Bench()
    bench.run(0.2, at(0.02))
    bench.controller.disable()
    assert bench.arm.mode is ArmMode.IDLE
    assert bench.mode is ControlMode.IDLE
    with pytest.raises(InvalidCommandError, match="inactive"):
        bench.controller.submit_target(at(0.02), bench.wall_ns())


def test_disabling_ends_a_homing_between_its_two_motions() -> None:
    arm = FakeArm()
    arm.open()
    controller = ArmController(
        arm, None, ControlLoopConfig(), ReferenceLimits(), PRESETS["compliant"]
    )
    controller.enable()
    is_between, may_go_on, is_stopped = threading.Event(), threading.Event(), threading.Event()

    def move_joints(*_: object) -> None:
        is_between.set()
        may_go_on.wait(5.0)

    def move_tcp(*_: object) -> None:
        # A planned motion that only `stop` ends.
        is_stopped.clear()
        assert is_stopped.wait(5.0)
        raise DeviceError("stopped before its end")

    arm.move_joints, arm.move_tcp = move_joints, move_tcp  # type: ignore[method-assign]
    arm.stop = is_stopped.set  # type: ignore[method-assign]
    future = controller.home(home_request(offset_m=(0.0, 0.0, 0.05)))
    assert is_between.wait(5.0)
    closer = threading.Thread(target=controller.close)
    closer.start()
    assert is_stopped.wait(5.0)
    may_go_on.set()
    closer.join(10.0)
    assert not closer.is_alive()
    with pytest.raises(DeviceError, match="before its end"):
        future.result(0.0)


def test_a_blocked_arm_is_pushed_with_the_clipped_force_at_most() -> None:
    bench = Bench()
    bench.arm.is_blocked = True
    bench.run(0.5, at(0.025))
    force_n = bench.arm.state().wrench.force_n
    assert force_n[0] == pytest.approx(PRESETS["compliant"].force_bound_n)


def test_jitter_is_measured_within_one_engagement_only() -> None:
    stats = LoopStatistics(CYCLE_S)
    assert np.isnan(stats.summary()["reference_rate_hz"])
    for now_s in (0.0, 0.005, 0.011):
        stats.reference_sent(now_s)
    stats.stream_ended()
    stats.reference_sent(5.0)
    assert stats.period_s.count == 2
    assert stats.summary()["reference_jitter_p99_ms"] == pytest.approx(1.0, abs=0.02)


def make_handle(arm: FakeArm) -> ArmHandle:
    def controller() -> ArmController:
        return ArmController(
            arm,
            GripperWorker(FakeGripper()),
            ControlLoopConfig(),
            ReferenceLimits(),
            PRESETS["compliant"],
        )

    return ArmHandle(controller, 200.0)


def test_the_thread_keeps_its_pace_and_stays_ordinary() -> None:
    arm = FakeArm()
    handle = make_handle(arm)
    handle.acquire()
    loop: ControlLoop = handle.loop
    first = loop.wait_cycle(0, 5.0)
    assert first is not None
    started_s = time.monotonic()
    last = loop.wait_cycle(first.cycle + 39, 5.0)
    elapsed_s = time.monotonic() - started_s
    assert last is not None
    assert 0.19 < elapsed_s < 0.5
    assert REAL_TIME.isdisjoint(thread_policies().values())
    handle.release()


def test_the_handle_opens_with_its_first_user_and_closes_with_its_last() -> None:
    arm = FakeArm()
    handle = make_handle(arm)
    handle.acquire()
    handle.acquire()
    handle.release()
    assert arm.mode is ArmMode.IDLE
    assert arm.calls.count("open") == 1
    handle.release()
    handle.release()
    assert arm.calls[-1] == "close"
    assert not [t for t in threading.enumerate() if t.name in ("arm-loop", "gripper")]


def test_a_gripper_that_does_not_open_leaves_nothing_open() -> None:
    arm, gripper = FakeArm(), FakeGripper()
    gripper.open = _refuse  # type: ignore[method-assign]
    handle = ArmHandle(
        lambda: ArmController(
            arm,
            GripperWorker(gripper),
            ControlLoopConfig(),
            ReferenceLimits(),
            PRESETS["compliant"],
        ),
        200.0,
    )
    with pytest.raises(DeviceError, match="not now"):
        handle.acquire()
    assert arm.mode is ArmMode.DISCONNECTED
