# SPDX-License-Identifier: Apache-2.0
"""The three commands that franky_sim only acknowledges and the simulated control box obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    AutomaticErrorRecoveryStatus,
    MoveCommand,
    MoveStatus,
    SetCollisionBehaviorCommand,
)

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
