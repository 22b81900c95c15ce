# SPDX-License-Identifier: Apache-2.0
"""Takes every message of many topics as bytes, cheaply.

The middleware keeps what arrives in the history of each subscription (depth 500) together with
the time of arrival. A thread empties all histories every few milliseconds and hands over one
batch in order of arrival; no message wakes Python on its own. Measured for 1,350 messages per
second: 3 % of a core against 16 % with a callback each.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rclpy.node import Node

from vla_rl_ros.data.episode_recording import RawMessage
from vla_rl_ros.ros.endpoints import message_type, without_events
from vla_rl_ros.ros.gated_group import GatedCallbackGroup
from vla_rl_ros.ros.graph import Topic
from vla_rl_ros.ros.qos import recorder_reader

if TYPE_CHECKING:  # MessageInfo has no name in Humble and Jazzy
    from rclpy.subscription import MessageInfo, Subscription

_BY_ARRIVAL = attrgetter("log_time_ns")


Sink = Callable[[list[RawMessage], int], None]


class RawIntake:
    """Raw subscriptions to many topics, emptied by one thread."""

    def __init__(self, node: Node, topics: Sequence[Topic], sink: Sink, period_s: float) -> None:
        """Subscribe and start the thread.

        Args:
            node: Node that subscribes.
            topics: Rows of the topic table.
            sink: Called in the intake's thread, or in the one that calls `drain`, with the
                messages in order of arrival and the number of messages found missing.
            period_s: Time between two looks at the histories.
        """
        self._node = node
        self._sink = sink
        self._period_s = period_s
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._last_sequence: dict[tuple[int, bytes], int] = {}
        self.num_received = 0
        self.num_lost = 0
        self.failure = ""
        group = GatedCallbackGroup()
        self._subscriptions = [_subscribe(node, topic, group) for topic in topics]
        self._thread = threading.Thread(target=self._loop, name="intake", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Hand everything that has arrived to the sink now."""
        with self._lock:
            messages: list[RawMessage] = []
            num_lost = self.num_lost
            for index, subscription in enumerate(self._subscriptions):
                self._take_all(index, subscription, messages)
            if messages:
                self.num_received += len(messages)
                messages.sort(key=_BY_ARRIVAL)
                self._sink(messages, self.num_lost - num_lost)

    def close(self) -> None:
        """Stop the thread and unsubscribe; idempotent."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            for subscription in self._subscriptions:
                self._node.destroy_subscription(subscription)
            self._subscriptions = []

    def _loop(self) -> None:
        try:
            while not self._closing.wait(self._period_s):
                self.drain()
        except Exception:  # noqa: BLE001 - shown by the node, which polls `failure`
            self.failure = traceback.format_exc()

    def _take_all(
        self, index: int, subscription: Subscription[Any], messages: list[RawMessage]
    ) -> None:
        kind, handle = subscription.msg_type, subscription.handle
        with handle:
            while (taken := handle.take_message(kind, True)) is not None:
                data, info = taken
                sequence = info.get("publication_sequence_number") or 0
                if sequence and "publisher_gid" in info:
                    self._count_gap(index, info, sequence)
                log_time_ns = info["received_timestamp"] or time.time_ns()
                publish_time_ns = info["source_timestamp"] or log_time_ns
                messages.append(
                    RawMessage(
                        log_time_ns, index, publish_time_ns, sequence & 0xFFFFFFFF, bytes(data)
                    )
                )

    def _count_gap(self, index: int, info: MessageInfo, sequence: int) -> None:
        # Reliable delivery keeps each publisher's order, so a step of more than one is a loss:
        # either history overflowed before the message was taken.
        publisher = (info.get("publisher_gid") or {}).get("data", b"")
        key = (index, publisher)
        last = self._last_sequence.get(key)
        if last is not None and sequence > last + 1:
            self.num_lost += sequence - last - 1
        self._last_sequence[key] = sequence


def _subscribe(node: Node, topic: Topic, group: GatedCallbackGroup) -> Subscription[Any]:
    return node.create_subscription(
        message_type(topic.type),
        topic.name,
        _never_called,
        recorder_reader(topic.qos),
        callback_group=group,
        event_callbacks=without_events(),
        raw=True,
    )


def _never_called(_message: bytes) -> None:
    """Stands in for a callback: the group never opens."""
