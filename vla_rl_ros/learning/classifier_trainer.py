# SPDX-License-Identifier: Apache-2.0
"""Gradient steps of a success classifier that can be interrupted anywhere.

Every step draws its batch and its variation from random streams of its own, so a continued run
equals an uninterrupted one. Called by `classifier_training`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.data.label_set import LabelledFrames
from vla_rl_ros.learning.classifier_data import Variation, as_stacks, varied
from vla_rl_ros.learning.classifier_net import ClassifierNet, Ensemble, load_pi0
from vla_rl_ros.learning.trainer_file import check_same, continuing
from vla_rl_ros.learning.training_loop import falling_rate

_WARM_UP_STEPS = 30
_MEMBER_SEEDS = 1_000
"""Added to the seed for each member: it learns as one alone with that seed does."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """How a classifier learns."""

    steps: int = param(600, doc="Gradient steps.", low=1, high=1_000_000)
    batch: int = param(48, doc="Frames per step.", low=2, high=4096)
    seed: int = param(0, doc="Of split, weights and batches.", low=0)
    image_px: int = param(128, doc="Side of the network's images.", unit="px", low=32, high=512)
    backbone: str = param("cnn", doc="What makes its features.", choices=("cnn", "pi0"))
    members: int = param(1, doc="Networks that learn apart and judge together.", low=1, high=16)
    learning_rate: float = param(2e-3, doc="At its highest.", low=1e-6, high=0.1)
    weight_decay: float = param(0.02, doc="Of matrices and filters.", low=0.0, high=1.0)
    ema: float = param(0.99, doc="Decay of the average of weights.", low=0.0, high=1.0)
    positive_part: float = param(
        0.4, doc="Part of a batch that shows success.", low=0.05, high=0.95
    )
    smoothing: float = param(0.005, doc="Of the labels.", low=0.0, high=0.4)
    shift_px: int = param(6, doc="Largest shift of the random crop.", unit="px", low=0, high=64)
    brightness: float = param(0.25, doc="Largest change, as a part.", low=0.0, high=1.0)
    contrast: float = param(0.2, doc="Largest change, as a part.", low=0.0, high=1.0)
    colour: float = param(0.08, doc="Largest change of a colour, as a part.", low=0.0, high=1.0)
    noise: float = param(3.0, doc="Deviation per pixel, of 255.", low=0.0, high=64.0)
    calibrate_part: float = param(
        0.2, doc="Part of the episodes that decides the threshold.", low=0.05, high=0.5
    )
    test_part: float = param(0.2, doc="Part of the episodes held out.", low=0.0, high=0.5)
    max_fpr: float = param(
        0.005, doc="False positive rate that the threshold is chosen for.", low=0.0, high=0.5
    )
    min_positives: int = param(30, doc="Frames of success to begin with.", low=1)
    needed: int = param(3, doc="Frames that must agree for a decision.", low=1, high=100)
    window: int = param(4, doc="Among so many of the last ones.", low=1, high=100)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


class ClassifierTrainer:
    """The networks, their averages, and their optimiser.

    Attributes:
        step_number: Steps done.
        average: What is exported.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        frames: LabelledFrames,
        cameras: tuple[str, ...],
        checkpoint: Path | None = None,
    ) -> None:
        """Initialise from the seed.

        Args:
            settings: How to learn.
            frames: To train on, in the size of the network.
            cameras: In the order of its inputs.
            checkpoint: PI0 whose tower is used, for the backbone ``pi0``.
        """
        self.settings = settings
        self.step_number = 0
        self._net = self._drawn(cameras, checkpoint)
        self._net.train()
        self.average = copy.deepcopy(self._net).eval()
        self._images = as_stacks(frames.images, cameras)
        self._labels = torch.from_numpy(frames.is_success.astype(np.float32))
        self._rows = [np.flatnonzero(frames.is_success == label) for label in (False, True)]
        weights = [w for w in self._net.parameters() if w.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [w for w in weights if w.ndim > 1]},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self._variation = Variation(
            shift_px=settings.shift_px,
            brightness=settings.brightness,
            contrast=settings.contrast,
            colour=settings.colour,
            noise=settings.noise,
        )

    @property
    def _seeds(self) -> list[int]:
        settings = self.settings
        return [settings.seed + _MEMBER_SEEDS * number for number in range(settings.members)]

    def _drawn(self, cameras: tuple[str, ...], checkpoint: Path | None) -> Ensemble:
        model = None
        if self.settings.backbone == "pi0":
            assert checkpoint is not None
            # Once for all of them, and before the seed: what loading draws changes no weight.
            model = load_pi0(checkpoint)
        members = []
        for seed in self._seeds:
            torch.manual_seed(seed)
            members.append(ClassifierNet(cameras, self.settings.image_px, model))
        return Ensemble(members)

    def step(self) -> float:
        """One gradient step of every member; returns their mean loss before it."""
        settings = self.settings
        for group in self._optimiser.param_groups:
            group["lr"] = falling_rate(
                self.step_number,
                settings.steps,
                settings.learning_rate,
                rise_steps=_WARM_UP_STEPS,
                floor=0.02,
            )
        self._optimiser.zero_grad(set_to_none=True)
        losses = []
        for member, seed in zip(self._net.members, self._seeds, strict=True):
            loss = self._loss(member, seed)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(member.parameters(), 1.0)
            losses.append(float(loss.detach()))
        self._optimiser.step()
        self.step_number += 1
        self._move_average()
        return float(np.mean(losses))

    def _loss(self, member: nn.Module, seed: int) -> Tensor:
        """Of a batch that only this member sees."""
        settings = self.settings
        rng = np.random.default_rng([seed, self.step_number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)))
        num_positives = max(1, round(settings.positive_part * settings.batch))
        index = np.concatenate(
            [
                rng.choice(rows, count, replace=len(rows) < count)
                for rows, count in zip(
                    self._rows, (settings.batch - num_positives, num_positives), strict=True
                )
            ]
        )
        seen = [varied(stack[index], self._variation, generator) for stack in self._images]
        smooth = settings.smoothing
        targets = self._labels[index] * (1.0 - 2.0 * smooth) + smooth
        return functional.binary_cross_entropy_with_logits(member(*seen), targets)

    @torch.no_grad()
    def _move_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step_number) / (10 + self.step_number))
        for average, weight in zip(self.average.parameters(), self._net.parameters(), strict=True):
            if weight.requires_grad:
                average.lerp_(weight, 1.0 - decay)

    def save(self, path: Path, data: str) -> None:
        """Write everything needed to go on; the file is whole or the old one.

        Args:
            path: To write.
            data: What identifies the frames.
        """
        part = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self.settings),
                "data": data,
                "step": self.step_number,
                "net": self._net.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
            part,
        )
        part.replace(path)

    def load(self, path: Path, data: str) -> None:
        """Go on where `save` was called.

        Raises:
            ConfigError: Damaged, or a run with other settings or frames; says which.
        """
        with continuing(path):
            values = torch.load(path, weights_only=True)
            others = () if values["data"] == data else ("other labels",)
            theirs = {"members": 1, **values["settings"]}
            check_same(path, theirs, asdict(self.settings), *others)
            self._net.load_state_dict(_of_members(values["net"]))
            self.average.load_state_dict(_of_members(values["average"]))
            self._optimiser.load_state_dict(values["optimiser"])
            self.step_number = int(values["step"])


def _of_members(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name; a file of before there were members has those of the only one."""
    prefix = "members."
    return {
        name if name.startswith(prefix) else f"{prefix}0.{name}": weight
        for name, weight in weights.items()
    }
