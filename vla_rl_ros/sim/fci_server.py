# SPDX-License-Identifier: Apache-2.0
"""The simulated control box: Franka's protocol with reflexes, recovery and faults on demand.

Built on franky_sim's transport and messages, it adds what a safety layer has to be tested against:
collision thresholds that trip a reflex while a motion runs, moves refused until the recovery, a
missed-packet limit, an honest success rate of commands, a link that can be dropped.
"""

from __future__ import annotations

import logging
import time

from franky_sim.franka_robot_protocol import (
    MoveCommandControllerMode,
    MoveCommandMotionGeneratorMode,
    MoveStatus,
    RobotCommand,
    RobotMode,
    StateControllerMode,
)
from franky_sim.franka_robot_server import ControlMode
from franky_sim.franka_server import BaseCommand

from vla_rl_ros.sim.fci_commands import COMMANDS, GENERATOR_MODES, REPORTED_MODES
from vla_rl_ros.sim.fci_gripper import FciGripper
from vla_rl_ros.sim.fci_link import FciLink
from vla_rl_ros.sim.fci_robot import FciRobot
from vla_rl_ros.sim.fci_watch import CommandWatch
from vla_rl_ros.sim.fci_wire import CommandPacket, FciError, StatePacket

LOG = logging.getLogger(__name__)

# libfranka takes the reason of an abort from the last state it saw, so the states that carry it
# go ahead of the answer.
_ABORT_DELAY_S = 0.005

ROBOT_PORT = 1337
PROTOCOL_VERSION = 10
# As plain integers: they are written at every step.
_IDLE, _MOVE, _REFLEX = (int(m) for m in (RobotMode.kIdle, RobotMode.kMove, RobotMode.kReflex))
# What of a command is used in which mode.
_READ_IN = {
    ControlMode.TORQUE: ("tau_J_d",),
    ControlMode.POSITION: ("q_c",),
    ControlMode.VELOCITY: ("dq_c",),
    ControlMode.CARTESIAN_POSITION: ("O_T_EE_c", "elbow_c"),
    ControlMode.CARTESIAN_VELOCITY: ("O_dP_EE_c", "elbow_c"),
}


