# SPDX-License-Identifier: Apache-2.0
"""Reads bags without ROS, also those whose writer was killed.

A complete bag that was damaged later is refused where its writer left checksums: the recorder
does of messages and index, and leaves none of metadata.

The time of a sample is the stamp in its header where it has one, the time it was received where
it has none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader
from mcap.records import Channel, Message, Metadata, Schema
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.mcap_scan import damage_told, is_sealed, refuse_wrong_index, scan
from vla_rl_ros.data.metadata import NS_PER_S
from vla_rl_ros.data.schemas import has_header

StampArray = NDArray[np.int64]
ValueArray = NDArray[np.float64]
Decoder = Callable[[bytes], Any]

_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}
_ENCAPSULATION_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicInfo:
    """One channel of a bag.

    Attributes:
        name: Full topic name.
        type: ROS type.
        schema: Message definition.
        qos: Offered profiles in rosbag2's text form, empty when unknown.
    """

    name: str
    type: str
    schema: str
    qos: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: Full topic name.
        type: ROS type.
        log_time_ns: When it was received.
        publish_time_ns: When it was published.
        stamp_ns: Stamp of its header, None for a type without one.
        sequence: The publisher's counter, 0 when unknown.
        raw: CDR bytes as recorded.
    """

    topic: str
    type: str
    log_time_ns: int
    publish_time_ns: int
    stamp_ns: int | None
    sequence: int
    raw: bytes
    _decoder: Decoder = field(repr=False, compare=False)

    @property
    def time_ns(self) -> int:
        """Header stamp where there is one, else the time of reception."""
        return self.log_time_ns if self.stamp_ns is None else self.stamp_ns

    def decode(self) -> Any:  # noqa: ANN401 - the type is made from the schema in the bag
        """The message with the fields of its ROS type as attributes."""
        return self._decoder(self.raw)


