# SPDX-License-Identifier: Apache-2.0
"""The operator's device at the gate: from HID reports or `teleop/joy` to what he wants.

A SpaceMouse is read in a thread of its own that wakes the executor, so that no timer adds to the
way of a report; what it says is published as `teleop/joy`. Any other device publishes that topic
itself. Every message counts, because a press that was missed never comes again; but the first one
of a publisher says what is down, not since when.

Of several publishers the first is listened to, until it has been silent for long enough; what the
others say, or what is old, moves nothing. A stop counts whoever presses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Joy

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.teleop import Presses, Teleop
from vla_rl_ros.core.teleop_axes import without_dead_zone
from vla_rl_ros.hardware.sixdof_reader import HandSample, SixDofReader
from vla_rl_ros.hardware.spacemouse import SpaceMouse
from vla_rl_ros.ros.channels import check_age, from_stamp, to_stamp
from vla_rl_ros.ros.endpoints import Endpoints, Sender, without_events
from vla_rl_ros.ros.intervention_config import HandDevice, InterventionConfig
from vla_rl_ros.ros.managed_node import ManagedNode

if TYPE_CHECKING:  # it has no name in Humble and Jazzy
    from rclpy.subscription import MessageInfo

JOY_TOPIC = "teleop/joy"
PUSHED_TIMEOUT_S = 0.3
"""Silence of a pushed device, of any kind, after which nobody drives."""
_MAX_AHEAD_S = 0.05
_EVERY_MESSAGE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE
)


class OperatorHand:
    """What the operator does with his device.

    Attributes:
        teleop: What it means.
        report_ns: ROS time of the newest report, 0 before the first.
        is_gone: Whether the device was there and is not any more.
    """

    def __init__(
        self,
        node: ManagedNode[InterventionConfig],
        endpoints: Endpoints,
        on_report: Callable[[], None],
        now_s: Callable[[], float],
    ) -> None:
        """Join the topic; the device is opened by `start`.

        Args:
            node: The gate.
            endpoints: Its publishers.
            on_report: Called by the executor when there is something new.
            now_s: Steady time.
        """
        config = node.config
        self._node, self._on_report, self._now_s = node, on_report, now_s
        self._device = HandDevice(config.device)
        self.teleop = Teleop(config.teleop, config.spec)
        self.report_ns = 0
        self.is_gone = False
        self._heard_s: float | None = None
        self._talker: tuple[str, str] | None = None
        self._refused_talker: tuple[str, str] | None = None
        self._refused = Presses()
        self._reader: SixDofReader | None = None
        self._publisher: Sender | None = None
        self._subscription: Any = None
        self._wake: Any = None
        self._levels: tuple[int, ...] = ()
        if self._device is HandDevice.SPACEMOUSE:
            self._publisher = endpoints.publisher(JOY_TOPIC)
            self._wake = node.create_guard_condition(self._on_samples)
        elif self._device is HandDevice.JOY:
            self._subscription = node.create_subscription(
                Joy, JOY_TOPIC, self._on_joy, _EVERY_MESSAGE, event_callbacks=without_events()
            )
            self.teleop.presses.forget_levels()

    @property
    def is_there(self) -> bool:
        """Whether there is a device at all, by configuration."""
        return self._device is not HandDevice.NONE

    def start(self) -> None:
        """Begin to read the device, or to look for it."""
        if self._device is HandDevice.SPACEMOUSE:
            self._reader = SixDofReader(SpaceMouse(), self._wake.trigger)
            self._reader.start()

    def stop(self) -> None:
        """Close the device; nobody drives."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
        self._lose()

    def destroy(self) -> None:
        """Leave the topic."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        if self._wake is not None:
            self._node.destroy_guard_condition(self._wake)
        self._subscription = self._wake = None

    def check(self, now_s: float) -> None:
        """Let go where the device has fallen silent, and show its health."""
        reader = self._reader
        if reader is not None:
            self._node.diag.set("hand", reader.name or reader.problem)
            self._node.diag.set("hand_losses", float(reader.num_losses))
        if self._heard_s is None:
            return
        silent_s = now_s - self._heard_s
        # A mouse at rest says nothing; who publishes the topic himself goes on all the time, so
        # that his silence is a loss also where nobody drives just now.
        is_silent = self._device is HandDevice.JOY and silent_s > self._node.config.joy_timeout_s
        # What a reader that no longer reads said last must not go on.
        if is_silent or (self.teleop.is_pushed and silent_s > PUSHED_TIMEOUT_S):
            self._lose()
            self._node.diag.count("hand_silent")
            self._on_report()

    def _on_samples(self) -> None:
        reader = self._reader
        if reader is None or not self._node.is_running:
            return
        samples = reader.take()
        config = self._node.config.teleop
        for index, sample in enumerate(samples):
            axes = without_dead_zone(sample.axes, config.dead_zone).tolist()
            levels = config.levels(sample.pressed)
            if sample.is_lost:
                self._lose()
            else:
                self._take(axes, levels, sample.stamp_ns)
            # Of deflections only the newest matters to who listens, of buttons each change.
            if index == len(samples) - 1 or levels != self._levels:
                self._publish(axes, levels, sample, reader.name)
            self._levels = levels
        if samples:
            self._on_report()

    def _lose(self) -> None:
        self.teleop.lost()
        if self._device is HandDevice.JOY:
            # A mouse reports changes, others the levels of buttons that may have been held since.
            self.teleop.presses.forget_levels()
        self.is_gone = True
        self._heard_s = self._talker = self._refused_talker = None

    def _publish(
        self, axes: list[float], levels: tuple[int, ...], sample: HandSample, name: str
    ) -> None:
        message = Joy(axes=axes, buttons=list(levels))
        message.header.stamp = to_stamp(sample.stamp_ns)
        message.header.frame_id = name or "spacemouse"
        assert self._publisher is not None
        self._publisher.publish(message)

    def _on_joy(self, message: Joy, info: MessageInfo) -> None:
        if not self._node.is_running:
            return
        # The name of the device is there in any case, the publisher's number only if the
        # middleware tells it.
        talker = (message.header.frame_id, str(info.get("publisher_gid")))
        levels, stamp_ns = tuple(message.buttons), from_stamp(message.header.stamp)
        reason = self._objection(talker, stamp_ns)
        if reason is None:
            if self._take(list(message.axes), levels, stamp_ns):
                self._talker = talker
            if talker == self._refused_talker:
                self._refused_talker = None
        else:
            self._node.diag.count(f"rejected.joy.{reason}")
            self._hear_stop(talker, levels)
        self._on_report()

    def _hear_stop(self, talker: tuple[str, str], levels: tuple[int, ...]) -> None:
        """Count a press of stop in a message that was refused."""
        if talker != self._refused_talker:
            self._refused_talker, self._refused = talker, Presses()
        if "stop" in self._refused.update(levels):
            self.teleop.presses.waiting["stop"] += 1

    def _objection(self, talker: tuple[str, str], stamp_ns: int) -> str | None:
        """Why a message must not drive, None if it may."""
        timeout_s = self._node.config.joy_timeout_s
        if self._talker is not None and self._heard_s is not None and talker != self._talker:
            if self._now_s() - self._heard_s <= timeout_s:
                return "other"
            # Nothing of the one before, pushed or pressed, goes over to the next.
            self._lose()
        now_ns = int(self._node.get_clock().now().nanoseconds)
        try:
            check_age(stamp_ns, now_ns, max_age_s=timeout_s, max_ahead_s=_MAX_AHEAD_S)
        except InvalidCommandError as error:
            return error.reason.removesuffix("_stamp")
        return None

    def _take(self, axes: list[float], levels: tuple[int, ...], stamp_ns: int) -> bool:
        """Follow a report; returns whether its deflection is to be trusted."""
        now_s = self._now_s()
        try:
            self.teleop.update(axes, levels, now_s)
        except InvalidCommandError as error:
            self._node.diag.count(f"rejected.joy.{error.reason}")
            return False
        self._heard_s, self.report_ns, self.is_gone = now_s, stamp_ns, False
        return True
