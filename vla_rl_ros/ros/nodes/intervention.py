# SPDX-License-Identifier: Apache-2.0
"""The gate: the only node that tells the arm and the gripper where to go.

It speaks only while an episode runs, the supervisor is heard and the arm's pose is fresh; then it
repeats its target as a heartbeat. Otherwise it is silent, and silence makes the arm safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.intervention import Anchor, ExecutedAction, Gate, GateSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import Pose
from vla_rl_ros.ros import cdr
from vla_rl_ros.ros.action_codecs import decode_policy_action, encode_executed
from vla_rl_ros.ros.channels import check_age, encode_channels
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.codecs import decode_episode, decode_gripper, encode_pose
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.sampler import Sampler, Tap
from vla_rl_ros.ros.state_reader import StampedTopic
from vla_rl_ros.ros.timing import Window
from vla_rl_ros.ros.urgency import Urgency

MAX_AHEAD_S = 0.05


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    """What the gate lets through, and how long it trusts what it heard."""

    control_period_s: float = param(
        0.1, doc="Time between two ticks.", unit="s", low=0.02, high=1.0
    )
    heartbeat_hz: float = param(
        40.0, doc="Rate at which the target is repeated.", unit="Hz", low=20.0, high=100.0
    )
    anchor: str = param(
        "measured",
        doc="What an increment is added to; must be what the policy was trained for.",
        choices=tuple(anchor.value for anchor in Anchor),
    )
    limits: ReferenceLimits = param(  # noqa: RUF009 - param() makes a field
        ReferenceLimits(), doc="Limits of targets."
    )
    max_action_age_s: float = param(
        0.0,
        doc="Largest age of a proposal; 0 for 1.5 periods, at most 0.1 s.",
        unit="s",
        low=0.0,
        high=1.0,
    )
    max_pose_age_s: float = param(
        0.1, doc="Largest age of the measured pose.", unit="s", low=0.01, high=1.0
    )
    supervisor_timeout_s: float = param(
        0.5, doc="Silence of the supervisor after which nothing is sent.", unit="s", low=0.1
    )
    gripper_open_width_m: float = param(
        0.08, doc="Width commanded for an open gripper.", unit="m", low=0.0, high=0.08
    )
    gripper_repeat_s: float = param(
        1.0, doc="Time after which the gripper's target is repeated.", unit="s", low=0.1
    )

    def __post_init__(self) -> None:
        """Check bounds, and that no proposal outlives its tick."""
        check_bounds(self)
        if self.max_action_age_s > 1.5 * self.control_period_s:
            raise ConfigError(
                f"max_action_age_s={self.max_action_age_s} must not exceed 1.5 periods of "
                f"control_period_s={self.control_period_s}"
            )

    @property
    def action_age_s(self) -> float:
        """Largest age of a proposal."""
        return self.max_action_age_s or min(0.1, 1.5 * self.control_period_s)


class InterventionNode(ManagedNode[InterventionConfig]):
    """Publishes `arm/target_pose`, `gripper/target` and `action/executed`."""

    _target: Sender
    _gripper: Sender
    _executed: Sender
    _pose: StampedTopic[Pose]

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("intervention", InterventionConfig, overrides)
        self._steady = steady_clock()
        self._endpoints = Endpoints(self)
        self._sampler = Sampler(self)
        self._timer: Timer | None = None
        self._gate: Gate | None = None
        self._episode = EpisodeState()
        self._episode_s = float("-inf")

    def setup(self) -> None:
        """Create topics and the closed gate."""
        self._gate = Gate(_settings(self.config))
        self._pose = StampedTopic(
            self._sampler, "arm/tcp_pose", cdr.pose, self.config.max_pose_age_s, depth=1
        )
        self._hand: Tap[JointState] = self._sampler.tap("gripper/state")
        self._target = self._endpoints.publisher("arm/target_pose")
        self._gripper = self._endpoints.publisher("gripper/target")
        self._executed = self._endpoints.publisher("action/executed")
        self._endpoints.reader("episode/state", self._on_episode)
        self._endpoints.reader("policy/action", self._on_action)

    def start(self) -> None:
        """Begin to repeat the target, once there is one."""
        self._delay_ms = Window(600)
        self._said = ""
        self._timer = self.create_timer(
            1.0 / self.config.heartbeat_hz, self._on_heartbeat, clock=self._steady
        )

    def stop(self, reason: str) -> None:
        """Fall silent."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._gate is not None:
            self._gate.close()

    def teardown(self) -> None:
        """Leave the topics."""
        self._endpoints.destroy()
        self._sampler.destroy()
        self._gate = None

    def on_config(self, config: InterventionConfig) -> None:
        """Take over new limits and anchor for the next action."""
        if self._gate is not None:
            self._gate.settings = _settings(config)

    def _on_episode(self, message: DiagnosticArray) -> None:
        try:
            self._episode = decode_episode(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.episode.{error.reason}")
            return
        self._episode_s = self._now_s()
        if not self.is_running or self._gate is None:
            return
        if self._episode.phase is not Phase.RUNNING:
            self._gate.close()
            self._say(Level.OK, f"closed, phase {self._episode.phase.value}")
        elif self._gate.epoch != self._episode.epoch:
            is_hand_open = self._is_hand_open()
            self._gate.open(self._episode.epoch, self._now_ns(), is_hand_open=is_hand_open)

    def _is_hand_open(self) -> bool:
        message = self._hand.newest()
        try:
            width_m = None if message is None else decode_gripper(message).width_m
        except InvalidCommandError as error:
            self.diag.count(f"rejected.gripper_state.{error.reason}")
            width_m = None
        return width_m is None or width_m > 0.5 * self.config.gripper_open_width_m

    def _on_action(self, message: JointState) -> None:
        if not self.is_running or self._gate is None:
            return
        now_ns, max_age_s = self._now_ns(), self.config.action_age_s
        try:
            action = decode_policy_action(message)
            check_age(action.stamp_ns, now_ns, max_age_s=max_age_s, max_ahead_s=MAX_AHEAD_S)
            self._require_supervisor()
            executed = self._gate.accept(action, self._pose.nearest(now_ns))
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self.get_logger().warning(f"action dropped: {error}", throttle_duration_sec=1.0)
            return
        self._send(self._gate)
        self._record(executed)
        self._delay_ms.add((self._now_ns() - action.stamp_ns) * 1e-6)
        self.diag.set("tick_to_target_p99_ms", self._delay_ms.quantile(0.99))
        self._say(Level.OK, f"{executed.source.value} drives")

    def _on_heartbeat(self) -> None:
        gate = self._gate
        if gate is None or gate.epoch is None:
            return
        try:
            self._require_supervisor()
        except InvalidCommandError as error:
            gate.close()
            self._say(Level.ERROR, f"{error}; nothing is sent to the arm")
            return
        now_ns = self._now_ns()
        try:
            measured = self._pose.nearest(now_ns)
        except InvalidCommandError as error:
            measured = None
            gate.interrupt()
            self._say(Level.WARN, f"silent: {error}")
        while (row := gate.hold(now_ns, measured)) is not None:
            self._record(row)
            if measured is not None:
                self._say(Level.WARN, "holding: no action for this tick")
        self._send(gate)

    def _require_supervisor(self) -> None:
        age_s = self._now_s() - self._episode_s
        if age_s > self.config.supervisor_timeout_s:
            raise InvalidCommandError("supervisor_silent", "episode/state has no heartbeat")

    def _send(self, gate: Gate) -> None:
        now_ns = self._now_ns()
        if gate.target is not None:
            self._target.publish(encode_pose(gate.target, now_ns))
        is_open = gate.gripper.take_due(self._now_s(), self.config.gripper_repeat_s)
        if is_open is not None:
            width_m = self.config.gripper_open_width_m if is_open else 0.0
            self._gripper.publish(encode_channels({"gripper.width_m": width_m}, now_ns))

    def _record(self, executed: ExecutedAction) -> None:
        self._executed.publish(encode_executed(executed))
        self.diag.count(f"source.{executed.source.value}")
        for limit in executed.limits:
            self.diag.count(f"limited.{limit}")

    def _say(self, level: Level, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self.diag.level(level, sentence)
            if level is Level.ERROR:
                self.get_logger().error(sentence)
                self.diag.publish()

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _now_s(self) -> float:
        return float(self._steady.now().nanoseconds * 1e-9)


def _settings(config: InterventionConfig) -> GateSettings:
    return GateSettings(
        anchor=Anchor(config.anchor),
        limits=config.limits,
        spec=ActionSpec(control_period_s=config.control_period_s),
    )


def main() -> int:
    """Run the node."""
    return run(InterventionNode, urgency=Urgency.COMMAND)


if __name__ == "__main__":
    raise SystemExit(main())