class Bag:
    """A bag opened for reading; every iteration opens the file anew."""

    def __init__(self, path: Path | str) -> None:
        """Open a bag.

        Args:
            path: Directory of the bag, or its MCAP file.

        Raises:
            BagError: There is no MCAP file, or it is damaged.
        """
        self.path = find_mcap(Path(path))
        self.is_sealed = is_sealed(self.path)
        self.topics: dict[str, TopicInfo] = {}
        self._stamped: set[str] = set()
        self._metadata: dict[str, dict[str, str]] = {}
        self._factory = DecoderFactory()
        if self.is_sealed:
            self._read_summary()
        else:
            self._read_all_records()

    def metadata(self, name: str) -> dict[str, str]:
        """The last metadata record of a name, empty when there is none.

        The recorder writes ``episode``, ``provenance`` and ``parameters``.
        """
        return dict(self._metadata.get(name, {}))

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Iterate over messages, by time of reception (in file order for an unsealed bag).

        Args:
            topics: Topics to read, with or without leading slash; None for all.

        Raises:
            BagError: The bag has no such topic, or is damaged from here on.
        """
        wanted = None if topics is None else {self._full_name(topic) for topic in topics}
        source = self._indexed(wanted) if self.is_sealed else self._scanned(wanted)
        for schema, channel, message in source:
            yield BagMessage(
                topic=channel.topic,
                type=schema.name,
                log_time_ns=message.log_time,
                publish_time_ns=message.publish_time,
                stamp_ns=_header_stamp(message.data) if channel.topic in self._stamped else None,
                sequence=message.sequence,
                raw=message.data,
                _decoder=self._decoder(schema),
            )

    def _full_name(self, topic: str) -> str:
        name = topic if topic.startswith("/") else f"/{topic}"
        if name not in self.topics:
            raise BagError(f"{self.path} has no topic {name}; it has {', '.join(self.topics)}")
        return name

    def _decoder(self, schema: Schema) -> Decoder:
        decoder = self._factory.decoder_for("cdr", schema)
        if decoder is None:
            raise BagError(f"cannot decode {schema.name} with encoding '{schema.encoding}'")
        return decoder

    def _read_summary(self) -> None:
        refuse_wrong_index(self.path)
        with self.path.open("rb") as file, damage_told(self.path):
            reader = make_reader(file)
            summary = reader.get_summary()
            if summary is None:
                raise BagError(f"{self.path} has no index")
            for channel in summary.channels.values():
                # Without a type nobody can read what it says.
                if channel.schema_id:
                    self._add_topic(channel, summary.schemas[channel.schema_id])
            for record in reader.iter_metadata():
                self._metadata[record.name] = record.metadata

    def _read_all_records(self) -> None:
        schemas: dict[int, Schema] = {}
        for record in scan(self.path):
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                self._add_topic(record, schemas[record.schema_id])
            elif isinstance(record, Metadata):
                self._metadata[record.name] = record.metadata

    def _add_topic(self, channel: Channel, schema: Schema) -> None:
        text = schema.data.decode()
        if has_header(text):
            self._stamped.add(channel.topic)
        self.topics[channel.topic] = TopicInfo(
            name=channel.topic,
            type=schema.name,
            schema=text,
            qos=channel.metadata.get("offered_qos_profiles", ""),
        )

    def _indexed(self, wanted: set[str] | None) -> Iterator[tuple[Schema, Channel, Message]]:
        with self.path.open("rb") as file, damage_told(self.path):
            reader = make_reader(file, validate_crcs=True)
            for schema, channel, message in reader.iter_messages(topics=wanted):
                if schema is not None:
                    yield schema, channel, message

    def _scanned(self, wanted: set[str] | None) -> Iterator[tuple[Schema, Channel, Message]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        for record in scan(self.path):
            if isinstance(record, Message):
                channel = channels[record.channel_id]
                if wanted is None or channel.topic in wanted:
                    yield schemas[channel.schema_id], channel, record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Schema):
                schemas[record.id] = record


def find_mcap(path: Path) -> Path:
    """The MCAP file of a bag.

    Args:
        path: Directory of the bag, or the file itself.

    Raises:
        BagError: There is none, or more than one.
    """
    if path.is_file():
        return path
    files = sorted(path.glob("*.mcap")) if path.is_dir() else []
    if len(files) != 1:
        raise BagError(f"{path} holds {len(files) or 'no'} MCAP files, expected one")
    if not files[0].is_file():
        raise BagError(f"{files[0]} is no file, or a link to one that is gone")
    return files[0]


def read_poses(path: Path | str, topic: str) -> tuple[StampArray, ValueArray]:
    """Poses of a geometry_msgs/PoseStamped topic.

    Returns:
        Stamps in nanoseconds, shape (n,), and rows x, y, z [m], qx, qy, qz, qw, shape (n, 7).
    """

    def row(message: Any) -> tuple[float, ...]:  # noqa: ANN401 - see BagMessage.decode
        point, quat = message.pose.position, message.pose.orientation
        return point.x, point.y, point.z, quat.x, quat.y, quat.z, quat.w

    return _read_rows(path, topic, row, 7)


def read_wrenches(path: Path | str, topic: str) -> tuple[StampArray, ValueArray]:
    """Wrenches of a geometry_msgs/WrenchStamped topic.

    Returns:
        Stamps in nanoseconds, shape (n,), and rows fx, fy, fz [N], tx, ty, tz [Nm], shape (n, 6).
    """

    def row(message: Any) -> tuple[float, ...]:  # noqa: ANN401 - see BagMessage.decode
        force, torque = message.wrench.force, message.wrench.torque
        return force.x, force.y, force.z, torque.x, torque.y, torque.z

    return _read_rows(path, topic, row, 6)


def read_channels(
    path: Path | str, topic: str, channels: Sequence[str]
) -> tuple[StampArray, ValueArray]:
    """Named channels of a sensor_msgs/JointState topic.

    Args:
        path: The bag.
        topic: Topic name.
        channels: Channels to read; one that a message lacks is NaN there.

    Returns:
        Stamps in nanoseconds, shape (n,), and one column per channel, shape (n, len(channels)).
    """

    def row(message: Any) -> tuple[float, ...]:  # noqa: ANN401 - see BagMessage.decode
        values = dict(zip(message.name, message.position, strict=True))
        return tuple(values.get(channel, np.nan) for channel in channels)

    return _read_rows(path, topic, row, len(channels))


def _read_rows(
    path: Path | str, topic: str, row: Callable[[Any], tuple[float, ...]], width: int
) -> tuple[StampArray, ValueArray]:
    stamps, rows = [], []
    for message in Bag(path).messages([topic]):
        stamps.append(message.time_ns)
        rows.append(row(message.decode()))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), width)
    return np.array(stamps, dtype=np.int64), values


def _header_stamp(raw: bytes) -> int | None:
    # The stamp comes first in a header, and the header first in a message, so it can be read
    # without decoding anything. Byte 1 of the encapsulation tells the byte order.
    if len(raw) < _ENCAPSULATION_BYTES + 8:
        return None
    sec, nanosec = _STAMP[raw[1] & 1].unpack_from(raw, _ENCAPSULATION_BYTES)
    return int(sec) * NS_PER_S + int(nanosec)
