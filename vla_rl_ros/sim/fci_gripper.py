# SPDX-License-Identifier: Apache-2.0
"""The simulated hand's server: franky_sim's, with commands that end when they are replaced.

franky_sim forgets a command that another one or a stop replaces, so its client waits for ever.
The real hand answers such a command as aborted, and so does this one.
"""

from __future__ import annotations

import socket
import struct

from franky_sim.constants import FRANKA_HAND_MAX_WIDTH
from franky_sim.franka_gripper_protocol import GripperCommandStatus
from franky_sim.franka_gripper_server import FrankaGripperServer, _MotionState
from franky_sim.franka_server import BaseCommand

from vla_rl_ros.sim.fci_link import FciLink
from vla_rl_ros.sim.fci_robot import FciRobot

# States of the hand at 200 Hz instead of 1 kHz: the real hand is slower still.
_STATE_EVERY_TICKS = 5
_TEMPERATURE = 20
_STATE = struct.Struct("<Idd?H")


class FciGripper(FciLink, FrankaGripperServer):  # type: ignore[misc]  # untyped base
    """Hand server on port 1338 of the arm's address."""

    def __init__(self, robot: FciRobot, hostname: str) -> None:
        """Create the server.

        Args:
            robot: The arm that carries the hand.
            hostname: Address the arm's server is bound to.
        """
        super().__init__(robot, hostname)
        self._state_counter = 0
        self._is_next_aborted = False

    @property
    def is_busy(self) -> bool:
        """Whether a command waits for its reply."""
        return self._pending_command_id is not None

    def abort(self) -> bool:
        """Abort the running command, or the next one if none runs; True if one ran."""
        if self.is_busy:
            self._halt()
            return True
        self._is_next_aborted = True
        return False

    def stop(self, command_id: int, tcp_socket: socket.socket) -> None:
        """Hold the present width; a running command is answered as aborted.

        Args:
            command_id: Of the stop command.
            tcp_socket: Where to answer it.
        """
        self._answer_pending(GripperCommandStatus.kAborted)
        super().stop(command_id, tcp_socket)

    def send_state(self) -> None:
        """Send the hand's state every few ticks."""
        if self._udp is None or self._tick % _STATE_EVERY_TICKS:
            return
        self._state_counter += 1
        self._send_datagram(
            _STATE.pack(
                self._state_counter,
                min(max(self._robot.hand_width, 0.0), FRANKA_HAND_MAX_WIDTH),
                self._max_width,
                self._is_grasping,
                _TEMPERATURE,
            )
        )

    def _start_motion(self, *args: object) -> None:
        self._answer_pending(GripperCommandStatus.kAborted)
        super()._start_motion(*args)
        if self._is_next_aborted:
            self._is_next_aborted = False
            self._halt()

    def _halt(self) -> None:
        self._answer_pending(GripperCommandStatus.kAborted)
        self._robot.set_hand_goal(self._robot.hand_width, 0.05, 70.0)
        self._motion_state = _MotionState.IDLE
        self._settling_steps = 0

    def _answer_pending(self, status: GripperCommandStatus) -> None:
        if self.is_busy:
            BaseCommand.send_response(
                self._pending_tcp_socket,
                self._pending_command_type,
                self._pending_command_id,
                status,
                command_type_struct="H",
                status_type_struct="H",
            )
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._pending_command_id = None
        self._pending_tcp_socket = None
        self._pending_command_type = None

    def _process_udp_commands(self) -> bool:
        # The hand takes its commands over TCP only.
        return False

    def _reset_state(self) -> None:
        # The replies of the last client's commands have nobody to go to.
        self._forget_pending()
