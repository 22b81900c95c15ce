# SPDX-License-Identifier: Apache-2.0
"""The `metadata.yaml` beside a bag, as rosbag2 reads it.

Format version 5 on purpose: Humble knows nothing newer, and every later distribution still reads
it. From version 9 on the QoS profiles are a list; up to 8 they are a text of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

NS_PER_S = 1_000_000_000
METADATA_FILE = "metadata.yaml"
FORMAT_VERSION = 5
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What rmw calls infinite: the largest int64 in nanoseconds.
_INFINITE_NS = 2**63 - 1


def is_safe_name(name: str) -> bool:
    """Whether an episode's name can be that of a file or directory, and leads nowhere else."""
    return _SAFE_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class BagTopic:
    """One topic of a bag.

    Attributes:
        name: Full topic name, ``/arm/tcp_pose``.
        type: ROS type, ``geometry_msgs/msg/PoseStamped``.
        schema: Message definition with all nested types, encoding ``ros2msg``.
        qos: Offered profiles as rosbag2's YAML text, see `qos_text`; empty when unknown.
    """

    name: str
    type: str
    schema: str
    qos: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BagSummary:
    """What `metadata.yaml` says about the messages of a bag.

    Attributes:
        counts: Number of messages of each topic, in the order of the topics.
        start_ns: Log time of the first message, 0 for an empty bag.
        end_ns: Log time of the last message, 0 for an empty bag.
    """

    counts: tuple[int, ...]
    start_ns: int
    end_ns: int


def qos_text(
    *,
    depth: int,
    is_reliable: bool = True,
    is_transient_local: bool = False,
    lifespan_ns: int | None = None,
) -> str:
    """One offered keep-last profile in the text form of rosbag2 before format 9.

    Args:
        depth: Length of the publisher's history.
        is_reliable: Reliable, else best effort.
        is_transient_local: Late readers get the history.
        lifespan_ns: Age at which a message expires, None for never.
    """
    lifespan_ns = _INFINITE_NS if lifespan_ns is None else lifespan_ns
    return "\n".join(
        (
            "- history: 1",
            f"  depth: {depth}",
            f"  reliability: {1 if is_reliable else 2}",
            f"  durability: {1 if is_transient_local else 2}",
            *_duration_lines("deadline", _INFINITE_NS),
            *_duration_lines("lifespan", lifespan_ns),
            "  liveliness: 1",
            *_duration_lines("liveliness_lease_duration", _INFINITE_NS),
            "  avoid_ros_namespace_conventions: false",
        )
    )


def _duration_lines(name: str, duration_ns: int) -> tuple[str, str, str]:
    sec, nsec = divmod(duration_ns, NS_PER_S)
    return f"  {name}:", f"    sec: {sec}", f"    nsec: {nsec}"


def metadata_yaml(topics: Sequence[BagTopic], summary: BagSummary, file_name: str) -> str:
    """Text of `metadata.yaml` of a bag with one MCAP file.

    Args:
        topics: All topics, also those without messages.
        summary: Counts and times.
        file_name: Name of the MCAP file inside the bag's directory.
    """
    start = {"nanoseconds_since_epoch": summary.start_ns}
    duration = {"nanoseconds": summary.end_ns - summary.start_ns}
    total = sum(summary.counts)
    information: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "storage_identifier": "mcap",
        "relative_file_paths": [file_name],
        "duration": duration,
        "starting_time": start,
        "message_count": total,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": topic.qos,
                },
                "message_count": count,
            }
            for topic, count in zip(topics, summary.counts, strict=True)
        ],
        "compression_format": "",
        "compression_mode": "",
        "files": [
            {
                "path": file_name,
                "starting_time": dict(start),
                "duration": dict(duration),
                "message_count": total,
            }
        ],
    }
    document = {"rosbag2_bagfile_information": information}
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, width=1000)
