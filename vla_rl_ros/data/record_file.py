# SPDX-License-Identifier: Apache-2.0
"""The file under a bag: never half a record, never without warning on a full disk."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from vla_rl_ros.core.errors import BagError

MIB = 1024 * 1024


class DiskFullError(BagError):
    """Too little space is left; the bag so far can still be finished."""


class RecordFile:
    """Unbuffered file that always ends at a record boundary, also after a failed write.

    The MCAP writer hands over whole records per call, a chunk at a time, so a buffer in between
    would only add a copy, and would keep data that a kill loses.
    """

    def __init__(self, path: Path) -> None:
        """Create the file and lock it.

        Args:
            path: Must not exist.
        """
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        # Released by the kernel however the process ends; tells a repair whether somebody writes.
        # A file system without locks costs that warning, not the recording.
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._position = 0

    def write(self, data: bytes) -> int:
        """Append whole records; on OSError the file is as it was before."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._position)
            raise
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        """Size so far."""
        return self._position

    def flush(self) -> None:
        """Nothing to do: nothing is held back."""

    def close(self) -> None:
        """Close and unlock; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check_free_space(directory: Path, limit_bytes: int) -> None:
    """Refuse a disk that is nearly full.

    Raises:
        DiskFullError: Less than `limit_bytes` are free where `directory` is.
    """
    free = shutil.disk_usage(directory).free
    if free < limit_bytes:
        raise DiskFullError(
            f"{free // MIB} MiB left for bags in {directory}, {limit_bytes // MIB} MiB required"
        )
