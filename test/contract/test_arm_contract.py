# SPDX-License-Identifier: Apache-2.0
"""The arm suite against the fake and against libfranka with the simulated control box."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cell.fci_client import CellProcess, ScratchDir
from contract.arm_suite import COMPLIANT, ArmSuite, shifted
from waiting import until

from vla_rl_ros.core.errors import ArmFaultError, ConfigError, DeviceError
from vla_rl_ros.core.types import Twist
from vla_rl_ros.hardware.fakes import HOME_Q_RAD, FakeArm
from vla_rl_ros.hardware.franka_arm import FrankaArm
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.hardware.franka_errors import connect_error, fault_of
from vla_rl_ros.hardware.franka_gripper import FrankaGripper
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.protocols import Arm, ArmMode
from vla_rl_ros.hardware.robot_thread import thread_policies
from vla_rl_ros.ros.controller_config import ImpedanceControllerConfig
from vla_rl_ros.sim.scene_channel import SceneClient

SIM_HOME_Q_RAD = ImpedanceControllerConfig().home_joint_rad


class TestFakeArm(ArmSuite):
    home_q_rad = HOME_Q_RAD

    @pytest.fixture
    def arm(self) -> FakeArm:
        return FakeArm()

    def break_by_reflex(self, arm: FakeArm) -> None:
        arm.fail("reflex")

    def break_link(self, arm: FakeArm) -> None:
        arm.fail("link_lost")


def unused_address(number: int) -> str:
    """A loopback address on which no simulated cell listens, one per test worker."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return f"127.0.{number}.{1 + int(worker)}"


@pytest.fixture(scope="module")
def cell() -> Iterator[CellProcess]:
    pytest.importorskip("franky")
    with ScratchDir() as run_dir, CellProcess(run_dir) as made:
        yield made


@pytest.fixture
def scene(cell: CellProcess) -> Iterator[SceneClient]:
    with cell.scene() as client:
        yield client
        client.request("remove_wall")


@pytest.fixture
def arm(cell: CellProcess) -> Iterator[FrankaArm]:
    made = FrankaArm(FrankaConfig(robot_ip=cell.host))
    yield made
    made.close()


