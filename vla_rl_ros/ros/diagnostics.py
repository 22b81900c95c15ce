# SPDX-License-Identifier: Apache-2.0
"""Counters, gauges and a level per node, published on /diagnostics once per second."""

from __future__ import annotations

import enum
import threading
from collections import Counter

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from vla_rl_ros.ros.qos import EVENT


class Level(enum.IntEnum):
    """Severity, defined by what the operator has to do."""

    OK = 0
    WARN = 1
    """Look when there is time; the system goes on."""
    ERROR = 2
    """The node cannot do its work until something is mended."""


class Diagnostics:
    """The health of one node. Thread-safe, so workers may count too."""

    def __init__(self, node: Node) -> None:
        """Create the publisher and its 1 Hz timer on `node`."""
        self._node = node
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._gauges: dict[str, str] = {}
        self._level = Level.OK
        self._message = "starting"
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self._timer = node.create_timer(1.0, self.publish)

    def count(self, key: str, amount: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[key] += amount

    def set(self, key: str, value: float | str) -> None:
        """Set a gauge; floats are shown with four significant digits."""
        with self._lock:
            self._gauges[key] = value if isinstance(value, str) else f"{value:.4g}"

    def level(self, level: Level, message: str) -> None:
        """Set the severity and the sentence for the operator."""
        with self._lock:
            self._level, self._message = level, message

    def counted(self, key: str) -> int:
        """Read a counter back."""
        with self._lock:
            return self._counters[key]

    def publish(self) -> None:
        """Publish now; also called by the timer."""
        with self._lock:
            values = [KeyValue(key=key, value=str(n)) for key, n in sorted(self._counters.items())]
            values += [KeyValue(key=key, value=text) for key, text in sorted(self._gauges.items())]
            status = DiagnosticStatus(
                level=bytes([self._level]),
                name=self._node.get_fully_qualified_name(),
                message=self._message,
                hardware_id="vla_rl_ros",
                values=values,
            )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
