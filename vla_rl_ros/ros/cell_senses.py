# SPDX-License-Identifier: Apache-2.0
"""What the supervisor perceives of the cell: health, arm, chunks, success, ticks, the view.

Nothing here has a callback: messages wait until they are asked for, because a callback costs more
than what the supervisor does with most messages. Used from one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.human_ledger import HumanTime
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.core.types import Pose
from vla_rl_ros.core.verdict import CLASSIFIER, GROUND_TRUTH, OPERATOR, SuccessHold
from vla_rl_ros.hardware.control_types import ControlMode
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.bringup import NodeHealth
from vla_rl_ros.ros.channels import NS_PER_S, decode_channels, from_stamp
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS, decode_pose
from vla_rl_ros.ros.episode_start import ArmRest
from vla_rl_ros.ros.gated_client import GatedClient
from vla_rl_ros.ros.markers import View
from vla_rl_ros.ros.sampler import Sampler, Tap
from vla_rl_ros.ros.steps import Clock, StepError, Steps, call

CONTROLLER = "impedance_controller"
OUTCOME_TOPICS = {GROUND_TRUTH: "sim/success", CLASSIFIER: "task/success", OPERATOR: ""}
STALE_AFTER_S = 1.0
"""Age at which a pose or a driver is no longer shown."""
EPOCH_CHANNEL = "chunk.epoch"
BOX_PARAMETERS = ("limits.box_min_m", "limits.box_max_m")
BOX_TIMEOUT_S = 2.0
ROWS_AT_ONCE = 50
"""A supervisor that was started again gets minutes of them; no callback may take so long."""
FOLLOWING = (ControlMode.ENGAGING, ControlMode.RUN, ControlMode.HOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is watched, and how patiently.

    Attributes:
        nodes: Nodes that an episode needs.
        outcome_source: A key of `OUTCOME_TOPICS`.
        success_hold_s: How long success must last.
        silence_limit_s: How long a node may be silent or in error.
    """

    nodes: tuple[str, ...]
    outcome_source: str
    success_hold_s: float
    silence_limit_s: float


