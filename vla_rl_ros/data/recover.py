# SPDX-License-Identifier: Apache-2.0
"""Completes bags whose writer was killed, and those that were damaged since.

Everything up to the last complete message is copied into a new file with an index, chunks that
do not fit their checksum left out, and `metadata.yaml` is written. The original goes only after
the new bag stands under its final name, so the repair itself may be killed at any time and started
again.
"""

from __future__ import annotations

import fcntl
import shutil
from dataclasses import dataclass
from pathlib import Path

from mcap.records import Channel, Message, Metadata, Schema

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_reader import find_mcap
from vla_rl_ros.data.bag_writer import PARTIAL_SUFFIX, BagSettings, BagWriter
from vla_rl_ros.data.mcap_scan import ScanResult, is_sealed, refuse_wrong_index, scan
from vla_rl_ros.data.metadata import METADATA_FILE, BagSummary, BagTopic, metadata_yaml

WORKING_SUFFIX = ".recovering"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverResult:
    """What a repair did.

    Attributes:
        directory: The complete bag.
        num_messages: Messages in it.
        num_cut_bytes: Bytes at the end of the original that belonged to no complete record.
        num_damaged_chunks: Chunks that had to be left out.
        was_complete: The bag was whole already; nothing was changed.
    """

    directory: Path
    num_messages: int
    num_cut_bytes: int = 0
    num_damaged_chunks: int = 0
    was_complete: bool = False


@dataclass(slots=True)
class _Content:
    """What a scan found: channels in order of registration, metadata, counts and times."""

    schemas: dict[int, Schema]
    channels: dict[int, Channel]
    metadata: list[Metadata]
    counts: dict[int, int]
    start_ns: int = 0
    end_ns: int = 0

    def topics(self) -> list[BagTopic]:
        return [
            BagTopic(
                name=channel.topic,
                type=self.schemas[channel.schema_id].name,
                schema=self.schemas[channel.schema_id].data.decode(),
                qos=channel.metadata.get("offered_qos_profiles", ""),
            )
            for channel in self.channels.values()
        ]

    def summary(self) -> BagSummary:
        counts = tuple(self.counts[channel_id] for channel_id in self.channels)
        return BagSummary(counts=counts, start_ns=self.start_ns, end_ns=self.end_ns)


def recover(path: Path) -> RecoverResult:
    """Complete a bag; does nothing to one that is complete and fits its checksums.

    Args:
        path: Directory of the bag, with or without the suffix ``.partial``.

    Raises:
        BagError: There is no MCAP file in it or not that alone, it is still being written or too
            damaged (`scan`), or the disk refused.
    """
    final, source = _locate(path)
    mcap = find_mcap(source)
    _refuse_open_file(mcap)
    result = ScanResult()
    content = _read_content(mcap, result)
    num_messages = sum(content.counts.values())
    if source == final and _is_whole(mcap, result):
        was_complete = (final / METADATA_FILE).is_file()
        if not was_complete:
            _refuse_others(source, mcap)
            _write_metadata(final, content, mcap.name)
        return RecoverResult(directory=final, num_messages=num_messages, was_complete=was_complete)
    if result.num_damaged_chunks and not num_messages:
        # Perhaps it is only compressed in a way that is not known here.
        raise BagError(f"{mcap}: no chunk of it can be read, it stays as it is")
    _refuse_others(source, mcap)
    if source == final:
        source = final.rename(final.with_name(final.name + PARTIAL_SUFFIX))
        mcap = source / mcap.name
    _copy(mcap, final, content, result)
    shutil.rmtree(source)
    return RecoverResult(
        directory=final,
        num_messages=num_messages,
        num_cut_bytes=result.num_cut_bytes,
        num_damaged_chunks=result.num_damaged_chunks,
    )


def _is_whole(mcap: Path, result: ScanResult) -> bool:
    if not is_sealed(mcap) or result.num_damaged_chunks:
        return False
    try:
        refuse_wrong_index(mcap)
    except BagError:
        return False
    return True


