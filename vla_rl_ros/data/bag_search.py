# SPDX-License-Identifier: Apache-2.0
"""Finds bags for every command that takes them: one itself, or folders with bags at any depth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_writer import PARTIAL_SUFFIX
from vla_rl_ros.data.metadata import METADATA_FILE
from vla_rl_ros.data.recover import WORKING_SUFFIX


def find_bags(
    paths: Iterable[Path], left_out: Callable[[BagError], object] | None = None
) -> list[Path]:
    """Bags in the order in which they were named, those of a folder by name, each one once.

    A folder with metadata.yaml, with MCAP files of its own name or with one alone is a bag, and
    nothing below it is another. Any other MCAP file is one itself, whatever lies beside it. A bag
    that was cut off is found by the name that it would have.

    Args:
        paths: Bags, their files, or folders with bags at any depth; links are followed.
        left_out: Told of a folder below that cannot be looked into, which is then passed over;
            without it that ends the search.

    Returns:
        Folders, or files where these were named or lie side by side.

    Raises:
        BagError: Something is not there or cannot be looked into, or a folder holds no bag.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        bags = list(_bags_in(_existing(path), left_out))
        if not bags:
            raise BagError(f"no bag in {path} or a folder below it: none holds a file *.mcap")
        for bag in bags:
            # The same one by its folder and by its file.
            found.setdefault(next(bag.glob("*.mcap"), bag).resolve(), bag)
    return list(found.values())


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    cut_off = path.with_name(path.name + PARTIAL_SUFFIX)
    if cut_off.exists():
        return cut_off
    raise BagError(f"{path}: there is no such file or folder")


def _bags_in(path: Path, left_out: Callable[[BagError], object] | None) -> Iterator[Path]:
    if path.is_file():
        yield path
        return

    def pass_over(error: OSError) -> None:
        refusal = BagError(f"{error.filename} cannot be looked into: {error.strerror}")
        if left_out is None or Path(error.filename) == path:
            raise refusal from error
        left_out(refusal)

    # Links may lead back to where the search comes from.
    visited: set[Path] = set()
    for name, below, files in os.walk(path, followlinks=True, onerror=pass_over):
        folder = Path(name)
        recordings = sorted(file for file in files if file.endswith(".mcap"))
        is_bag = bool(recordings) and (not below or _are_own(folder, files, recordings))
        if is_bag and len(recordings) == 1:
            yield folder
        else:
            yield from map(folder.joinpath, recordings)
        is_last = is_bag or folder.resolve() in visited
        visited.add(folder.resolve())
        below[:] = [] if is_last else sorted(n for n in below if not n.endswith(WORKING_SUFFIX))


def _are_own(folder: Path, files: Iterable[str], recordings: Iterable[str]) -> bool:
    """Whether recordings are the folder's, and do not just lie beside others."""
    own = f"{folder.resolve().name.removesuffix(PARTIAL_SUFFIX)}_"
    return METADATA_FILE in files or all(name.startswith(own) for name in recordings)
