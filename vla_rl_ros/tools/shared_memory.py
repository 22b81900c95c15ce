# SPDX-License-Identifier: Apache-2.0
"""Removes what killed processes of a run leave in /dev/shm, and nothing of anybody else.

A Fast DDS participant that is killed leaves its shared-memory segments behind, 32 MB each with our
profile. Each segment and port has a lock file that its living owner holds. Only files that this
run's processes had mapped, and whose lock is free, are removed.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterable
from pathlib import Path

SHM = Path("/dev/shm")
# Fast DDS 3 says fastdds_, earlier releases fastrtps_.
_MAPPED = re.compile(r"/dev/shm/(?:sem\.)?((?:fastdds|fastrtps)_[0-9a-z]+)(?:_mutex|_el|_sl)?$")


def mapped_segments(pids: Iterable[int]) -> set[str]:
    """Names of the Fast DDS segments and ports that processes have mapped now.

    Args:
        pids: Process ids; those that are gone are skipped.
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
    """Remove segments whose owner is dead.

    Args:
        names: Segment and port names from `mapped_segments`.
        folder: Where shared memory lives.

    Returns:
        Names that were removed.
    """
    removed = []
    for name in sorted(names):
        locks = [folder / f"{name}{suffix}" for suffix in ("_el", "_sl")]
        if any(_is_locked(lock) for lock in locks):
            continue
        files = [folder / name, folder / f"sem.{name}_mutex", *locks]
        # A participant that ended properly has removed its files itself.
        if sum(_remove(file) for file in files):
            removed.append(name)
    return removed


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