class FciServer(FciLink):
    """Arm server on port 1337; creates the hand's server on the same address.

    Attributes:
        robot: The arm it serves.
        watch: Counts the control commands that stay out and holds the limit on them.
    """

    def __init__(self, robot: FciRobot, hostname: str) -> None:
        """Create the server; `init` binds it.

        Args:
            robot: The arm to serve.
            hostname: Address to bind, usually a loopback one.
        """
        super().__init__([hostname], ROBOT_PORT, COMMANDS, PROTOCOL_VERSION)
        self.robot = robot
        self.watch = CommandWatch()
        self._packet = StatePacket()
        self._incoming = CommandPacket()
        self._command = CommandPacket()
        self._gripper: FciGripper | None = None
        self._motion_id = 0
        self._aborted_id = 0  # of a motion that a reflex ended and that is not answered yet
        self._answer_abort_at_s = 0.0
        self._is_reflex = False
        self._hold()
        robot._set_server(self)  # noqa: SLF001, franky_sim's own wiring

    @property
    def gripper(self) -> FciGripper:
        """The hand's server; valid after `init`."""
        assert self._gripper is not None
        return self._gripper

    @property
    def current_motion_id(self) -> int:
        """Id of the running motion, 0 when none runs."""
        return self._motion_id

    @property
    def is_reflex(self) -> bool:
        """Whether moves are refused until the errors are cleared."""
        return self._is_reflex

    def reset_current_motion_id(self) -> None:
        """Forget the running motion without answering it."""
        self._motion_id = 0

    def _bind_children(self, hostname: str) -> None:
        self._gripper = FciGripper(self.robot, hostname)
        self._gripper.init()

    def _set_mode(self, mode: ControlMode, controller: StateControllerMode) -> None:
        self._mode = mode
        self._packet.fields["motion_generator_mode"][:] = int(REPORTED_MODES[mode])
        self._packet.fields["controller_mode"][:] = int(controller)

    def _hold(self) -> None:
        self._set_mode(ControlMode.IDLE, StateControllerMode.kOther)
        self._hold_q_rad = self.robot.desired_q_rad.copy()
        self._is_new_command = False

    def _reset_state(self) -> None:
        self._motion_id = self._aborted_id = 0
        self._hold()

    def start_motion(
        self,
        controller_mode: MoveCommandControllerMode,
        motion_generator_mode: MoveCommandMotionGeneratorMode,
        motion_id: int,
    ) -> None:
        """Switch to what the client asked for; the first command has yet to come.

        Args:
            controller_mode: Who closes the torque loop.
            motion_generator_mode: What the commands mean where the control box closes it.
            motion_id: To answer when the motion ends.
        """
        self._hold()
        self._motion_id = motion_id
        if controller_mode == MoveCommandControllerMode.kExternalController:
            self._set_mode(ControlMode.TORQUE, StateControllerMode.kExternalController)
        else:
            self._set_mode(
                GENERATOR_MODES[motion_generator_mode], StateControllerMode[controller_mode.name]
            )
        self._command.clear()
        self._command.fields["q_c"][:] = self.robot.desired_q_rad
        self.watch.start()
        self._packet.fields["reflex_reason"][:] = 0

    def stop_motion(self, send_preemption_signal: bool = True) -> None:
        """Hold the present position.

        Args:
            send_preemption_signal: Whether to tell the client that its motion was preempted.
        """
        self._hold()
        if self._motion_id and send_preemption_signal:
            self._end_motion(MoveStatus.kPreempted)

    def _end_motion(self, status: MoveStatus) -> None:
        BaseCommand.send_response(self._tcp_socket, RobotCommand.kMove, self._motion_id, status)
        self._motion_id = 0

    def trip(self, error: FciError) -> None:
        """Enter the reflex: hold, abort the running motion, refuse further ones.

        Args:
            error: The reason the client is told.
        """
        LOG.info("reflex: %s", error.name.lower())
        fields = self._packet.fields
        for name in ("errors", "reflex_reason"):
            fields[name][:] = 0
            fields[name][error] = 1
        self._is_reflex = True
        self._hold()
        if self._motion_id:
            self._aborted_id, self._motion_id = self._motion_id, 0
            self._answer_abort_at_s = time.monotonic() + _ABORT_DELAY_S

    def _answer_abort(self) -> None:
        if time.monotonic() < self._answer_abort_at_s:
            return
        BaseCommand.send_response(
            self._tcp_socket, RobotCommand.kMove, self._aborted_id, MoveStatus.kReflexAborted
        )
        self._aborted_id = 0

    def clear_errors(self) -> None:
        """Leave the reflex; `last_motion_errors` stay until the next motion starts."""
        self._is_reflex = False
        self._packet.fields["errors"][:] = 0

    def drop_link(self, num_ticks: int) -> None:
        """Fall silent on arm and hand; a running motion is lost as it is on the real arm."""
        super().drop_link(num_ticks)
        self.gripper.drop_link(num_ticks)
        if self._motion_id:
            self.trip(FciError.COMMUNICATION_CONSTRAINTS_VIOLATION)

    def _setup_udp_connection(self, network_udp_port: int) -> None:
        super()._setup_udp_connection(network_udp_port)
        self._packet.fields["message_id"][:] = 0

    def process_commands(self) -> None:
        """Take in what the clients of arm and hand sent and set the controls."""
        super().process_commands()
        self.gripper.process_commands()

    def wait_for_command(self, timeout_s: float) -> None:
        """Wait for the answer to the last state where one is due.

        Args:
            timeout_s: At most this long; not at all for a client that has long been silent.
        """
        if self._motion_id and self.watch.is_client_attentive:
            self.wait_for_datagram(timeout_s)

    def _pre_process_commands(self) -> None:
        self._is_new_command = False

    def _process_udp_commands(self) -> bool:
        while size := self._receive_datagram(self._incoming.buffer):
            if size == CommandPacket.SIZE and self._motion_id:
                self._on_command()
        return self._is_new_command

    def _on_command(self) -> None:
        fields = self._incoming.fields
        if fields["motion_generation_finished"][0] or fields["torque_command_finished"][0]:
            self._hold()
            self._end_motion(MoveStatus.kSuccess)
            return
        if not self._incoming.is_sane(*_READ_IN.get(self._mode, ())):
            LOG.warning("ignored a control command that makes no sense")
            return
        self._command.buffer[:] = self._incoming.buffer
        self._is_new_command = True

    def _post_process_commands(self) -> None:
        if self._motion_id:
            self._supervise()
        elif self._aborted_id and not self.is_silent:
            self._answer_abort()
        robot, command = self.robot, self._command.fields
        mode, is_new = self._mode, self._is_new_command
        if mode is ControlMode.TORQUE:
            robot.drive_torque(command["tau_J_d"])
        elif mode is ControlMode.IDLE:
            robot.hold(self._hold_q_rad)
        elif mode is ControlMode.POSITION:
            robot.drive_position(command["q_c"], is_new=is_new)
        elif mode is ControlMode.VELOCITY:
            robot.drive_joint_speed(command["dq_c"], is_new=is_new)
        elif mode is ControlMode.CARTESIAN_POSITION:
            pose = command["O_T_EE_c"].reshape(4, 4).T
            robot.drive_pose(pose, self._elbow_rad(), is_new=is_new)
        else:
            robot.drive_twist(command["O_dP_EE_c"], self._elbow_rad(), is_new=is_new)

    def _elbow_rad(self) -> float | None:
        fields = self._command.fields
        return fields["elbow_c"].item(0) if fields["valid_elbow"][0] else None

    def _supervise(self) -> None:
        self.watch.note(is_received=self._is_new_command)
        if self.watch.is_limit_exceeded:
            self.trip(FciError.COMMUNICATION_CONSTRAINTS_VIOLATION)
            return
        reflex = self.robot.external.exceeded(self.robot.thresholds)
        if reflex is not None:
            self.trip(reflex)

    def send_state(self) -> None:
        """Send the state of arm and, less often, hand."""
        if self._udp is not None:
            self._write_packet()
            self._send_datagram(self._packet.buffer)
            self._packet.fields["message_id"][0] += 1
        self.gripper.send_state()

    def _write_packet(self) -> None:
        fields = self._packet.fields
        if self._busy_ticks > 0:
            # Load and frames change by TCP command only.
            self.robot.write_constants(self._packet)
        self.robot.write_state(self._packet)
        is_moving = self._motion_id != 0
        idle = _REFLEX if self._is_reflex else _IDLE
        fields["robot_mode"][0] = _MOVE if is_moving else idle
        fields["control_command_success_rate"][0] = self.watch.success_rate if is_moving else 0.0

    def _get_state_bytes(self) -> bytes:
        self._write_packet()
        return bytes(self._packet.buffer[8:])

    def cleanup(self) -> None:
        """Close the sockets of arm and hand."""
        if self._gripper is not None:
            self._gripper.cleanup()
        super().cleanup()