class CellSenses:
    """Subscriptions of the supervisor and the questions they answer."""

    def __init__(
        self,
        node: LifecycleNode,
        watch: Watch,
        clock: Clock,
        note_row: Callable[[ExecutedAction], None],
    ) -> None:
        """Listen.

        Args:
            node: Owns the subscriptions.
            watch: What matters.
            clock: Monotonic time.
            note_row: Told of every executed tick, also of those from before, in order.
        """
        self._note_row = note_row
        self._row: ExecutedAction | None = None
        self._judged: tuple[int, bool, float] | None = None
        self._classifier = ""
        self._node = node
        self._watch = watch
        self._clock = clock
        self.health = NodeHealth()
        self._hold = SuccessHold(watch.success_hold_s)
        self._sampler = sampler = Sampler(node)
        # All nodes report within the same second; the queue must hold them all.
        self._diagnostics: Tap[DiagnosticArray] = sampler.tap("/diagnostics", depth=50)
        topic = OUTCOME_TOPICS[watch.outcome_source]
        self._success: Tap[JointState] | None = sampler.tap(topic, depth=5) if topic else None
        self._chunk: Tap[JointTrajectory] = sampler.tap("policy/chunk")
        self._controller: Tap[JointState] = sampler.tap("arm/controller_state")
        self._pose: Tap[PoseStamped] = sampler.tap("arm/tcp_pose")
        self._target: Tap[PoseStamped] = sampler.tap("arm/target_pose")
        self._executed: Tap[JointState] = sampler.history("action/executed")
        self._limits = GatedClient(node, GetParameters, f"{CONTROLLER}/get_parameters")
        self._box: dict[str, list[float]] = {}

    def destroy(self) -> None:
        """Stop listening."""
        self._limits.destroy()
        self._sampler.destroy()

    def listen(self) -> None:
        """Take what has arrived; call it often enough for the queues."""
        now_s = self._clock()
        for report in self._diagnostics.drain():
            self.health.note(report, now_s)
        for sample in self._success.drain() if self._success is not None else ():
            self._note_success(sample)
        for row in self._executed.drain(ROWS_AT_ONCE):
            self._note_executed(row)

    def begin_watch(self) -> None:
        """Forget success that was seen before now."""
        self.listen()
        self._hold.reset()
        self._classifier = ""

    def is_success(self) -> bool:
        """Whether success has held long enough."""
        return self._hold.is_held

    def judge(self) -> str:
        """Who measures success; of a classifier also which one spoke in this episode, if any."""
        return f"{self._watch.outcome_source} {self._classifier}".strip()

    @property
    def has_judge(self) -> bool:
        """Whether success is measured; otherwise only the operator knows."""
        return self._success is not None

    def forget_judgement(self) -> None:
        """Take what the judge of success said so far for old."""
        self.listen()
        self._judged = None

    def is_done_now(self) -> bool | None:
        """What the judge of success says at this moment, None while it is silent."""
        self.listen()
        if self._judged is None or not self._is_recent(self._judged[0]):
            return None
        return self._judged[1]

    def arm_rest(self) -> ArmRest:
        """How the arm rests between two episodes; one that is silent is not known to rest."""
        return ArmRest(
            is_held=self._controller_channel("held") > 0.5,
            is_following=not self._is_fresh(self._controller.newest())
            or any(self._controller_channel(f"mode.{mode.value}") > 0.5 for mode in FOLLOWING),
        )

    def has_chunk(self, epoch: int) -> bool:
        """Whether the newest chunk belongs to this epoch."""
        message = self._chunk.newest()
        if message is None or not message.points or EPOCH_CHANNEL not in message.joint_names:
            return False
        values = dict(zip(message.joint_names, message.points[0].positions, strict=False))
        return values.get(EPOCH_CHANNEL) == float(epoch)

    def arm_fault(self) -> str:
        """Why the arm is not in control, empty when it is or was never heard."""
        report = self.health.reports.get(CONTROLLER)
        # The stream is fast but thins out while a link dies; the report comes with each change.
        is_reported = report is not None and report.values.get("mode") == "fault"
        if not is_reported and self._controller_channel("mode.fault") < 0.5:
            return ""
        return f"arm: {self.health.sentence(CONTROLLER)}"

    def lost(self) -> str:
        """Why no episode can go on, empty when one can."""
        watch = self._watch
        return self.health.trouble(watch.nodes, self._clock(), watch.silence_limit_s)

    def stopped(self) -> str:
        """Why the arm no longer follows though it is well, empty when it does."""
        if self._controller_channel("held") > 0.5:
            return "the arm is held on request; call recover to release it"
        if self._controller_channel("mode.stopped") < 0.5:
            return ""
        return "the arm was stopped because no target came; see intervention and residual_actor"

    def read_box(self) -> Steps[None]:
        """Ask the controller for the workspace box that `view` draws."""
        request = GetParameters.Request(names=BOX_PARAMETERS)
        try:
            response = yield from call(self._limits, request, BOX_TIMEOUT_S, self._clock)
        except StepError:
            # Nothing to draw; the bring-up says what is wrong with the controller.
            self._box = {}
            return
        for name, value in zip(BOX_PARAMETERS, response.values, strict=False):
            if value.type == ParameterType.PARAMETER_DOUBLE_ARRAY:
                self._box[name] = list(value.double_array_value)

    def view(self, episode: EpisodeState, human: HumanTime) -> View:
        """What there is to draw.

        Args:
            episode: Present state.
            human: What people gave.
        """
        low, high = BOX_PARAMETERS
        return View(
            episode=episode,
            box_min_m=self._box.get(low),
            box_max_m=self._box.get(high),
            clip_plus_m=self._clip("clip_plus"),
            clip_minus_m=self._clip("clip_minus"),
            measured=self._fresh_pose(self._pose),
            target=self._fresh_pose(self._target),
            driver=self._driver(),
            success=self._success_probability(),
            human=human,
        )

    def _clip(self, prefix: str) -> list[float] | None:
        values = [self._controller_channel(f"{prefix}.{axis}_m", -1.0) for axis in "xyz"]
        return values if min(values) > 0.0 else None

    def _controller_channel(self, name: str, default: float = 0.0) -> float:
        message = self._controller.newest()
        if message is None or name not in message.name:
            return default
        return float(message.position[list(message.name).index(name)])

    def _is_fresh(self, message: Any) -> bool:  # noqa: ANN401 - any stamped message
        return message is not None and self._is_recent(from_stamp(message.header.stamp))

    def _is_recent(self, stamp_ns: int) -> bool:
        age_ns = self._node.get_clock().now().nanoseconds - stamp_ns
        return bool(age_ns < STALE_AFTER_S * NS_PER_S)

    def _fresh_pose(self, tap: Tap[PoseStamped]) -> Pose | None:
        message = tap.newest()
        if message is None or not self._is_fresh(message):
            return None
        try:
            return decode_pose(message)
        except InvalidCommandError:
            # Whoever acts on this topic counts and reports it; here is nothing to draw.
            return None

    def _driver(self) -> str:
        row = self._row
        return row.source.value if row is not None and self._is_recent(row.stamp_ns) else ""

    def _success_probability(self) -> float | None:
        judged = self._judged
        return judged[2] if judged is not None and self._is_recent(judged[0]) else None

    def _note_executed(self, message: JointState) -> None:
        try:
            self._row = decode_executed(message)
        except InvalidCommandError as error:
            self._node.get_logger().warning(f"row refused: {error}", throttle_duration_sec=5.0)
            return
        self._note_row(self._row)

    def _note_success(self, message: JointState) -> None:
        try:
            channels = decode_channels(message, SUCCESS_CHANNELS)
        except InvalidCommandError as error:
            self._node.get_logger().warning(
                f"success message refused: {error}", throttle_duration_sec=5.0
            )
            return
        is_decided = channels["success.decided"] > 0.5
        stamp_ns = from_stamp(message.header.stamp)
        self._judged = stamp_ns, is_decided, channels["success.probability"]
        if self._watch.outcome_source == CLASSIFIER:
            self._classifier = message.header.frame_id
        self._hold.update(is_decided, stamp_ns / NS_PER_S)
