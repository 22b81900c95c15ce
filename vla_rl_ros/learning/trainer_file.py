# SPDX-License-Identifier: Apache-2.0
"""What a trainer that can be interrupted keeps in a file, and whether it may go on from it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError

# Nothing is pickled here: this is how torch says that a file is not one of plain tensors.
_UNREADABLE = (OSError, RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError)


@contextmanager
def continuing(path: Path) -> Iterator[None]:
    """Whatever is wrong with the file inside the block becomes one sentence.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        yield
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(f"{path}: cannot be continued, delete it: {error}") from error


def check_same(
    path: Path, theirs: Mapping[str, object], ours: Mapping[str, object], *others: str
) -> None:
    """Refuse to go on under other settings.

    Args:
        path: Of the file, for the sentence.
        theirs: Settings the file was begun with.
        ours: Present settings.
        others: Whatever else differs, in words.

    Raises:
        ConfigError: Names what differs.
    """
    different = [f"{k}={theirs.get(k)}" for k in ours if theirs.get(k) != ours[k]]
    different += others
    if different:
        raise ConfigError(
            f"{path} was begun with {', '.join(different)}: use the same or another --out"
        )
