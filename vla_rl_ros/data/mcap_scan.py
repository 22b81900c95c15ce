# SPDX-License-Identifier: Apache-2.0
"""Reads the records of an MCAP file from front to back, also when its end is missing.

The readers of the `mcap` package either need the index at the end of the file or take a record
that was cut off for a shorter one; after a kill neither will do.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError, UnsupportedCompressionError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import get_chunk_data_stream

from vla_rl_ros.core.errors import BagError

_MAGIC = b"\x89MCAP0\r\n"
_HEADER = struct.Struct("<BQ")
_FOOTER = struct.Struct("<BQQQI")
_CHUNK_PREFIX = struct.Struct("<QQQI")
# How reading a record whose bytes have changed ends: of texts, lengths, sizes and checksums.
_DAMAGE = (
    McapError, zstandard.ZstdError, struct.error, RuntimeError, ValueError, OverflowError,
    MemoryError,
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class ScanResult:
    """What a scan found out about the file besides its records.

    Attributes:
        is_sealed: The file has its index and closing magic.
        num_cut_bytes: Bytes at the end that belong to no complete record.
        num_damaged_chunks: Chunks whose frame, checksum or compression is wrong.
    """

    is_sealed: bool = False
    num_cut_bytes: int = 0
    num_damaged_chunks: int = 0


def is_sealed(path: Path) -> bool:
    """Whether the file ends as a completely written MCAP file does."""
    if path.stat().st_size < 2 * len(_MAGIC):
        return False
    with path.open("rb") as file:
        file.seek(-len(_MAGIC), io.SEEK_END)
        return file.read() == _MAGIC


def refuse_wrong_index(path: Path) -> None:
    """Compare the index of a sealed file with its checksum, where it has one.

    Readers of the `mcap` package believe the index, and miss messages where it is damaged.

    Raises:
        BagError: There is no index, or it does not fit.
    """
    end = path.stat().st_size - _FOOTER.size - len(_MAGIC)
    if end < len(_MAGIC):
        raise BagError(f"{path} has no index")
    with path.open("rb") as file:
        file.seek(end)
        footer = file.read(_FOOTER.size)
        opcode, _, begin, _, expected = _FOOTER.unpack(footer)
        if opcode != Opcode.FOOTER or not 0 < begin <= end:
            raise BagError(f"{path} has no index")
        file.seek(begin)
        # Of everything before the checksum, the footer's own fields included.
        found = zlib.crc32(file.read(end - begin) + footer[:-4]) if expected else 0
    if found != expected:
        raise BagError(f"{path} is damaged: its index does not fit its checksum")


def scan(path: Path, result: ScanResult | None = None) -> Iterator[McapRecord]:
    """Yield the schemas, channels, messages and metadata of the data section in file order.

    Messages of a chunk that was cut off are yielded as far as they are complete. A channel comes
    after its schema and a message after its channel.

    Args:
        path: The MCAP file.
        result: Filled in while scanning.

    Raises:
        BagError: The file is not MCAP, or so damaged that nobody knows what its messages are.
    """
    result = result if result is not None else ScanResult()
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise BagError(f"{path} is not an MCAP file")
        with damage_told(path):
            yield from _explained(_scan_records(file, size, result))
    result.is_sealed = is_sealed(path)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Reading within stops at damage with a `BagError` that names the file."""
    try:
        yield
    except BagError:
        raise
    except UnsupportedCompressionError as error:
        raise BagError(f"{path} cannot be read: {error}") from error
    except LookupError as error:
        raise BagError(f"{path} is damaged: its index lacks {error}") from error
    except _DAMAGE as error:
        raise BagError(f"{path} is damaged: {str(error) or 'a record ends early'}") from error


def _explained(records: Iterator[McapRecord]) -> Iterator[McapRecord]:
    """Pass records on until one belongs to another that was lost."""
    schemas, channels = set(), set()
    for record in records:
        if isinstance(record, Schema):
            record.data.decode()
            schemas.add(record.id)
        elif isinstance(record, Channel):
            if record.schema_id not in schemas:
                raise ValueError(f"the type of {record.topic} is missing")
            channels.add(record.id)
        elif isinstance(record, Message) and record.channel_id not in channels:
            raise ValueError(f"the topic of channel {record.channel_id} is missing")
        yield record


def _scan_records(file: BinaryIO, size: int, result: ScanResult) -> Iterator[McapRecord]:
    while True:
        left = size - file.tell()
        if left < _HEADER.size:
            result.num_cut_bytes = left
            return
        opcode, length = _HEADER.unpack(file.read(_HEADER.size))
        if opcode == Opcode.DATA_END:
            return
        if length > left - _HEADER.size:
            result.num_cut_bytes = left
            if opcode == Opcode.CHUNK:
                yield from _records_of_cut_chunk(file.read())
            return
        if opcode == Opcode.CHUNK:
            yield from _records_of_chunk(file.read(length), result)
        elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.METADATA):
            yield from _records(_HEADER.pack(opcode, length) + file.read(length))
        else:
            file.seek(length, io.SEEK_CUR)


def _records_of_chunk(body: bytes, result: ScanResult) -> Iterator[McapRecord]:
    try:
        chunk = Chunk.read(ReadDataStream(io.BytesIO(body)))
        stream, length = get_chunk_data_stream(chunk, validate_crc=True)
    except _DAMAGE:
        result.num_damaged_chunks += 1
        return
    yield from _records(stream.read(length))


def _records_of_cut_chunk(body: bytes) -> Iterator[McapRecord]:
    # Layout: start, end, uncompressed size, checksum, name of the compression, length, records.
    offset = _CHUNK_PREFIX.size
    if len(body) < offset + 4:
        return
    (name_length,) = struct.unpack_from("<I", body, offset)
    name = body[offset + 4 : offset + 4 + name_length].decode("ascii", "replace")
    yield from _records(_decompress_start(name, body[offset + 4 + name_length + 8 :]))


def _decompress_start(compression: str, data: bytes) -> bytes:
    if not compression:
        return data
    if compression != "zstd":
        return b""
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return b""


def _records(data: bytes) -> Iterator[McapRecord]:
    """Records of a run of bytes; the last one is left out unless it is complete."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        opcode, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if offset + length > len(data):
            return
        stream = ReadDataStream(io.BytesIO(data[offset : offset + length]))
        offset += length
        if opcode == Opcode.MESSAGE:
            yield Message.read(stream, length)
        elif opcode == Opcode.CHANNEL:
            yield Channel.read(stream)
        elif opcode == Opcode.SCHEMA:
            yield Schema.read(stream)
        elif opcode == Opcode.METADATA:
            yield Metadata.read(stream)