@pytest.mark.sim
class TestFrankaArm(ArmSuite):
    home_q_rad = SIM_HOME_Q_RAD

    @pytest.fixture(autouse=True)
    def _remember(self, scene: SceneClient) -> None:
        self._scene = scene

    @pytest.fixture
    def arm(self, arm: FrankaArm) -> FrankaArm:
        return arm

    def break_by_reflex(self, arm: Arm) -> None:
        self._scene.request("inject", fault="reflex")

    def break_link(self, arm: Arm) -> None:
        self._scene.request("inject", fault="link_drop", duration_s=1.5)

    def test_no_thread_ever_keeps_real_time_priority(self, homed: FrankaArm) -> None:
        """Looked at from outside, while threads come and go and the spring is engaged."""
        seen: set[int] = set()
        is_done = threading.Event()

        def watch() -> None:
            while not is_done.is_set():
                seen.update(thread_policies().values())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            homed.start_impedance(COMPLIANT)
            num_threads = len(thread_policies())
            homed.stop()
        finally:
            is_done.set()
            watcher.join()
        assert num_threads >= 3
        assert seen
        assert seen.isdisjoint({os.SCHED_FIFO, os.SCHED_RR})

    def test_stop_from_another_thread_ends_a_planned_motion(self, homed: FrankaArm) -> None:
        far = np.array(self.home_q_rad) + np.array([0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        errors: list[Exception] = []

        def move() -> None:
            try:
                homed.move_joints(far, 0.1)
            except DeviceError as error:
                errors.append(error)

        mover = threading.Thread(target=move)
        mover.start()
        assert until(lambda: abs(homed.state().q_rad[0] - self.home_q_rad[0]) > 0.02)
        started_s = time.monotonic()
        homed.stop()
        mover.join()
        assert time.monotonic() - started_s < 1.0
        assert "stopped before its end" in str(errors[0])
        assert homed.mode is ArmMode.IDLE
        assert homed.state().q_rad[0] < 0.7

    def test_pressing_on_a_wall_is_bounded_by_the_clip(
        self, homed: FrankaArm, scene: SceneClient
    ) -> None:
        start = homed.state().pose
        x_m, y_m, z_m = start.position_m
        scene.request("place_wall", x_m=x_m + 0.05, y_m=y_m, z_m=z_m)
        try:
            homed.start_impedance(COMPLIANT)
            for step in range(200):
                homed.set_reference(shifted(start, min(0.12, 0.001 * step), 0.0, 0.0), Twist())
                time.sleep(0.01)
            forces = [homed.state().wrench.force_n[0] for _ in range(50)]
            true_n = scene.request("contact_force")["force_n"]
        finally:
            homed.stop()
        bound_n = COMPLIANT.force_bound_n
        assert 0.8 * bound_n < np.mean(forces) <= 1.2 * bound_n
        assert 0.8 * bound_n < np.linalg.norm(true_n) <= 1.2 * bound_n

    def test_recovery_backs_off_from_what_it_presses_on(
        self, cell: CellProcess, scene: SceneClient
    ) -> None:
        sensitive = FrankaArm(FrankaConfig(robot_ip=cell.host, collision_force_n=15.0))
        try:
            sensitive.open()
            sensitive.move_joints(np.array(self.home_q_rad), 0.5)
            start = sensitive.state().pose
            x_m, y_m, z_m = start.position_m
            scene.request("place_wall", x_m=x_m + 0.05, y_m=y_m, z_m=z_m)
            sensitive.start_impedance(COMPLIANT)
            for step in range(200):
                pose = shifted(start, min(0.12, 0.001 * step), 0.0, 0.0)
                sensitive.set_reference(pose, Twist())
                time.sleep(0.005)
                if sensitive.mode is ArmMode.FAULT:
                    break
            assert sensitive.fault is not None
            assert "reflex" in sensitive.fault.detail
            started_s = time.monotonic()
            sensitive.recover()
            assert time.monotonic() - started_s < 1.0
            assert sensitive.mode is ArmMode.IDLE
            assert np.linalg.norm(sensitive.state().wrench.force_n) < 15.0
        finally:
            sensitive.close()

    def test_a_silent_box_while_idle_is_a_lost_link(self, homed: FrankaArm) -> None:
        self._scene.request("inject", fault="link_drop", duration_s=1.5)

        def broken() -> bool:
            try:
                homed.state()
            except DeviceError:
                return True
            return False

        assert until(broken, 5.0)
        assert homed.mode is ArmMode.FAULT
        assert homed.fault is not None
        assert homed.fault.kind == "link_lost"
        started_s = time.monotonic()
        with pytest.raises(DeviceError):
            homed.state()
        assert time.monotonic() - started_s < 0.01
        assert until(lambda: _recovers(homed), 10.0)

    def test_the_gripper_grasps_is_overtaken_and_survives_an_abort(
        self, cell: CellProcess, scene: SceneClient
    ) -> None:
        worker = GripperWorker(FrankaGripper(FrankaConfig(robot_ip=cell.host)))
        worker.start()
        try:
            worker.move_and_wait(0.0, 5.0)
            assert worker.state is not None
            assert worker.state.width_m < 0.005
            assert not worker.state.is_grasped
            num_commands = worker.num_commands
            worker.submit(0.08)
            assert until(lambda: worker.num_commands > num_commands)
            worker.submit(0.02)
            assert until(lambda: worker.num_commands > num_commands + 1)
            # Before the overtaken command has reached its goal.
            assert worker.state.width_m < 0.07
            worker.move_and_wait(0.02, 5.0)
            assert worker.state.width_m == pytest.approx(0.02, abs=0.003)
            num_commands = worker.num_commands
            worker.submit(0.08)
            assert until(lambda: worker.num_commands > num_commands)
            scene.request("inject", fault="gripper_abort")
            assert until(lambda: worker.fault is not None)
            worker.recover(5.0)
            worker.move_and_wait(0.08, 5.0)
        finally:
            worker.stop()


def _recovers(arm: FrankaArm) -> bool:
    try:
        arm.recover()
    except DeviceError:
        return False
    return True


@pytest.mark.sim
def test_no_control_box_is_a_sentence_with_advice() -> None:
    arm = FrankaArm(FrankaConfig(robot_ip=unused_address(11)))
    with pytest.raises(DeviceError, match="is FCI activated in Desk"):
        arm.open()
    assert arm.mode is ArmMode.DISCONNECTED


@pytest.mark.sim
def test_a_box_that_serves_another_client_is_a_sentence_with_advice() -> None:
    address = unused_address(12)
    with socket.create_server((address, 1337)):
        arm = FrankaArm(FrankaConfig(robot_ip=address, connect_timeout_s=0.3))
        with pytest.raises(DeviceError, match="serves one client only"):
            arm.open()


@pytest.mark.sim
def test_real_time_without_the_right_kernel_is_a_sentence_with_advice(
    cell: CellProcess,
) -> None:
    if Path("/sys/kernel/realtime").exists():
        pytest.skip("this kernel is a real-time one")
    arm = FrankaArm(FrankaConfig(robot_ip=cell.host, realtime="enforce"))
    with pytest.raises(DeviceError, match="PREEMPT_RT"):
        arm.open()


class IncompatibleVersionException(Exception):  # noqa: N818 - stands for franky's
    pass


def test_a_wrong_wheel_is_a_sentence_with_advice() -> None:
    error = connect_error(IncompatibleVersionException("server 5, library 10"), "robot")
    assert "wheel built for the robot's server version" in str(error)
    assert "server 5" in str(error)


def test_vendor_errors_become_kinds_of_faults() -> None:
    kinds = {"Net Exception": "link_lost", 'mode ("Reflex")!': "reflex", "no": "command_refused"}
    for text, kind in kinds.items():
        assert fault_of(RuntimeError(text)).kind == kind
    assert issubclass(ArmFaultError, DeviceError)


@pytest.mark.parametrize(
    ("address", "is_realtime"),
    [("127.0.0.1", False), ("localhost", False), ("172.16.0.2", True), ("fr3.lab", True)],
)
def test_only_a_loopback_address_needs_no_real_time(address: str, is_realtime: bool) -> None:
    assert FrankaConfig(robot_ip=address).is_realtime is is_realtime
    assert not FrankaConfig(robot_ip=address, realtime="ignore").is_realtime
    with pytest.raises(ConfigError):
        FrankaConfig(realtime="maybe")
