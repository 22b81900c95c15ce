# SPDX-License-Identifier: Apache-2.0
"""The arm handle against a stand-in for franky: what runs is stopped even with a latched fault."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.impedance import PRESETS
from vla_rl_ros.hardware.franka_arm import FrankaArm
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.hardware.protocols import ArmMode
from vla_rl_ros.hardware.robot_thread import RobotThread

WAIT_S = 5.0


class Robot:
    """A robot whose motions only a stop motion ends."""

    newest: Robot

    def __init__(self, *_: object, **__: object) -> None:
        Robot.newest = self
        self.is_in_control = self.has_errors = False
        self.force_n = np.zeros(6)
        self.moves: list[str] = []
        self.has_moved = threading.Event()
        self.is_broken = False

    @property
    def state(self) -> Any:
        if self.is_broken:
            raise RuntimeError("bad packet")
        frame = SimpleNamespace(translation=np.array([0.4, 0.0, 0.1034]), quaternion=np.eye(4)[0])
        return SimpleNamespace(
            F_T_EE=frame,
            O_T_EE=frame,
            EE_T_K=SimpleNamespace(matrix=np.eye(4)),
            O_F_ext_hat_K=self.force_n,
            current_errors="none",
            q=np.zeros(7),
        )

    def set_collision_behavior(self, *_: float) -> None:
        """Accept anything."""

    def recover_from_errors(self) -> None:
        self.has_errors = False

    def move(self, motion: str, *, asynchronous: bool) -> None:
        assert asynchronous
        self.moves.append(motion)
        self.is_in_control = motion == "motion"
        self.has_moved.set()

    def join_motion(self, _: float) -> bool:
        return not self.is_in_control


class Tracker:
    """Takes control when it is made; `gate` delays that."""

    gate, has_stopped = threading.Event(), threading.Event()

    def __init__(self, robot: Robot, **_: object) -> None:
        assert self.gate.wait(WAIT_S)
        self._robot = robot
        robot.is_in_control = True

    def stop(self, _: object) -> None:
        self._robot.is_in_control = False
        self.has_stopped.set()


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> FrankaArm:
    franky = SimpleNamespace(
        Robot=Robot,
        RealtimeConfig=SimpleNamespace(Enforce=1, Ignore=0),
        CommandException=ValueError,
        PostureTask=lambda *_: None,
        CartesianImpedanceTracker=Tracker,
        TorqueStopMotion=lambda **_: "torque stop",
        Affine=lambda *_: None,
        CartesianMotion=lambda *_, **__: "motion",
        CartesianStopMotion=lambda: "stop",
    )
    monkeypatch.setitem(sys.modules, "franky", franky)
    Tracker.gate.set()
    Tracker.has_stopped.clear()
    made = FrankaArm(FrankaConfig())
    made.open()
    return made


def test_a_stop_ends_the_way_back_from_an_obstacle(arm: FrankaArm) -> None:
    robot = Robot.newest
    robot.has_errors, robot.force_n = True, np.full(6, 100.0)
    errors: list[DeviceError] = []

    def recover() -> None:
        try:
            arm.recover()
        except DeviceError as error:
            errors.append(error)

    recovery = threading.Thread(target=recover)
    recovery.start()
    assert robot.has_moved.wait(WAIT_S)
    assert arm.mode is ArmMode.MOVING
    arm.stop()
    recovery.join(WAIT_S)
    assert robot.moves == ["motion", "stop"]
    assert "before its end" in str(errors[0])
    arm.close()


def test_a_spring_that_engages_after_its_time_is_stopped(
    arm: FrankaArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tracker.gate.clear()
    call = RobotThread.call
    with monkeypatch.context() as patch:
        patch.setattr(RobotThread, "call", lambda self, job, _: call(self, job, 0.01))
        with pytest.raises(DeviceError, match="no answer"):
            arm.start_impedance(PRESETS["compliant"])
    assert arm.mode is ArmMode.FAULT
    Tracker.gate.set()
    assert Tracker.has_stopped.wait(WAIT_S)
    assert arm.mode is ArmMode.FAULT
    arm.close()


def test_a_state_that_cannot_be_read_stops_the_spring(arm: FrankaArm) -> None:
    arm.start_impedance(PRESETS["compliant"])
    robot = Robot.newest
    robot.is_broken = True
    with pytest.raises(DeviceError, match="bad packet"):
        arm.state()
    assert Tracker.has_stopped.wait(WAIT_S)
    assert arm.mode is ArmMode.FAULT
    robot.is_broken = False
    arm.recover()
    assert arm.mode is ArmMode.IDLE
    arm.close()
