# SPDX-License-Identifier: Apache-2.0
"""Rows on disk: append-only, mapped into memory, every block with a checksum.

A directory holds ``layout.json``, ``rows.bin`` (rows, one after the other) and ``blocks.bin`` (one
entry per `RowLog.append`: how many rows, their checksum). Rows are written before their entry: a
process that is killed at any byte leaves exactly the rows behind whose append had returned, and at
most one whole block more. What follows the last whole entry was never acknowledged and is cut off;
a wrong checksum before that is damage, and is named. Called by `replay`.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.learning.rows import RowArray, RowLayout

_FORMAT = 1
_LAYOUT_FILE = "layout.json"
_MAGIC = b"VLR1"
_ENTRY = struct.Struct("<4sIQI")  # magic, number of rows, index of the first, checksum of the rows
_SUM = struct.Struct("<I")  # checksum of the entry
_ENTRY_BYTES = _ENTRY.size + _SUM.size
_FIRST_CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one append, or of neighbouring ones whose entries are damaged.

    Attributes:
        entry: Number of its entry in the file, of the first one where there are several.
        first: Index of the first row.
        count: Number of rows.
        is_sound: Whether the checksum fits.
    """

    entry: int
    first: int
    count: int
    is_sound: bool = True


class RowLog:
    """One writer's rows; opening continues where an earlier process stopped.

    Attributes:
        directory: Where the files lie.
        layout: Of the rows.
    """

    def __init__(
        self,
        directory: Path,
        layout: RowLayout,
        *,
        sync: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        """Open or create, and check every checksum.

        Args:
            directory: Created if missing.
            layout: Must be the one the rows were written with.
            sync: Return from `append` only when the rows are on the disk itself, so that they
                survive a power cut; without it they survive the end of the process.
            skip_damaged: Keep what is sound of a damaged log instead of refusing it.

        Raises:
            ReplayError: Damage, named by file, block and rows; or another process writes here.
            ConfigError: Another layout; names the field.
        """
        self.directory = directory
        self.layout = layout
        self._sync = sync
        self._blocks: list[Block] = []
        self._num_entries = self._count = self._capacity = 0
        self._map: RowArray = np.empty(0, layout.dtype)
        directory.mkdir(parents=True, exist_ok=True)
        self._entries_fd = os.open(directory / "blocks.bin", os.O_RDWR | os.O_CREAT, 0o644)
        self._rows_fd = os.open(directory / "rows.bin", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock()
            _check_layout(directory / _LAYOUT_FILE, layout)
            self._open(skip_damaged=skip_damaged)
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """Rows acknowledged so far."""
        return self._count

    @property
    def rows(self) -> RowArray:
        """All rows, mapped read-only; a new view after each `append`."""
        return self._map[: self._count]

    @property
    def damaged(self) -> list[Block]:
        """Blocks whose rows are not to be used."""
        return [block for block in self._blocks if not block.is_sound]

    def append(self, rows: RowArray) -> int:
        """Write rows; they are safe when this returns.

        Args:
            rows: Of the log's layout, shape (n,).

        Returns:
            Number of rows in the log.

        Raises:
            ReplayError: Another layout, or the disk refused; then nothing was added.
        """
        if rows.dtype != self.layout.dtype:
            raise ReplayError(f"{self.directory}: rows of another layout than {self.layout}")
        if not len(rows):
            return self._count
        data = np.ascontiguousarray(rows).tobytes()
        entry = _ENTRY.pack(_MAGIC, len(rows), self._count, zlib.crc32(data))
        try:
            self._reserve(self._count + len(rows))
            _write(self._rows_fd, data, self._count * self.layout.dtype.itemsize)
            if self._sync:
                os.fdatasync(self._rows_fd)
            # Appended as one piece after its rows: whoever finds it finds them.
            end = self._num_entries * _ENTRY_BYTES
            _write(self._entries_fd, entry + _SUM.pack(zlib.crc32(entry)), end)
            if self._sync:
                os.fdatasync(self._entries_fd)
        except OSError as error:
            os.ftruncate(self._entries_fd, self._num_entries * _ENTRY_BYTES)
            raise ReplayError(f"{self.directory}: {len(rows)} rows not stored: {error}") from error
        self._blocks.append(Block(self._num_entries, self._count, len(rows)))
        self._num_entries += 1
        self._count += len(rows)
        return self._count

    def rewind(self, count: int) -> None:
        """Forget the rows from `count` on, so that a run can be repeated from its snapshot.

        Raises:
            ReplayError: No append ended there.
        """
        kept = [block for block in self._blocks if block.first + block.count <= count]
        reached = kept[-1].first + kept[-1].count if kept else 0
        if reached != count:
            raise ReplayError(
                f"{self.directory}: cannot go back to {count} of {self._count} rows, "
                "no append ended there"
            )
        if len(kept) < len(self._blocks):
            self._num_entries = self._blocks[len(kept)].entry
        os.ftruncate(self._entries_fd, self._num_entries * _ENTRY_BYTES)
        self._blocks, self._count = kept, count

    def close(self) -> None:
        """Unlock and give spare room back; idempotent."""
        if self._rows_fd < 0:
            return
        if self._capacity > self._count:
            self._map = self._map[:0].copy()
            os.ftruncate(self._rows_fd, self._count * self.layout.dtype.itemsize)
        os.close(self._rows_fd)
        os.close(self._entries_fd)
        self._rows_fd = self._entries_fd = -1

    def _lock(self) -> None:
        try:
            # Released by the kernel however the process ends.
            fcntl.flock(self._entries_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReplayError(f"{self.directory}: another process writes here") from error

    def _open(self, *, skip_damaged: bool) -> None:
        self._num_entries = os.fstat(self._entries_fd).st_size // _ENTRY_BYTES
        size = self._num_entries * _ENTRY_BYTES
        # What is left of an entry that was never finished.
        os.ftruncate(self._entries_fd, size)
        found = _parse(os.pread(self._entries_fd, size, 0))
        self._count = found[-1][0].first + found[-1][0].count if found else 0
        self._reserve(self._count)
        for block, checksum in found:
            rows = self._map[block.first : block.first + block.count]
            is_sound = block.is_sound and zlib.crc32(rows.tobytes()) == checksum
            self._blocks.append(replace(block, is_sound=is_sound))
        if self.damaged and not skip_damaged:
            raise ReplayError(self._damage())

    def _damage(self) -> str:
        named = "; ".join(
            f"block {block.entry} (rows from {block.first}, {block.count or '?'} of them)"
            for block in self.damaged
        )
        return (
            f"{self.directory / 'rows.bin'}: the checksum is wrong in {named}. Restore the files, "
            "or open with skip_damaged=True to go on with the other rows"
        )

    def _reserve(self, count: int) -> None:
        """Map room for `count` rows; the file grows by doubling, as holes that cost nothing."""
        if count <= self._capacity:
            return
        capacity = max(_FIRST_CAPACITY, 2 * self._capacity, count)
        num_bytes = capacity * self.layout.dtype.itemsize
        os.ftruncate(self._rows_fd, num_bytes)
        mapped = mmap.mmap(self._rows_fd, num_bytes, access=mmap.ACCESS_READ)
        self._map = np.frombuffer(mapped, self.layout.dtype)
        self._capacity = capacity


def _parse(data: bytes) -> list[tuple[Block, int]]:
    """Blocks and checksums of their rows; an unreadable entry stands for the rows in between."""
    found: list[tuple[Block, int]] = []
    lost, reached = 0, 0
    for number, offset in enumerate(range(0, len(data), _ENTRY_BYTES)):
        entry = data[offset : offset + _ENTRY.size]
        magic, count, first, checksum = _ENTRY.unpack(entry)
        (entry_sum,) = _SUM.unpack_from(data, offset + _ENTRY.size)
        if magic != _MAGIC or zlib.crc32(entry) != entry_sum or first < reached:
            lost += 1
            continue
        if lost or first > reached:
            found.append((Block(number - lost, reached, first - reached, is_sound=False), 0))
            lost = 0
        found.append((Block(number, first, count), checksum))
        reached = first + count
    if lost:
        found.append((Block(len(data) // _ENTRY_BYTES - lost, reached, 0, is_sound=False), 0))
    return found


def read_layout(directory: Path) -> RowLayout | None:
    """Layout of the rows in a directory, None where there are none.

    Raises:
        ConfigError: It is damaged.
    """
    path = directory / _LAYOUT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        del values["format"]
        return RowLayout(**{**values, "reward_terms": tuple(values["reward_terms"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error


def _check_layout(path: Path, layout: RowLayout) -> None:
    """Compare with the layout of earlier processes, or note this one.

    Raises:
        ConfigError: Names the fields that differ.
    """
    ours = {key: value for key, value in asdict(layout).items() if key != "dtype"}
    ours = {"format": _FORMAT, **ours, "reward_terms": list(layout.reward_terms)}
    if not path.exists():
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(ours), encoding="utf-8")
        unfinished.replace(path)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    different = [f"{key}={theirs.get(key)!r}" for key in ours if theirs.get(key) != ours[key]]
    if different:
        raise ConfigError(
            f"{path.parent} holds rows with {', '.join(different)}: use another directory, "
            f"or the settings they were recorded with instead of {ours}"
        )


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
