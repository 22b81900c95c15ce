# SPDX-License-Identifier: Apache-2.0
"""The gate: the only node that tells the arm and the gripper where to go.

It speaks only while an episode runs, the supervisor is heard and the arm's pose is fresh; then it
repeats its target as a heartbeat. Otherwise it is silent, and silence makes the arm safe. The
operator's device hangs here, so that nothing stands between his hand and the target.
"""

from __future__ import annotations

from sensor_msgs.msg import JointState

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.gripper import is_hand_open
from vla_rl_ros.core.types import Pose
from vla_rl_ros.ros import cdr
from vla_rl_ros.ros.action_codecs import decode_policy_action
from vla_rl_ros.ros.channels import check_age
from vla_rl_ros.ros.codecs import decode_gripper
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.episode_node import EpisodeNode
from vla_rl_ros.ros.gate_outlets import GateOutlets
from vla_rl_ros.ros.intervention_config import InterventionConfig, OperatorMode
from vla_rl_ros.ros.operator_buttons import OperatorButtons
from vla_rl_ros.ros.operator_hand import OperatorHand
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.sampler import Tap
from vla_rl_ros.ros.state_reader import StampedTopic
from vla_rl_ros.ros.timing import Window
from vla_rl_ros.ros.urgency import Urgency

MAX_AHEAD_S = 0.05


