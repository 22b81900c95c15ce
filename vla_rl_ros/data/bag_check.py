# SPDX-License-Identifier: Apache-2.0
"""Tells what a bag holds and what is wrong with it: counts, rates, gaps, completeness."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from vla_rl_ros.data.bag_reader import Bag
from vla_rl_ros.data.metadata import METADATA_FILE, NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicReport:
    """Messages of one topic.

    Attributes:
        name: Full topic name.
        type: ROS type.
        num_messages: Messages in the bag.
        rate_hz: Mean rate between the first and the last, 0 for fewer than two.
        max_gap_s: Longest time between two receptions, 0 for fewer than two.
    """

    name: str
    type: str
    num_messages: int
    rate_hz: float
    max_gap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BagReport:
    """One bag.

    Attributes:
        path: The MCAP file.
        topics: All topics, by name.
        duration_s: From the first to the last reception.
        num_messages: Messages in the bag.
        num_bytes: Size of the file.
        problems: One sentence for each thing that is wrong; empty for a sound bag.
    """

    path: Path
    topics: tuple[TopicReport, ...]
    duration_s: float
    num_messages: int
    num_bytes: int
    problems: tuple[str, ...]


def check(path: Path | str, required_topics: Iterable[str] = ()) -> BagReport:
    """Read a bag from end to end.

    Args:
        path: Directory of the bag, or its MCAP file.
        required_topics: Topics that must have a channel; relative names in any namespace.

    Raises:
        BagError: It is no bag at all.
    """
    bag = Bag(path)
    times: dict[str, list[int]] = {name: [] for name in bag.topics}
    for message in bag.messages():
        times[message.topic].append(message.log_time_ns)
    topics = tuple(
        _topic_report(name, info.type, times[name]) for name, info in sorted(bag.topics.items())
    )
    stamps = [stamp for series in times.values() for stamp in series]
    return BagReport(
        path=bag.path,
        topics=topics,
        duration_s=(max(stamps) - min(stamps)) / NS_PER_S if stamps else 0.0,
        num_messages=len(stamps),
        num_bytes=bag.path.stat().st_size,
        problems=tuple(_problems(bag, topics, required_topics)),
    )


def _topic_report(name: str, type_name: str, times_ns: list[int]) -> TopicReport:
    stamps = np.sort(np.array(times_ns, dtype=np.int64))
    gaps_s = np.diff(stamps) / NS_PER_S
    span_s = float(gaps_s.sum())
    return TopicReport(
        name=name,
        type=type_name,
        num_messages=len(stamps),
        rate_hz=len(gaps_s) / span_s if span_s > 0.0 else 0.0,
        max_gap_s=float(gaps_s.max()) if len(gaps_s) else 0.0,
    )


def _problems(bag: Bag, topics: tuple[TopicReport, ...], required: Iterable[str]) -> list[str]:
    problems = []
    if not bag.is_sealed:
        problems.append("the file has no index: its writer was killed; `bag recover` completes it")
    missing = [name for name in required if not _has_topic(bag, name)]
    if missing:
        problems.append(f"no channel for {', '.join(missing)}")
    num_dropped = bag.metadata("episode").get("num_dropped", "0")
    if num_dropped != "0":
        problems.append(f"the recorder dropped {num_dropped} messages")
    problems.extend(_metadata_problems(bag.path, topics))
    return problems


def _has_topic(bag: Bag, name: str) -> bool:
    # A relative name may stand in the namespace of a robot.
    if name.startswith("/"):
        return name in bag.topics
    return any(topic.endswith(f"/{name}") for topic in bag.topics)


def _metadata_problems(mcap: Path, topics: tuple[TopicReport, ...]) -> list[str]:
    path = mcap.parent / METADATA_FILE
    if not path.is_file():
        return [f"{METADATA_FILE} is missing; `bag recover` writes it"]
    try:
        entries = _metadata_counts(path)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        return [f"{METADATA_FILE} cannot be read: {error}"]
    counts = {topic.name: topic.num_messages for topic in topics}
    wrong = sorted(name for name in counts | entries if counts.get(name) != entries.get(name))
    return [f"{METADATA_FILE} miscounts {', '.join(wrong)}"] if wrong else []


def _metadata_counts(path: Path) -> dict[str, int]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = document["rosbag2_bagfile_information"]["topics_with_message_count"]
    return {entry["topic_metadata"]["name"]: int(entry["message_count"]) for entry in entries}
