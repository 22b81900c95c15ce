# SPDX-License-Identifier: Apache-2.0
"""Stands in for the gate on `arm/target_pose`, for benchmarks and tests that drive the arm.

The caller starts the graph with the gate's own output remapped away, so that there is still only
one publisher of targets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped

from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.ros.qos import COMMAND

HEARTBEAT_PERIOD_S = 0.025


class Trace:
    """Stamped positions of one topic.

    Attributes:
        stamps_ns: Header stamps.
        positions_m: TCP positions, base frame.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.stamps_ns: list[int] = []
        self.positions_m: list[tuple[float, float, float]] = []

    def note(self, message: PoseStamped) -> None:
        """Append one message."""
        point = message.pose.position
        self.stamps_ns.append(from_stamp(message.header.stamp))
        self.positions_m.append((point.x, point.y, point.z))

    def clear(self) -> None:
        """Forget everything."""
        self.stamps_ns.clear()
        self.positions_m.clear()

    def since(self, stamp_ns: int) -> tuple[FloatArray, FloatArray]:
        """Seconds after `stamp_ns`, shape (n,), and positions, shape (n, 3)."""
        stamps_ns = np.asarray(self.stamps_ns, dtype=np.int64)
        is_after = stamps_ns >= stamp_ns
        time_s = (stamps_ns[is_after] - stamp_ns) * 1e-9
        positions_m = np.asarray(self.positions_m, dtype=np.float64).reshape(-1, 3)[is_after]
        return time_s.astype(np.float64), positions_m


class TargetSource:
    """Publishes a target as the gate does: at once when it changes, then as a 40 Hz heartbeat.

    Attributes:
        measured: Trace of `arm/tcp_pose`.
        reference: Trace of `arm/reference_pose`.
        last_sent_ns: Stamp of the newest target message.
    """

    def __init__(self, observer: GraphObserver) -> None:
        """Join the observer's node; nothing is sent before `send`."""
        self._observer = observer
        self._publisher = observer.node.create_publisher(PoseStamped, "arm/target_pose", COMMAND)
        self._target: Pose | None = None
        self._newest: PoseStamped | None = None
        self.measured, self.reference = Trace(), Trace()
        self.last_sent_ns = 0
        observer.subscribe(PoseStamped, "arm/tcp_pose", self._note_measured)
        observer.subscribe(PoseStamped, "arm/reference_pose", self.reference.note)
        observer.node.create_timer(HEARTBEAT_PERIOD_S, self._publish)

    def _note_measured(self, message: PoseStamped) -> None:
        self._newest = message
        self.measured.note(message)

    def measured_pose(self) -> Pose:
        """Newest measured TCP pose; waits for the first."""
        self._observer.wait_until(lambda: self._newest is not None, 10.0, "arm/tcp_pose")
        assert self._newest is not None
        return codecs.decode_pose(self._newest)

    def send(self, target: Pose) -> int:
        """Change the target and return the stamp of its first message."""
        self._target = target
        self._publish()
        return self.last_sent_ns

    def fall_silent(self) -> int:
        """Stop publishing, as a killed gate does, and return the stamp of the last message."""
        self._target = None
        return self.last_sent_ns

    def follow(self, path: Callable[[float], Pose], duration_s: float, period_s: float) -> None:
        """Send `path(t)` every `period_s` for a while.

        Args:
            path: Target at `t` seconds after the call.
            duration_s: How long.
            period_s: Control period.
        """
        for index in range(max(1, round(duration_s / period_s))):
            self.send(path((index + 1) * period_s))
            self._observer.spin(period_s)

    def _publish(self) -> None:
        if self._target is None:
            return
        self.last_sent_ns = self._observer.node.get_clock().now().nanoseconds
        self._publisher.publish(codecs.encode_pose(self._target, self.last_sent_ns))