class InterventionNode(EpisodeNode[InterventionConfig]):
    """Publishes `arm/target_pose`, `gripper/target`, `action/executed` and `teleop/joy`."""

    _outlets: GateOutlets
    _pose: StampedTopic[Pose]

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("intervention", InterventionConfig, overrides)
        self._gate: Gate | None = None
        self._hand: OperatorHand | None = None
        self._buttons: OperatorButtons | None = None
        self._ticks: Tap[JointState] | None = None
        self._episode_s = float("-inf")
        self._has_begun = False

    def setup(self) -> None:
        """Create topics and the closed gate."""
        self._gate = Gate(self.config.gate_settings())
        self._mode = OperatorMode(self.config.mode)
        self._pose = StampedTopic(
            self.sampler, "arm/tcp_pose", cdr.pose, self.config.max_pose_age_s, depth=1
        )
        self._fingers: Tap[JointState] = self.sampler.tap("gripper/state")
        self._outlets = GateOutlets(self, self.endpoints, self.diag, self.config)
        self.follow_episodes(with_rows=False)
        self.endpoints.reader("policy/action", self._on_action)
        hand = OperatorHand(self, self.endpoints, self._on_hand, self.now_s)
        if hand.is_there:
            self._hand = hand
            self._buttons = OperatorButtons(self, self.diag)
            # Rows of a human must lie on the actor's ticks, also where it proposes nothing.
            self._ticks = self.sampler.tap("policy/observation", depth=4)

    def start(self) -> None:
        """Begin to repeat the target, once there is one, and to feel the operator's hand."""
        self._delay_ms, self._hand_ms = Window(600), Window(600)
        self._said = ""
        self.start_timer(1.0 / self.config.heartbeat_hz, self._on_heartbeat)
        if self._hand is not None:
            self._hand.start()

    def stop(self, reason: str) -> None:
        """Fall silent."""
        super().stop(reason)
        if self._hand is not None:
            self._hand.stop()
        if self._gate is not None:
            self._shut(self._gate)

    def teardown(self) -> None:
        """Leave the topics and the device."""
        if self._hand is not None:
            self._hand.destroy()
        if self._buttons is not None:
            self._buttons.destroy()
        self._hand = self._buttons = self._ticks = None
        super().teardown()
        self._gate = None

    def on_config(self, config: InterventionConfig) -> None:
        """Take over new limits for the next action, and how the hand moves the arm."""
        if self._gate is not None:
            self._gate.settings = config.gate_settings()
            self._outlets.config = config
        if self._hand is not None:
            self._hand.teleop.config = config.teleop

    def on_episode(self, before: EpisodeState) -> None:
        """Open the gate where an episode begins, close it where it ends."""
        self._episode_s = self.now_s()
        if not self.is_running or self._gate is None:
            return
        if self.episode.phase is not Phase.RUNNING:
            self._shut(self._gate)
            self._has_begun = False
            self.say(Level.OK, f"closed, phase {self.episode.phase.value}")
        elif self._gate.epoch != self.episode.epoch and not self._is_stopped():
            is_open = self._is_hand_open()
            self._has_begun = False
            self._shut(self._gate)
            self._gate.open(self.episode.epoch, self.now_ns(), is_hand_open=is_open)

    def _is_hand_open(self) -> bool:
        message = self._fingers.newest()
        try:
            fingers = None if message is None else decode_gripper(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.gripper_state.{error.reason}")
            fingers = None
        return is_hand_open(fingers, self.config.gripper_open_width_m)

    def _on_action(self, message: JointState) -> None:
        gate = self._gate
        if not self.is_running or gate is None:
            return
        now_ns, max_age_s = self.now_ns(), self.config.action_age_s
        if self._mode is OperatorMode.DEMONSTRATE:
            self.diag.count("proposals_ignored")
            return
        try:
            action = decode_policy_action(message)
            check_age(action.stamp_ns, now_ns, max_age_s=max_age_s, max_ahead_s=MAX_AHEAD_S)
            self._require_supervisor()
            measured = self._pose.nearest(now_ns)
            self._collect(gate, now_ns, measured)
            if gate.is_human or gate.is_finishing or self._mode is OperatorMode.SHADOW:
                gate.note(action)
                return
            executed = gate.accept(action, measured)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self.get_logger().warning(f"action dropped: {error}", throttle_duration_sec=1.0)
            return
        self._send(gate)
        self._outlets.record(executed)
        self._delay_ms.add((self.now_ns() - action.stamp_ns) * 1e-6)
        self.diag.set("tick_to_target_p99_ms", self._delay_ms.quantile(0.99))
        self.say(Level.OK, f"{executed.source.value} drives")

    def _on_hand(self) -> None:
        """A report of the operator's device: what he wants now."""
        gate, hand = self._gate, self._hand
        if gate is None or hand is None or self._buttons is None or not self.is_running:
            return
        self._follow_buttons(hand, self._buttons, gate)
        if gate.epoch is None:
            hand.teleop.presses.clear()
            return
        now_ns = self.now_ns()
        try:
            self._require_supervisor()
            measured = self._pose.nearest(now_ns)
        except InvalidCommandError as error:
            self.diag.count(f"hand.{error.reason}")
            return
        self._collect(gate, now_ns, measured)
        self._drive(gate, hand, now_ns, measured)
        self._send(gate)
        if gate.is_human:
            self._hand_ms.add((self.now_ns() - hand.report_ns) * 1e-6)
            self.diag.set("hand_to_target_p99_ms", self._hand_ms.quantile(0.99))

    def _follow_buttons(
        self, hand: OperatorHand, buttons: OperatorButtons, gate: Gate | None
    ) -> None:
        """Carry out presses; a stop silences this gate, whoever else hears of it."""
        buttons.follow(hand.teleop.presses, self.episode, self.now_s())
        if gate is not None and gate.epoch is not None and self._is_stopped():
            self._shut(gate)
            self._has_begun = False
            self.say(Level.WARN, "stopped by the operator: silent until the next episode")

    def _is_stopped(self) -> bool:
        buttons = self._buttons
        return buttons is not None and buttons.stopped_epoch == self.episode.epoch

    def _drive(self, gate: Gate, hand: OperatorHand, now_ns: int, measured: Pose) -> None:
        """Let the operator drive, or not any more."""
        command = hand.teleop.command(self.now_s())
        if self._mode is not OperatorMode.ASSIST and not hand.is_gone:
            # From his first move on the arm is his: that he waits is what he does.
            self._has_begun = self._has_begun or command.is_driving
        elif not command.is_driving:
            self._has_begun = False
        if not (command.is_driving or self._has_begun):
            gate.release(now_ns, measured)
            return
        if not gate.is_human:
            self.diag.count("takeovers")
            self.say(Level.OK, "human drives")
        gate.take_over(now_ns, measured)
        gate.steer(command.increment, now_ns, measured)
        presses = hand.teleop.presses.take("gripper")
        if presses:
            gate.gripper.press(presses)

    def _on_heartbeat(self) -> None:
        gate = self._gate
        if self._hand is not None and self._buttons is not None:
            self._hand.check(self.now_s())
            self._follow_buttons(self._hand, self._buttons, gate)
        if gate is None or gate.epoch is None:
            return
        try:
            self._require_supervisor()
        except InvalidCommandError as error:
            self._shut(gate)
            self.say(Level.ERROR, f"{error}; nothing is sent to the arm")
            return
        now_ns = self.now_ns()
        try:
            measured = self._pose.nearest(now_ns)
        except InvalidCommandError as error:
            measured = None
            gate.interrupt()
            self.say(Level.WARN, f"silent: {error}")
        self._collect(gate, now_ns, measured)
        if self._hand is not None and measured is not None:
            self._drive(gate, self._hand, now_ns, measured)
        self._send(gate)

    def _collect(self, gate: Gate, now_ns: int, measured: Pose | None) -> None:
        """Record the ticks that are over, on the grid of the actor's."""
        if self._ticks is not None:
            for raw in self._ticks.drain_raw():
                gate.on_tick(cdr.stamp_ns(raw))
        while (row := gate.hold(now_ns, measured)) is not None:
            self._outlets.record(row)
            if measured is not None and not gate.is_human:
                self.say(Level.WARN, "holding: no action for this tick")

    def _shut(self, gate: Gate) -> None:
        """Let nothing through any more; what a human did in the tick that lasts is recorded."""
        now_ns = self.now_ns()
        if gate.epoch is not None:
            try:
                measured = self._pose.nearest(now_ns)
            except InvalidCommandError:
                measured = None
            self._collect(gate, now_ns, measured)
        row = gate.close(now_ns)
        if row is not None:
            self._outlets.record(row)

    def _require_supervisor(self) -> None:
        age_s = self.now_s() - self._episode_s
        if age_s > self.config.supervisor_timeout_s:
            raise InvalidCommandError("supervisor_silent", "episode/state has no heartbeat")

    def _send(self, gate: Gate) -> None:
        self._outlets.send(gate, self.now_ns(), self.now_s())

    def say(self, level: Level, sentence: str) -> None:
        """Show a sentence as the other nodes do, an error at once."""
        is_new = sentence != self._said
        super().say(level, sentence)
        if is_new and level is Level.ERROR:
            self.get_logger().error(sentence)
            self.diag.publish()


def main() -> int:
    """Run the node."""
    return run(InterventionNode, urgency=Urgency.COMMAND)


if __name__ == "__main__":
    raise SystemExit(main())
