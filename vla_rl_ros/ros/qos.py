# SPDX-License-Identifier: Apache-2.0
"""Quality of service by name: publishers offer the most, each reader asks for what it needs."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

SENSOR = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
)
COMMAND = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    lifespan=Duration(seconds=0.1),
)
EVENT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DURABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    # Five minutes of ticks at 10 Hz: what a learner that was started again has missed.
    depth=3000,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
PUBLISHER_QOS = {
    "SENSOR": SENSOR,
    "COMMAND": COMMAND,
    "EVENT": EVENT,
    "LATCHED": LATCHED,
    "DURABLE": DURABLE,
}


def control_reader(name: str) -> QoSProfile:
    """QoS of a control node's subscription: the newest value matters, not every value.

    Args:
        name: QoS name of the topic in `ros/graph.py`.
    """
    if name == "SENSOR":
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
        )
    # Who acts wants no past: DURABLE keeps it for `history_reader` only.
    return EVENT if name == "DURABLE" else PUBLISHER_QOS[name]


def history_reader(name: str) -> QoSProfile:
    """QoS of a subscription that also gets what was sent before it was there, as far as kept."""
    return PUBLISHER_QOS[name]


def recorder_reader(name: str) -> QoSProfile:
    """QoS of the recorder's subscription: every value matters, from now on."""
    durability = EVENT.durability if name == "DURABLE" else PUBLISHER_QOS[name].durability
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=500,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )
