# SPDX-License-Identifier: Apache-2.0
"""Demonstrations on disk: collected once by a few processes, continued after an interruption."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.base_data import DemoSet, joined
from vla_rl_ros.learning.base_episodes import collect_shard
from vla_rl_ros.learning.base_relays import collect_relay_shard
from vla_rl_ros.learning.base_scene import VaryingCells
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings
from vla_rl_ros.sim.offscreen import use_offscreen_rendering
from vla_rl_ros.sim.scene_ids import CAMERAS


def collect(
    directory: Path,
    *,
    seed: int,
    num_shards: int,
    num_processes: int,
    driver: Path | None = None,
) -> None:
    """Collect the shards that are not there yet, with a progress bar.

    Args:
        directory: Made if it is missing.
        seed: Of the data set.
        num_shards: Number of files.
        num_processes: Simulators side by side; does not change the data.
        driver: Checkpoint of the policy that drives first in relays; None for demonstrations.
    """
    from tqdm import tqdm

    directory.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(num_shards) if not _path(directory, seed, i).exists()]
    progress = tqdm(
        total=num_shards, initial=num_shards - len(missing), desc=directory.name, unit="shard"
    )
    use_offscreen_rendering()
    # Spawned, because a renderer does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with progress, ProcessPoolExecutor(max(1, num_processes), mp_context=context) as pool:
        for _ in pool.map(functools.partial(_collect_one, directory, seed, driver), missing):
            progress.update()


def load(directory: Path, *, seed: int, shards: Iterable[int]) -> DemoSet:
    """Read these shards of a data set.

    Raises:
        ConfigError: A shard is missing or damaged; names it.
    """
    return joined([_read(_path(directory, seed, i)) for i in shards])


def write(directory: Path, *, seed: int, shard: int, demos: DemoSet) -> None:
    """Write one shard; the file is whole or not there."""
    path = _path(directory, seed, shard)
    # An interruption leaves only the other name.
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as stream:
        np.savez(stream, **demos.arrays())  # type: ignore[arg-type]
    unfinished.replace(path)


def _path(directory: Path, seed: int, shard: int) -> Path:
    return directory / f"seed{seed}_shard{shard:03d}.npz"


def _read(path: Path) -> DemoSet:
    try:
        with np.load(path) as arrays:
            return DemoSet(**arrays)
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read, delete it to collect it again: {error}") from (
            error
        )


@functools.cache
def _cells() -> VaryingCells:
    """The simulators of this process, which compile in seconds."""
    return VaryingCells()


@functools.cache
def _driver(checkpoint: Path) -> CheckpointPolicy:
    """The policy of this process."""
    from vla_rl_ros.policies.pi0.backend import make_policy

    environment = PolicyEnvironment(cameras=CAMERAS)
    return make_policy(PolicySettings(path=str(checkpoint), device="cpu"), environment)


def _collect_one(directory: Path, seed: int, driver: Path | None, shard: int) -> None:
    if driver is None:
        demos = collect_shard(_cells(), seed, shard)
    else:
        demos = collect_relay_shard(_cells(), _driver(driver), seed, shard)
    write(directory, seed=seed, shard=shard, demos=demos)
