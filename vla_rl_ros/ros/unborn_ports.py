# SPDX-License-Identifier: Apache-2.0
"""Removes shared-memory ports of Fast DDS whose maker was killed before they were whole.

Whoever opens such a port waits for its maker for ever and without a word, so not one more node
starts on this machine, of whatever graph. To be called before `rclpy.init`.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

SHM = Path("/dev/shm")
# Fast DDS 3 says fastdds_, earlier releases fastrtps_.
_PORT = re.compile(r"(?:fastdds|fastrtps)_port\d+")
# ``InitializedSegment`` or ``CorruptedSegment`` of boost.interprocess, the first word of a segment
# that nobody waits for.
_WHOLE = (2, 3)
# Milliseconds are enough to make one; a machine may be busy.
_BIRTH_S = 10.0


def remove_unborn_ports(folder: Path = SHM, now_s: float | None = None) -> list[str]:
    """Remove such ports and say so on stderr, or what to do where that is not permitted.

    Args:
        folder: Where shared memory lives.
        now_s: Seconds since the epoch, as files are stamped; None for the present.

    Returns:
        Names of the ports that were removed.
    """
    now_s = time.time() if now_s is None else now_s
    removed = []
    for path in sorted(folder.glob("fast*_port*")):
        if not _PORT.fullmatch(path.name):
            continue
        files = [path, folder / f"sem.{path.name}_mutex"]
        try:
            is_removed = _remove_unborn(files, now_s)
        except OSError as error:
            names = " ".join(map(str, files))
            _say(f"{path} is half made, no ROS node can start: rm {names} ({error})")
            continue
        if is_removed:
            _say(f"removed {path}, which a process that was killed had left half made")
            removed.append(path.name)
    return removed


def _remove_unborn(files: Sequence[Path], now_s: float) -> bool:
    path = files[0]
    try:
        port = path.open("rb")
    except OSError:  # gone meanwhile, or not ours to read
        return False
    with port:
        if not _is_unborn(port, now_s):
            return False
        # The processes of a graph start together: who comes second must not remove what the first
        # one has made in its place.
        fcntl.flock(port, fcntl.LOCK_EX)
        try:
            is_same = os.path.samestat(os.fstat(port.fileno()), path.stat())
        except FileNotFoundError:
            is_same = False
        if is_same:
            for file in files:
                file.unlink(missing_ok=True)
        return is_same


def _is_unborn(port: BinaryIO, now_s: float) -> bool:
    state = int.from_bytes(port.read(4), sys.byteorder)
    return now_s - os.fstat(port.fileno()).st_mtime > _BIRTH_S and state not in _WHOLE


def _say(sentence: str) -> None:
    sys.stderr.write(f"[ros] {sentence}\n")
