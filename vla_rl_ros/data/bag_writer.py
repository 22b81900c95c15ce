# SPDX-License-Identifier: Apache-2.0
"""Writes one bag that `ros2 bag`, `rosbags`, `mcap` and Foxglove open. Knows no ROS at run time.

The bag grows in ``<name>.partial`` and is renamed to ``<name>`` when it is complete, so whoever
finds a bag under its own name finds all of it. A killed process loses what came after the last
flush; `data/recover.py` completes what it left. A power cut may cost more: nothing is fsynced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcap.writer import CompressionType, Writer

import vla_rl_ros
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.metadata import METADATA_FILE, BagSummary, BagTopic, metadata_yaml
from vla_rl_ros.data.record_file import MIB, RecordFile, check_free_space

PARTIAL_SUFFIX = ".partial"
COMPRESSIONS = ("none", "zstd")
_FREE_CHECK_PERIOD_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BagSettings:
    """How a bag is written.

    Attributes:
        compression: Of the chunks: ``none`` or ``zstd``.
        chunk_bytes: Size at which a chunk is closed and written.
        flush_period_s: Age at which it is written even when smaller. Bounds what a kill loses.
        start_free_bytes: Free space without which no bag is begun.
        stop_free_bytes: Free space below which `BagWriter.flush_if_due` raises.
    """

    compression: str = "zstd"
    chunk_bytes: int = 256 * 1024
    flush_period_s: float = 0.25
    start_free_bytes: int = 1024 * MIB
    stop_free_bytes: int = 256 * MIB


class BagWriter:
    """One bag being written. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        directory: Path,
        topics: Sequence[BagTopic],
        metadata: Mapping[str, Mapping[str, str]],
        settings: BagSettings | None = None,
        *,
        working_suffix: str = PARTIAL_SUFFIX,
    ) -> None:
        """Begin a bag.

        Args:
            directory: Final place; its name is the bag's. Must not exist.
            topics: All topics; each gets its channel, with or without messages.
            metadata: Records to write first, by name.
            settings: Compression, flushing and space limits.
            working_suffix: Appended to the name of the directory until `finish`.

        Raises:
            DiskFullError: Less than `start_free_bytes` are free.
            BagError: The directory exists, cannot be made, or the first write failed.
        """
        self._settings = settings or BagSettings()
        self._directory = directory
        self._topics = tuple(topics)
        self._counts = [0] * len(self._topics)
        self._start_ns = self._end_ns = 0
        self._num_messages = 0
        self._flushed_s = self._space_checked_s = float("-inf")
        self._working = directory.with_name(directory.name + working_suffix)
        self._path = self._working / f"{directory.name}_0.mcap"
        self._file = self._open_file()
        try:
            self._writer = _mcap_writer(self._file, self._settings)
            self._channels = self._register_topics()
            for name, values in metadata.items():
                self.add_metadata(name, values)
        except OSError as error:
            self.abort()
            raise BagError(f"cannot write {self._path}: {error}") from error
        except BagError:
            self.abort()
            raise

    def _open_file(self) -> RecordFile:
        if self._directory.exists():
            raise BagError(f"{self._directory} exists already")
        try:
            self._directory.parent.mkdir(parents=True, exist_ok=True)
            check_free_space(self._directory.parent, self._settings.start_free_bytes)
            self._working.mkdir()
            return RecordFile(self._path)
        except OSError as error:
            raise BagError(f"cannot begin a bag at {self._working}: {error}") from error

    def _register_topics(self) -> list[int]:
        schemas: dict[str, int] = {}
        channels = []
        self._writer.start(profile="ros2", library=f"vla_rl_ros {vla_rl_ros.__version__}")
        for topic in self._topics:
            if topic.type not in schemas:
                schemas[topic.type] = self._writer.register_schema(
                    name=topic.type, encoding="ros2msg", data=topic.schema.encode()
                )
            channels.append(
                self._writer.register_channel(
                    topic=topic.name,
                    message_encoding="cdr",
                    schema_id=schemas[topic.type],
                    metadata={"offered_qos_profiles": topic.qos},
                )
            )
        return channels

    @property
    def path(self) -> Path:
        """The MCAP file, at its place of the moment."""
        return self._path

    @property
    def num_messages(self) -> int:
        """Number of messages so far."""
        return self._num_messages

    @property
    def num_bytes(self) -> int:
        """Size of the file so far."""
        return self._file.tell()

    def write(
        self,
        topic_index: int,
        log_time_ns: int,
        publish_time_ns: int,
        data: bytes,
        sequence: int = 0,
    ) -> None:
        """Add one message.

        Args:
            topic_index: Index into the topics given at construction.
            log_time_ns: When it was received, nanoseconds since 1970.
            publish_time_ns: When it was published, nanoseconds since 1970.
            data: The CDR bytes as received; they are stored unchanged.
            sequence: The publisher's counter, 0 when unknown.

        Raises:
            BagError: The disk refused; only `abort` is useful afterwards.
        """
        try:
            self._writer.add_message(
                self._channels[topic_index], log_time_ns, data, publish_time_ns, sequence
            )
        except OSError as error:
            raise BagError(f"cannot write {self._path}: {error}") from error
        self._counts[topic_index] += 1
        if not self._num_messages or log_time_ns < self._start_ns:
            self._start_ns = log_time_ns
        if log_time_ns > self._end_ns:
            self._end_ns = log_time_ns
        self._num_messages += 1

    def flush_if_due(self, now_s: float) -> bool:
        """Hand everything to the operating system when `flush_period_s` has passed.

        Args:
            now_s: Monotonic time.

        Returns:
            Whether it was due.

        Raises:
            DiskFullError: Less than `stop_free_bytes` are free. `finish` still works.
            BagError: The disk refused.
        """
        if now_s - self._flushed_s < self._settings.flush_period_s:
            return False
        self._flushed_s = now_s
        self.flush()
        if now_s - self._space_checked_s >= _FREE_CHECK_PERIOD_S:
            self._space_checked_s = now_s
            check_free_space(self._directory.parent, self._settings.stop_free_bytes)
        return True

    def flush(self) -> None:
        """Close the chunk in progress and hand it to the operating system.

        Raises:
            BagError: The disk refused.
        """
        try:
            self._writer.flush()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise BagError(f"cannot write {self._path}: {error}") from error

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Add a metadata record; readers take the last one of a name.

        Raises:
            BagError: The disk refused.
        """
        try:
            self._writer.add_metadata(name, dict(values))
        except OSError as error:
            raise BagError(f"cannot write {self._path}: {error}") from error

    def finish(self) -> Path:
        """Write the index and `metadata.yaml` and give the directory its final name.

        Returns:
            The bag's directory.

        Raises:
            BagError: The disk refused; the messages so far stay in the working directory.
        """
        summary = BagSummary(
            counts=tuple(self._counts), start_ns=self._start_ns, end_ns=self._end_ns
        )
        try:
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._file.close()
            text = metadata_yaml(self._topics, summary, self._path.name)
            (self._working / METADATA_FILE).write_text(text, encoding="utf-8")
            self._working.rename(self._directory)
        except OSError as error:
            self._file.close()
            raise BagError(f"cannot finish {self._path}: {error}") from error
        self._path = self._directory / self._path.name
        return self._directory

    def abort(self) -> None:
        """Close the file as it is and leave it in the working directory; idempotent."""
        self._file.close()


def _mcap_writer(file: RecordFile, settings: BagSettings) -> Writer:
    if settings.compression not in COMPRESSIONS:
        raise BagError(f"compression '{settings.compression}' is not one of {COMPRESSIONS}")
    is_zstd = settings.compression == "zstd"
    compression = CompressionType.ZSTD if is_zstd else CompressionType.NONE
    return Writer(file, chunk_size=settings.chunk_bytes, compression=compression)  # type: ignore[arg-type]
