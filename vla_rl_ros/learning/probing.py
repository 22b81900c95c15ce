# SPDX-License-Identifier: Apache-2.0
"""Probing rollouts: demonstrations by a base policy and its learned residual (PLD stage 2).

The base plays alone up to a random tick, then the residual joins in, so that what is shown begins
where the base really gets to (PLD, arXiv 2511.00091). Only successes are kept, from the take-over
on, with the actions that were executed as labels, in the files that `base_shards` reads: what the
base did before is how it gets stuck, and would be practised if it were kept. Called by
`vla-rl-ros probe`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.acting import execute
from vla_rl_ros.learning.base_data import IMAGE_PX, TARGETS, TASK_ORDER, DemoSet, joined
from vla_rl_ros.learning.gym_door import Door
from vla_rl_ros.learning.gym_episodes import Actor
from vla_rl_ros.learning.vla_env import VlaEnv
from vla_rl_ros.policies.pi0.images import shrink
from vla_rl_ros.sim.scene_ids import CAMERAS

_STATE_FILE = "probing.json"
_VERSION = 2
"""Of what a file holds: 2 begins at the take-over, 1 held the base's part before it as well."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How many demonstrations, and how they begin."""

    successes: int = param(200, doc="Demonstrations to collect.", low=1)
    shard_successes: int = param(20, doc="Demonstrations per file.", low=1, high=1000)
    base_part: float = param(
        0.6, doc="Largest part of an episode that the base plays first.", low=0.0, high=1.0
    )
    seed: int = param(0, doc="Of scenes and take-over ticks; names the files.", low=0)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(slots=True)
class ProbeProgress:
    """How far a collection has come.

    Attributes:
        attempts: Episodes played.
        successes: Those that were kept.
        shards: Files written.
    """

    attempts: int = 0
    successes: int = 0
    shards: int = 0


class Prober:
    """Plays and collects.

    Attributes:
        progress: As of the files that are written.
    """

    def __init__(
        self, door: Door, actor: Actor, directory: Path, settings: ProbeSettings, source: str
    ) -> None:
        """Begin, or continue what lies in a directory.

        Args:
            door: Around a `VlaEnv`.
            actor: The residual, without noise.
            directory: Of the files; made if it is missing.
            settings: How much.
            source: What plays, e.g. the hash of its files; a collection has one source.

        Raises:
            ConfigError: Another environment, or a collection that was begun otherwise.
        """
        env = door.env.unwrapped
        if not isinstance(env, VlaEnv):
            raise ConfigError("probing needs a task of the simulated cell")
        self._door, self._env, self._actor = door, env, actor
        self._directory, self._settings = directory, settings
        self._described = {
            "version": _VERSION,
            "source": source,
            "seed": settings.seed,
            "part": settings.base_part,
        }
        directory.mkdir(parents=True, exist_ok=True)
        self.progress = self._read()

    def run(self, tell: Callable[[int, int], None]) -> ProbeProgress:
        """Collect what is missing; after an interruption at most one file is played again.

        Args:
            tell: Called with successes and attempts after each episode.
        """
        kept: list[DemoSet] = []
        progress, settings = self.progress, self._settings
        attempts = progress.attempts
        while progress.successes < settings.successes:
            demos = self._episode(attempts)
            attempts += 1
            if demos is not None:
                kept.append(demos)
            tell(progress.successes + len(kept), attempts)
            missing = settings.successes - progress.successes
            if len(kept) == min(settings.shard_successes, missing):
                base_shards.write(
                    self._directory, seed=settings.seed, shard=progress.shards, demos=joined(kept)
                )
                progress.shards += 1
                progress.successes += len(kept)
                progress.attempts = attempts
                self._write()
                kept = []
        return progress

    def _episode(self, number: int) -> DemoSet | None:
        """Play one episode; None unless it succeeds after the take-over."""
        env, door = self._env, self._door
        rng = np.random.default_rng([self._settings.seed, number])
        base_ticks = int(rng.uniform(0.0, self._settings.base_part) * env.max_ticks)
        moment, _ = door.start(number, held_out=False)
        for _ in range(base_ticks):
            moment, outcome = door.step(moment, moment.base)
            # What the base finishes alone teaches it nothing.
            if outcome.is_terminated or outcome.is_truncated:
                return None
        images: list[NDArray[np.uint8]] = []
        states: list[FloatArray] = []
        executed: list[FloatArray] = []
        offsets: list[FloatArray] = []
        is_last = False
        while not is_last:
            seen = env.sim.images()
            images.append(np.stack([shrink(seen[name], IMAGE_PX, name) for name in CAMERAS]))
            states.append(env.sim.state())
            target = env.sim.objects()[TARGETS[env.task]].position_m
            offsets.append(target - env.sim.tcp().position_m)
            action = np.asarray(execute(moment.base, self._actor(moment.obs, moment.base)))
            moment, outcome = door.step(moment, action)
            executed.append(env.executed)
            is_last = outcome.is_terminated or outcome.is_truncated
        if not outcome.is_success:
            return None
        count = len(executed)
        actions = np.array(executed, dtype=np.float32)
        return DemoSet(
            images=np.stack(images),
            states=np.array(states, dtype=np.float32),
            labels=actions,
            executed=actions,
            targets_m=np.array(offsets, dtype=np.float32),
            tasks=np.full(count, TASK_ORDER.index(env.task)),
            is_pushed=np.zeros(count, dtype=bool),
            episodes=np.zeros(count, dtype=np.int64),
        )

    def _read(self) -> ProbeProgress:
        path = self._directory / _STATE_FILE
        if not path.exists():
            return ProbeProgress()
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            progress = ProbeProgress(**values["progress"])
            theirs = values["described"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged: use another --out") from error
        if theirs != self._described:
            raise ConfigError(
                f"{self._directory} was begun with {theirs}, not {self._described}: use the same "
                "settings or another --out"
            )
        return progress

    def _write(self) -> None:
        path = self._directory / _STATE_FILE
        unfinished = path.with_suffix(".part")
        text = json.dumps({"described": self._described, "progress": asdict(self.progress)})
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)


def num_shards(directory: Path) -> tuple[int, int]:
    """Seed and number of files of a finished or unfinished collection.

    Raises:
        ConfigError: There is none, or one of another version.
    """
    path = directory / _STATE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        described, count = values["described"], int(values["progress"]["shards"])
        seed, version = int(described["seed"]), described.get("version", 1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{directory} holds no probing rollouts: {error}") from error
    if version != _VERSION:
        raise ConfigError(
            f"{directory} holds rollouts of version {version}, not {_VERSION}, which begin at the "
            "take-over: let 'probe' collect them again in another --out"
        )
    return seed, count
