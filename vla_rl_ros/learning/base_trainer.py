# SPDX-License-Identifier: Apache-2.0
"""Gradient steps of a base policy that can be interrupted anywhere.

Every step draws its batch and noise from random streams of its own, so a continued run does the
same as an uninterrupted one, to the last bit. Called by `base_training` and by tests.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.learning.base_labels import Samples
from vla_rl_ros.learning.base_language import draw_wordings
from vla_rl_ros.learning.base_loss import BaseLearner, Losses
from vla_rl_ros.learning.older_runs import completed_base
from vla_rl_ros.learning.trainer_file import check_same, continuing
from vla_rl_ros.policies.pi0.nano import NanoPI0

_EMA_WARM_UP = 10


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How the network learns."""

    steps: int = param(5000, doc="Gradient steps; the learning rate falls to their end.", low=1)
    seed: int = param(0, doc="Of initialisation, batches and noise.", low=0)
    batch: int = param(64, doc="Observations per step.", low=1, high=4096)
    draws: int = param(4, doc="Draws of noise and flow time per observation.", low=1, high=64)
    learning_rate: float = param(1.5e-3, doc="After the warm-up.", low=1e-6, high=0.1)
    last_rate_part: float = param(0.02, doc="Part of it at the last step.", low=0.0, high=1.0)
    warm_up_steps: int = param(100, doc="Steps over which it rises.", low=1, high=100_000)
    weight_decay: float = param(0.01, doc="Of matrices and filters.", low=0.0, high=1.0)
    clip_norm: float = param(1.0, doc="Largest norm of a gradient.", low=1e-3, high=1e3)
    ema: float = param(
        0.995, doc="Decay of the average of weights that is kept.", low=0.0, high=1.0
    )
    where_weight: float = param(1.0, doc="Weight of the localisation loss.", low=0.0, high=100.0)
    second_steps: int = param(0, doc="Further steps, with a rate of their own.", low=0)
    second_rate: float = param(5e-4, doc="Learning rate of these.", low=1e-6, high=0.1)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)

    @property
    def num_steps(self) -> int:
        """Of both phases."""
        return self.steps + self.second_steps


class BatchSource(Protocol):
    """Where batches come from."""

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """Draw samples; equal states of `rng` give equal samples."""


class Trainer:
    """A learner, its average, and its optimiser.

    Attributes:
        settings: As given.
        step_number: Steps done.
        average: What is evaluated and shipped.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        sampler: BatchSource,
        *,
        origin: Mapping[str, float | str] | None = None,
    ) -> None:
        """Initialise from the seed.

        Args:
            settings: How to learn.
            sampler: Training data.
            origin: What else decides the result, by name: a run is continued with the same only.
        """
        self.settings = settings
        self.step_number = 0
        self._origin = dict(origin or {})
        self._sampler = sampler
        torch.manual_seed(settings.seed)
        self._learner = BaseLearner()
        self.average = copy.deepcopy(self._learner)
        self.average.train(mode=False)
        self._weights = [w for w in self._learner.parameters() if w.requires_grad]
        matrices = [w for w in self._weights if w.ndim > 1]
        others = [w for w in self._weights if w.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
        )

    def start_from(self, model: NanoPI0) -> None:
        """Begin with the weights of a policy in place of random ones; before the first step."""
        for learner in (self._learner, self.average):
            learner.model.load_state_dict(model.state_dict())

    def draw_from(self, sampler: BatchSource) -> None:
        """Take batches from elsewhere from now on."""
        self._sampler = sampler

    def step(self) -> Losses:
        """One gradient step; returns the losses before it."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step_number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        samples = self._sampler.draw(settings.batch, rng)
        wordings = torch.from_numpy(draw_wordings(settings.batch, rng))
        losses = self._learner.losses(samples, wordings, draws=settings.draws, generator=generator)
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self._optimiser.zero_grad(set_to_none=True)
        (losses.flow + settings.where_weight * losses.where).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._weights, settings.clip_norm)
        self._optimiser.step()
        self.step_number += 1
        self._move_average()
        return Losses(losses.flow.detach(), losses.where.detach())

    def learning_rate(self) -> float:
        """Of the next step: linear warm-up, then half a cosine, in each phase."""
        settings, done = self.settings, self.step_number
        highest, steps = settings.learning_rate, settings.steps
        if done >= settings.steps:
            highest, steps = settings.second_rate, max(1, settings.second_steps)
            done -= settings.steps
        rise = min(1.0, (done + 1) / settings.warm_up_steps)
        fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / steps)))
        floor = settings.last_rate_part
        return highest * rise * (floor + (1.0 - floor) * fall)

    @torch.no_grad()
    def _move_average(self) -> None:
        # Early on a long memory would still hold the random start.
        decay = min(self.settings.ema, (1 + self.step_number) / (_EMA_WARM_UP + self.step_number))
        for average, weight in zip(
            self.average.parameters(), self._learner.parameters(), strict=True
        ):
            average.lerp_(weight, 1.0 - decay)

    def save(self, path: Path) -> None:
        """Write everything needed to continue; the file is whole or the old one."""
        unfinished = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self.settings),
                "origin": self._origin,
                "step": self.step_number,
                "learner": self._learner.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
            unfinished,
        )
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Continue where `save` was called.

        Raises:
            ConfigError: Damaged file, or one of a run with other settings or of another origin;
                names them.
        """
        with continuing(path):
            values = torch.load(path, weights_only=True)
            ours = {**asdict(self.settings), **self._origin}
            theirs = {**values["settings"], **values.get("origin", {})}
            check_same(path, completed_base(theirs, ours), ours)
            self._learner.load_state_dict(values["learner"])
            self.average.load_state_dict(values["average"])
            self._optimiser.load_state_dict(values["optimiser"])
            self.step_number = int(values["step"])
