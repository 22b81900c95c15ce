# SPDX-License-Identifier: Apache-2.0
"""The commands of the simulated control box and the modes they lead to.

Three of them franky_sim only acknowledges; here they are obeyed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    AutomaticErrorRecoveryStatus,
    GetRobotModelCommand,
    MoveCommand,
    MoveCommandMotionGeneratorMode,
    MoveStatus,
    RobotCommand,
    SetCartesianImpedanceCommand,
    SetCollisionBehaviorCommand,
    SetEEToKCommand,
    SetJointImpedanceCommand,
    SetLoadCommand,
    SetNEToEECommand,
    StateMotionGeneratorMode,
    StopMoveCommand,
)
from franky_sim.franka_robot_server import ControlMode

if TYPE_CHECKING:
    from vla_rl_ros.sim.fci_server import FciServer


class MoveOrRefuse(MoveCommand):  # type: ignore[misc]  # franky_sim ships no types
    """Start a motion unless the arm is in reflex."""

    def handle(self, server: FciServer) -> None:
        """Answer and, where allowed, start."""
        if server.is_reflex:
            self.reply(MoveStatus.kCommandNotPossibleRejected)
        else:
            super().handle(server)


class StoreThresholds(SetCollisionBehaviorCommand):  # type: ignore[misc]  # untyped base
    """Take over the nominal thresholds; there is no separate phase of acceleration here."""

    def handle(self, server: FciServer) -> None:
        """Store the thresholds and answer."""
        thresholds = server.robot.thresholds
        thresholds.lower_torque_nm = np.array(self.lower_torque_thresholds_nominal)
        thresholds.upper_torque_nm = np.array(self.upper_torque_thresholds_nominal)
        thresholds.lower_wrench = np.array(self.lower_force_thresholds_nominal)
        thresholds.upper_wrench = np.array(self.upper_force_thresholds_nominal)
        self.reply(0)


class RecoverErrors(AutomaticErrorRecoveryCommand):  # type: ignore[misc]  # untyped base
    """Leave the reflex."""

    def handle(self, server: FciServer) -> None:
        """Clear the errors and answer."""
        server.clear_errors()
        self.reply(AutomaticErrorRecoveryStatus.kSuccess)


COMMANDS = {
    RobotCommand.kMove: MoveOrRefuse,
    RobotCommand.kStopMove: StopMoveCommand,
    RobotCommand.kSetCollisionBehavior: StoreThresholds,
    RobotCommand.kSetJointImpedance: SetJointImpedanceCommand,
    RobotCommand.kSetCartesianImpedance: SetCartesianImpedanceCommand,
    RobotCommand.kGetRobotModel: GetRobotModelCommand,
    RobotCommand.kAutomaticErrorRecovery: RecoverErrors,
    RobotCommand.kSetLoad: SetLoadCommand,
    RobotCommand.kSetNEToEE: SetNEToEECommand,
    RobotCommand.kSetEEToK: SetEEToKCommand,
}
GENERATOR_MODES = {
    MoveCommandMotionGeneratorMode.kJointPosition: ControlMode.POSITION,
    MoveCommandMotionGeneratorMode.kJointVelocity: ControlMode.VELOCITY,
    MoveCommandMotionGeneratorMode.kCartesianPosition: ControlMode.CARTESIAN_POSITION,
    MoveCommandMotionGeneratorMode.kCartesianVelocity: ControlMode.CARTESIAN_VELOCITY,
}
REPORTED_MODES = {
    ControlMode.IDLE: StateMotionGeneratorMode.kIdle,
    ControlMode.TORQUE: StateMotionGeneratorMode.kNone,
    ControlMode.POSITION: StateMotionGeneratorMode.kJointPosition,
    ControlMode.VELOCITY: StateMotionGeneratorMode.kJointVelocity,
    ControlMode.CARTESIAN_POSITION: StateMotionGeneratorMode.kCartesianPosition,
    ControlMode.CARTESIAN_VELOCITY: StateMotionGeneratorMode.kCartesianVelocity,
}