def recover_all(directory: Path) -> list[RecoverResult]:
    """Complete every ``*.partial`` bag in a directory; none of them may still be written.

    Raises:
        BagError: Some could not be completed; the others are.
    """
    results, refusals = [], []
    for path in sorted(directory.glob(f"*{PARTIAL_SUFFIX}")):
        try:
            results.append(recover(path))
        except (BagError, OSError) as error:  # noqa: PERF203 - the others are completed all the same
            refusals.append(str(error))
    if refusals:
        raise BagError("; ".join(refusals))
    return results


def _locate(path: Path) -> tuple[Path, Path]:
    """Final directory of a bag and the directory that holds its file now."""
    path = path.parent if path.is_file() else path
    path = path.resolve()
    final = path.with_name(path.name.removesuffix(PARTIAL_SUFFIX))
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    if final.is_dir():
        if partial.is_dir() and is_sealed(find_mcap(final)):
            # An earlier repair was killed between its last two steps.
            shutil.rmtree(partial)
        return final, final
    if not partial.is_dir():
        raise BagError(f"{path} is not a bag")
    return final, partial


def _refuse_open_file(mcap: Path) -> None:
    with mcap.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise BagError(f"{mcap} is still being written") from error


def _refuse_others(source: Path, mcap: Path) -> None:
    """Refuse a folder that would be replaced with more in it than a bag, perhaps other bags."""
    own = (mcap.name, METADATA_FILE, f"{METADATA_FILE}{WORKING_SUFFIX}")
    others = sorted(path.name for path in source.iterdir() if path.name not in own)
    if others:
        raise BagError(
            f"{source} holds {others[0]} beside {mcap.name}: give that file a folder of its own"
        )


def _read_content(mcap: Path, result: ScanResult) -> _Content:
    content = _Content(schemas={}, channels={}, metadata=[], counts={})
    for record in scan(mcap, result):
        if isinstance(record, Message):
            first = not content.end_ns
            content.counts[record.channel_id] += 1
            content.start_ns = record.log_time if first else min(content.start_ns, record.log_time)
            content.end_ns = max(content.end_ns, record.log_time)
        elif isinstance(record, Channel):
            content.channels[record.id] = record
            content.counts.setdefault(record.id, 0)
        elif isinstance(record, Schema):
            content.schemas[record.id] = record
        elif isinstance(record, Metadata):
            content.metadata.append(record)
    return content


def _copy(mcap: Path, final: Path, content: _Content, result: ScanResult) -> None:
    shutil.rmtree(final.with_name(final.name + WORKING_SUFFIX), ignore_errors=True)
    # A repair adds no more than it removes afterwards, so the space limits do not apply.
    settings = BagSettings(start_free_bytes=0, stop_free_bytes=0)
    writer = BagWriter(
        final, content.topics(), {}, settings=settings, working_suffix=WORKING_SUFFIX
    )
    try:
        for metadata in content.metadata:
            writer.add_metadata(metadata.name, metadata.metadata)
        report = {
            "num_cut_bytes": str(result.num_cut_bytes),
            "num_damaged_chunks": str(result.num_damaged_chunks),
        }
        writer.add_metadata("recovery", report)
        index_of = {channel_id: index for index, channel_id in enumerate(content.channels)}
        for record in scan(mcap):
            if isinstance(record, Message):
                index = index_of[record.channel_id]
                times = (record.log_time, record.publish_time)
                writer.write(index, *times, record.data, record.sequence)
        writer.finish()
    finally:
        writer.abort()


def _write_metadata(directory: Path, content: _Content, file_name: str) -> None:
    text = metadata_yaml(content.topics(), content.summary(), file_name)
    working = directory / f"{METADATA_FILE}{WORKING_SUFFIX}"
    try:
        working.write_text(text, encoding="utf-8")
        working.replace(directory / METADATA_FILE)
    except OSError as error:
        raise BagError(f"cannot write {directory / METADATA_FILE}: {error}") from error
