# SPDX-License-Identifier: Apache-2.0
"""Deals with what killed processes of a run leave in /dev/shm, and with nothing of anybody else.

A Fast DDS participant that is killed leaves its shared-memory segments behind, 32 MB each with our
profile, and the ports it listened on. Each segment and port has a lock file that its living owner
holds. Whoever wants to touch one must hold that lock himself until he is done: a lock that is only
looked at may be taken by a new owner before the file is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from vla_rl_ros.ros.unborn_ports import SHM

# Fast DDS 3 says fastdds_, earlier releases fastrtps_.
_MAPPED = re.compile(r"/dev/shm/(?:sem\.)?((?:fastdds|fastrtps)_[0-9a-z]+)(?:_mutex|_el|_sl)?$")
# Fast DDS tries a hundred ports before it gives up.
_MAX_KEPT = 40


def mapped_segments(pids: Iterable[int]) -> set[str]:
    """Names of the Fast DDS segments and ports that processes have mapped now.

    Args:
        pids: Process ids; those that are gone or not ours are skipped.
    """
    names: set[str] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found = (_MAPPED.search(line.removesuffix(" (deleted)")) for line in lines)
        names.update(match.group(1) for match in found if match)
    return names


def remove_dead(names: Iterable[str], folder: Path = SHM) -> list[str]:
    """Remove segments and ports that no living process owns or, without an owner, has mapped.

    Args:
        names: Segment and port names from `mapped_segments`.
        folder: Where shared memory lives.

    Returns:
        Names that were removed.
    """
    there = [name for name in sorted(names) if any(map(os.path.lexists, _files(name, folder)))]
    # Writers make a port again when its reader is dead; it has no lock then, and a new reader
    # joins them there.
    free = [name for name in there if not any(map(os.path.lexists, _locks(name, folder)))]
    used = mapped_segments(_all_pids()) if free else set()
    return [name for name in there if name not in used and _remove(name, folder)]


class DeadPorts:
    """Ports of dead processes, kept from being opened again.

    A writer that knew the dead reader may go on writing into the dead reader's memory for ever
    (Fast DDS notices a reader that died waiting, but not one that died awake). Who opens a port of
    the same number gets new memory and hears nothing from that writer: a process that was started
    again would never be answered. Where the lock of the dead reader is held, Fast DDS moves on to
    the next number, and says ``open_and_lock_file failed``.
    """

    def __init__(self, folder: Path = SHM) -> None:
        """Keep nothing yet.

        Args:
            folder: Where shared memory lives.
        """
        self._folder = folder
        self._locks: OrderedDict[str, int] = OrderedDict()

    def keep(self, names: Iterable[str]) -> list[str]:
        """Take the locks of ports whose reader is dead; of many, the oldest are let go.

        Args:
            names: What a dead process had mapped; what the living own is left alone.

        Returns:
            Ports that were not kept before.
        """
        kept = []
        for name in sorted(set(names) - set(self._locks)):
            # Other segments have names that nobody gets again.
            lock = _lock(self._folder / f"{name}_el") if "_port" in name else None
            if lock is not None:
                self._locks[name] = lock
                kept.append(name)
        while len(self._locks) > _MAX_KEPT:
            os.close(self._locks.popitem(last=False)[1])
        return kept

    def release(self) -> None:
        """Let go of all; may be called again."""
        while self._locks:
            os.close(self._locks.popitem()[1])


def _files(name: str, folder: Path) -> list[Path]:
    """Files of a segment, the locks last: until they go nobody else begins with the rest."""
    return [folder / name, folder / f"sem.{name}_mutex", *_locks(name, folder)]


def _locks(name: str, folder: Path) -> list[Path]:
    return [folder / f"{name}{suffix}" for suffix in ("_el", "_sl")]


def _remove(name: str, folder: Path) -> bool:
    with contextlib.ExitStack() as stack:
        for path in filter(os.path.lexists, _locks(name, folder)):
            lock = _lock(path)
            if lock is None:
                return False
            stack.callback(os.close, lock)
        for path in _files(name, folder):
            with contextlib.suppress(OSError):
                path.unlink()
    return True


def _lock(path: Path) -> int | None:
    """Descriptor that holds the lock of a file; None where somebody else does, or without it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another file may have taken its place in between, with a lock of its own.
        is_same = os.fstat(lock).st_ino == path.stat().st_ino
    except OSError:
        is_same = False
    if not is_same:
        os.close(lock)
        return None
    return lock


def _all_pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
