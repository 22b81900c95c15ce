# SPDX-License-Identifier: Apache-2.0
"""Residual learning from stored episodes alone: no robot, no simulator.

Resumable like a run of `gym_loop`, with the same files, so that its directory is what online
learning starts from (`run_start`). Called by `vla-rl-ros train residual --bags`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import Float32Array, ResidualActor, execute
from vla_rl_ros.learning.actor_bytes import ActorWeights, write_actor
from vla_rl_ros.learning.gym_files import POLICY_FILE, RunFiles
from vla_rl_ros.learning.judge_names import JudgeNames
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.rows import RowArray, RowLayout
from vla_rl_ros.learning.run_memory import begun_with, check_same
from vla_rl_ros.learning.run_start import REPLAY_DIRECTORY, ROWS_DIRECTORY

_NUM_PROBES = 2048
_LOG_EVERY = 250


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """Length of a run from stored episodes."""

    updates: int = param(20_000, doc="Gradient steps.", low=1)
    seed: int = param(0, doc="Of weights, noise and batches.", low=0)
    snapshot_every: int = param(1000, doc="Updates between snapshots.", low=1)
    execution: str = param("eager", doc="Of the gradient steps.", choices=("eager", "compiled"))

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


class OfflineTrainer:
    """One run.

    Attributes:
        settings: As given.
        learner: What learns.
        replay: What it learns from.
    """

    def __init__(
        self,
        out: Path,
        layout: RowLayout,
        obs_names: tuple[str, ...],
        config: LearnerConfig,
        settings: OfflineSettings,
        *,
        truncation_value: float = 0.0,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Begin, or continue what lies in `out`.

        Args:
            out: Directory of the run.
            layout: Of the rows.
            obs_names: Channels of an observation.
            config: Of the learner; `offline_actor` says whether the actor learns, too.
            settings: Of the run.
            truncation_value: See `transitions.tabulate`.
            value_range: See `ResidualLearner`.

        Raises:
            ConfigError: The run there was begun with other settings, or holds other rows.
            ReplayError: Its rows are damaged or in use.
        """
        self.settings, self._config, self._names = settings, config, obs_names
        self._begun = begun_with(learner=config, run=settings)
        self._files = RunFiles(out)
        self.learner = ResidualLearner(
            config,
            layout.obs_dim,
            layout.action_dim,
            settings.seed,
            value_range=value_range,
            execution=settings.execution,
        )
        self._rng = np.random.default_rng([settings.seed, 3])
        self._has_normaliser = False
        self._wall_s = 0.0
        self._judges = JudgeNames(out / REPLAY_DIRECTORY)
        values = self._files.read()
        # Layouts are compared here: rows of another base or runtime never mix.
        self.replay = Replay(
            out / ROWS_DIRECTORY,
            layout,
            n_step=config.n_step,
            gamma=config.gamma,
            truncation_value=truncation_value,
            takeover_ends=config.takeover_ends,
            timeout_ends=config.timeout_ends,
        )
        if values is not None:
            with ExitStack() as opened:
                opened.callback(self.close)
                self._restore(values)
                self._files.cut_log(values)
                opened.pop_all()

    @property
    def num_updates(self) -> int:
        """Gradient steps done."""
        return self.learner.num_updates

    @property
    def known_episodes(self) -> frozenset[int]:
        """Numbers of the episodes that are stored already."""
        return frozenset(np.unique(self.replay.rows["episode"]).tolist())

    def add(self, rows: RowArray, judge: str = "") -> None:
        """Store whole episodes; they are safe when this returns.

        Args:
            rows: Of one judge.
            judge: The name behind the code in the rows.
        """
        self._judges.note(judge)
        self.replay.append(rows)

    def run(
        self, *, minutes: float | None = None, tell: Callable[[int, dict[str, float]], None]
    ) -> dict[str, Any]:
        """Learn to the end, or for a while.

        Args:
            minutes: Stop after this time, continuable; None for no limit.
            tell: Called with the updates done and the latest metrics.

        Returns:
            Numbers to print.

        Raises:
            ConfigError: There is nothing to learn from.
        """
        if not len(self.replay):
            raise ConfigError(f"{self._files.out}: no finished episode to learn from")
        begin_s, before_s = time.monotonic(), self._wall_s
        if not self._has_normaliser:
            self.learner.fit_normaliser(self.replay.rows["obs"])
            self._has_normaliser = True
        sums: dict[str, tuple[float, int]] = {}
        is_late = False
        while self.num_updates < self.settings.updates and not is_late:
            batch = self.replay.sample(self._config.batch_size, self._rng)
            found = self.learner.update(
                batch, offline=True, critic_only=not self._config.offline_actor
            )
            for name, value in found.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value, count + 1)
            self._wall_s = before_s + time.monotonic() - begin_s
            is_late = minutes is not None and time.monotonic() - begin_s > 60.0 * minutes
            if self.num_updates % _LOG_EVERY == 0:
                means = {name: total / count for name, (total, count) in sums.items()}
                line = {"kind": "offline", "update": self.num_updates, **means, **self.gain()}
                self._files.note(line)
                sums = {}
            tell(self.num_updates, found)
            if is_late or self.num_updates % self.settings.snapshot_every == 0:
                self._save()
        self._save()
        return self._finish()

    def close(self) -> None:
        """Release the rows; idempotent."""
        self.replay.close()

    def gain(self) -> dict[str, float]:
        """What the critics expect of the residual on stored observations.

        Returns:
            ``q_base`` and ``q_residual``: mean over rows of the smallest critic at the base action
            and at the residual policy's; ``residual_mean``: mean absolute residual.
        """
        count = min(_NUM_PROBES, len(self.replay))
        numbers = np.linspace(0, len(self.replay) - 1, count).astype(np.int64)
        rows = self.replay.gather(numbers)
        actor = ResidualActor(self.learner.weights())
        pairs = list(zip(rows["obs"], rows["base"], strict=True))
        residual = np.array([actor.act(obs, base) for obs, base in pairs])
        composed = np.asarray(execute(rows["base"], residual))

        def lowest(action: Float32Array) -> float:
            return float(self.learner.q(rows["obs"], action).min(axis=0).mean())

        return {
            "q_base": lowest(rows["base"]),
            "q_residual": lowest(composed),
            "residual_mean": float(np.abs(residual).mean()),
        }

    def _finish(self) -> dict[str, Any]:
        policy = self._files.out / POLICY_FILE
        layout = self.replay.layout
        actor = ActorWeights(
            weights=self.learner.weights(),
            version=self.num_updates,
            obs_version=layout.obs_version,
            obs_names=self._names,
        )
        write_actor(policy, actor)
        gain = {name: round(value, 5) for name, value in self.gain().items()}
        return {
            "is_finished": self.num_updates >= self.settings.updates,
            "updates": self.num_updates,
            "transitions": len(self.replay),
            **gain,
            "wall_s": round(self._wall_s, 1),
            "checkpoint": str(policy),
        }

    def _save(self) -> None:
        self._files.save(
            {
                "begun": json.dumps(self._begun),
                "obs_version": self.replay.layout.obs_version,
                "learner": self.learner.state_dict(),
                "rng": json.dumps(self._rng.bit_generator.state),
                "has_normaliser": self._has_normaliser,
                "wall_s": self._wall_s,
            }
        )

    def _restore(self, values: dict[str, Any]) -> None:
        check_same(
            self._begun,
            json.loads(values["begun"]),
            self._files.out,
            may_differ=("run.updates",),
        )
        self.learner.load_state_dict(values["learner"])
        self._rng.bit_generator.state = json.loads(values["rng"])
        self._has_normaliser = bool(values["has_normaliser"])
        self._wall_s = float(values["wall_s"])
