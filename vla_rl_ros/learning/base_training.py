# SPDX-License-Identifier: Apache-2.0
"""Trains pi0-nano from nothing: demonstrations, gradient steps, checkpoint, plots.

Called by `vla-rl-ros train base`. Everything lies in one directory: ``data/`` (demonstrations),
``trainer.pt`` (to continue), ``history.jsonl`` (losses), ``checkpoint/`` (what the `pi0` back end
reads) and ``training.png``; of the second phase also ``driver/``, the policy as it was after the
first, and ``relays/``, where it drives. Started again with the same settings, it continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.base_checkpoint import write_checkpoint
from vla_rl_ros.learning.base_curve import plot
from vla_rl_ros.learning.base_data import DemoSet
from vla_rl_ros.learning.base_episodes import SHARD_EPISODES
from vla_rl_ros.learning.base_labels import (
    MixedSampler,
    Sampler,
    Scales,
    measure_scales,
    paired_starts,
)
from vla_rl_ros.learning.base_loss import BaseLearner
from vla_rl_ros.learning.base_relays import SHARD_RELAYS
from vla_rl_ros.learning.base_trainer import Trainer, TrainerSettings
from vla_rl_ros.policies.pi0.nano import HORIZON

_SAVE_PERIOD_S = 60.0
_NOTE_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is learned from."""

    episodes: int = param(400, doc="Demonstrations per task, in whole shards.", low=1)
    seed: int = param(0, doc="Of scenes and disturbances.", low=0)
    relays: int = param(
        0, doc="Episodes that the policy begins, for a second phase, in whole shards.", low=0
    )
    relay_part: float = param(
        0.4, doc="Part of them in each batch of that phase.", low=0.0, high=1.0
    )
    processes: int = param(2, doc="Simulators side by side; changes no data.", low=1, high=64)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)

    @property
    def num_shards(self) -> int:
        """Files of demonstrations to train on; one more is held out."""
        return -(-self.episodes // SHARD_EPISODES)

    @property
    def num_relay_shards(self) -> int:
        """Files of relays."""
        return -(-self.relays // SHARD_RELAYS)


def train(
    out: Path,
    data: DataSettings,
    settings: TrainerSettings,
    *,
    command: str,
    stop_at: int | None = None,
    minutes: float | None = None,
    num_threads: int = 1,
    tell: Callable[[str], object] = lambda sentence: None,
) -> dict[str, Any]:
    """Train, or continue, and write the checkpoint.

    Args:
        out: Directory of the run.
        data: Demonstrations; collected where they are missing.
        settings: How to learn.
        command: What to write into the manifest, so that others can repeat it.
        stop_at: Stop at this step, unfinished but continuable; None for the last one.
        minutes: Stop after this time of training, unfinished but continuable; None for no limit.
        num_threads: Of torch; the last bits of the result depend on it.
        tell: Told in a sentence what was collected for the second phase.

    Returns:
        Numbers to print.

    Raises:
        ConfigError: A second phase without relays, or `out` holds a run with other settings.
    """
    if settings.second_steps and not data.relays:
        raise ConfigError("a second phase needs relays to learn from: relays=0")
    num_shards = data.num_shards
    base_shards.collect(
        out / "data", seed=data.seed, num_shards=num_shards + 1, num_processes=data.processes
    )
    demos = base_shards.load(out / "data", seed=data.seed, shards=range(num_shards))
    held_out = base_shards.load(
        out / "data", seed=data.seed, shards=range(num_shards, num_shards + 1)
    )
    scales = measure_scales(demos)
    torch.set_num_threads(num_threads)
    sampler = Sampler(demos, scales, HORIZON)
    origin: dict[str, float | str] = {
        "episodes": data.episodes,
        "data_seed": data.seed,
        "relays": data.relays,
        "relay_part": data.relay_part,
    }
    trainer = Trainer(settings, sampler, origin=origin)
    run = _Run(out, trainer, GroundingTest(held_out, scales), scales, command)
    run.resume()
    limit_s = None if minutes is None else 60.0 * minutes
    last_step = settings.num_steps if stop_at is None else min(stop_at, settings.num_steps)
    spent_s = run.until(min(settings.steps, last_step), limit_s)
    if last_step > settings.steps and trainer.step_number >= settings.steps:
        relays = _relays(out / "relays", data, run.driver())
        run.relays = relays.episodes_by_task()
        tell(f"relays: {', '.join(f'{count} {task}' for task, count in run.relays.items())}")
        # They begin in mid-motion, too, and their first ticks are the policy's.
        begun = Sampler(relays, scales, HORIZON, start_part=0.0)
        trainer.draw_from(MixedSampler(begun, sampler, data.relay_part))
        run.until(last_step, None if limit_s is None else limit_s - spent_s)
    return {
        "checkpoint": str(out / "checkpoint"),
        "steps": trainer.step_number,
        "is_finished": trainer.step_number >= settings.num_steps,
        "ticks_of_data": len(demos),
        "relays": run.relays,
        "parameters": sum(w.numel() for w in trainer.average.model.parameters()),
        "figure": str(plot(run.history, out / "training.png")),
        **run.history[-1],
    }


def _relays(directory: Path, data: DataSettings, driver: Path) -> DemoSet:
    """Relays that a policy begins; collected where they are missing."""
    base_shards.collect(
        directory,
        seed=data.seed,
        num_shards=data.num_relay_shards,
        num_processes=data.processes,
        driver=driver,
    )
    return base_shards.load(directory, seed=data.seed, shards=range(data.num_relay_shards))


class GroundingTest:
    """Whether a learner looks at the right object in the very first tick, on unseen scenes."""

    def __init__(self, demos: DemoSet, scales: Scales) -> None:
        """Pick the first ticks of paired clips."""
        pairs = paired_starts(demos)
        sampler = Sampler(demos, scales, HORIZON)
        self._samples = sampler.at(pairs.ravel(), np.zeros(pairs.size, dtype=np.int64))

    def measure(self, learner: BaseLearner) -> dict[str, float]:
        """Median error in metres, and the part of guesses nearer to the other object."""
        right = self._samples.targets_m.astype(np.float64)
        other = right.reshape(-1, 2, 3)[:, ::-1].reshape(-1, 3)
        guess = learner.locate(self._samples).double().numpy()
        error = _norm(guess - right)
        return {
            "grounding_error_m": float(np.median(error)),
            "wrong_object_part": float(np.mean(error > _norm(guess - other))),
        }


def _norm(vectors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(vectors, axis=-1)
    return lengths


class _Run:
    """One call of `train`: the loop and its files.

    Attributes:
        history: Rows of ``history.jsonl``.
        relays: Episodes by task of the second phase, empty before it.
    """

    def __init__(
        self, out: Path, trainer: Trainer, grounding: GroundingTest, scales: Scales, command: str
    ) -> None:
        self.history: list[dict[str, float]] = []
        self.relays: dict[str, int] = {}
        self._out, self._trainer = out, trainer
        self._grounding, self._scales = grounding, scales
        self._command = command

    def resume(self) -> None:
        """Continue an earlier call, if there was one.

        Raises:
            ConfigError: It had other settings, or its own file is gone and its driver is not.
        """
        path = self._out / "trainer.pt"
        if not path.exists():
            # Its relays would be taken for those of the run that begins now.
            if (self._out / "driver").exists():
                raise ConfigError(
                    f"{self._out} has a driver but no {path.name}: use another --out"
                )
            return
        self._trainer.load(path)
        text = (self._out / "history.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        self.history = [row for row in rows if row["step"] <= self._trainer.step_number]

    def driver(self) -> Path:
        """Checkpoint of the policy as it was after the first phase, for relays.

        Raises:
            ConfigError: It was deleted meanwhile.
        """
        directory = self._out / "driver"
        if not directory.exists():
            if self._trainer.step_number > self._trainer.settings.steps:
                raise ConfigError(f"{directory} is missing: begin again in another --out")
            unfinished = directory.with_suffix(".part")
            self._write(unfinished)
            unfinished.rename(directory)
        return directory

    def until(self, steps: int, limit_s: float | None) -> float:
        """Step, note and save; returns the seconds it took."""
        from tqdm import tqdm

        begin_s = saved_s = time.monotonic()
        trainer, recent = self._trainer, []
        with tqdm(total=steps, initial=trainer.step_number, desc="train", unit="step") as progress:
            while trainer.step_number < steps:
                losses = trainer.step()
                recent.append((float(losses.flow), float(losses.where)))
                progress.update()
                if trainer.step_number % _NOTE_STEPS == 0 or trainer.step_number == steps:
                    self._note(recent)
                    progress.set_postfix(flow=self.history[-1]["flow_loss"], refresh=False)
                    recent = []
                now_s = time.monotonic()
                if limit_s is not None and now_s - begin_s > limit_s:
                    break
                if now_s - saved_s > _SAVE_PERIOD_S:
                    self._save()
                    saved_s = now_s
        if recent:
            self._note(recent)
        self._save()
        return time.monotonic() - begin_s

    def _note(self, recent: list[tuple[float, float]]) -> None:
        flow, where = np.mean(recent, axis=0).tolist()
        self.history.append(
            {
                "step": self._trainer.step_number,
                "flow_loss": flow,
                "where_loss": where,
                **self._grounding.measure(self._trainer.average),
            }
        )

    def _save(self) -> None:
        rows = "".join(f"{json.dumps(row)}\n" for row in self.history)
        (self._out / "history.jsonl").write_text(rows, encoding="utf-8")
        self._trainer.save(self._out / "trainer.pt")
        self._write(self._out / "checkpoint")

    def _write(self, directory: Path) -> None:
        training = {
            "command": self._command,
            "seed": self._trainer.settings.seed,
            "steps": self._trainer.step_number,
            **({"relays": self.relays} if self.relays else {}),
        }
        write_checkpoint(self._trainer.average.model, self._scales, directory, training)
