# SPDX-License-Identifier: Apache-2.0
"""Gradient steps of eyes that can be interrupted anywhere.

Every step draws its batch and its variation from a random stream of its own, so a continued run
equals an uninterrupted one. Called by `eyes_training`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, LearningError
from vla_rl_ros.learning.classifier_data import Variation, as_stacks, varied
from vla_rl_ros.learning.eyes_data import GoalFrames
from vla_rl_ros.learning.eyes_net import SCALES_M, EyesNet
from vla_rl_ros.learning.trainer_file import check_same, continuing
from vla_rl_ros.learning.training_loop import falling_rate

_WARM_UP_STEPS = 100
_SIDE_PX = 16


@dataclass(frozen=True, kw_only=True)
class EyesSettings:
    """How eyes learn."""

    steps: int = param(1500, doc="Gradient steps.", low=1, high=1_000_000)
    batch: int = param(48, doc="Frames per step.", low=2, high=4096)
    seed: int = param(0, doc="Of weights, batches and the held-out part.", low=0)
    image_px: int = param(128, doc="Side of the network's images.", unit="px", low=32, high=512)
    learning_rate: float = param(2e-3, doc="At its highest.", low=1e-6, high=0.1)
    weight_decay: float = param(0.02, doc="Of all weights.", low=0.0, high=1.0)
    brightness: float = param(0.2, doc="Largest change, as a part.", low=0.0, high=1.0)
    contrast: float = param(0.15, doc="Largest change, as a part.", low=0.0, high=1.0)
    colour: float = param(0.05, doc="Largest change of a colour, as a part.", low=0.0, high=1.0)
    noise: float = param(2.0, doc="Deviation per pixel, of 255.", low=0.0, high=64.0)
    action_weight: float = param(
        1.0, doc="Of what was done, beside the way to where it led.", low=0.0, high=100.0
    )
    held_out_part: float = param(
        0.1, doc="Part of the episodes that is only measured on.", low=0.05, high=0.5
    )

    def __post_init__(self) -> None:
        """Check bounds, and that the network can halve the image four times."""
        check_bounds(self)
        if self.image_px % _SIDE_PX:
            raise ConfigError(f"eyes.image_px={self.image_px} is no multiple of {_SIDE_PX}")


class EyesTrainer:
    """The network and its optimiser.

    Attributes:
        net: What is trained.
        step_number: Steps done.
        trained_s: How long they took, those before a stop included.
    """

    def __init__(
        self, settings: EyesSettings, frames: GoalFrames, rows: NDArray[np.int64]
    ) -> None:
        """Initialise from the seed.

        Args:
            settings: How to learn.
            frames: In the size of the network.
            rows: Those to learn from.
        """
        self._settings, self._rows = settings, rows
        cameras = tuple(frames.images)
        torch.manual_seed(settings.seed)
        self.net = EyesNet(cameras, settings.image_px)
        if not settings.action_weight or not np.isfinite(frames.actions[rows]).any():
            # Nobody teaches it, so it tells nothing; gradients and decay leave zeros alone.
            for weight in self.net.action.parameters():
                torch.nn.init.zeros_(weight)
        self.step_number, self.trained_s = 0, 0.0
        self._stacks = as_stacks(frames.images, cameras)
        self._ways_m = torch.from_numpy(frames.ways_m)
        self._actions = torch.from_numpy(frames.actions)
        self._optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._variation = Variation(
            shift_px=0,  # A shifted image shows another way.
            brightness=settings.brightness,
            contrast=settings.contrast,
            colour=settings.colour,
            noise=settings.noise,
        )

    def step(self) -> float:
        """One gradient step; returns the loss before it.

        Raises:
            LearningError: The loss is not finite; the weights are left as they were.
        """
        settings, begin_s = self._settings, time.monotonic()
        rng = np.random.default_rng([settings.seed, self.step_number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        index = rng.choice(self._rows, settings.batch)
        seen = [varied(stack[index], self._variation, generator) for stack in self._stacks]
        way_m, action, _ = self.net(*seen)
        # Beyond half a centimetre the error counts by its size and no longer by its square.
        scale_m = SCALES_M[1]
        loss = functional.smooth_l1_loss(way_m / scale_m, self._ways_m[index] / scale_m, beta=0.25)
        loss = loss + settings.action_weight * _known_loss(action, self._actions[index])
        if not torch.isfinite(loss):
            raise LearningError(
                f"the loss of step {self.step_number + 1} is {float(loss.detach())}: begin with a "
                "lower eyes.learning_rate and another --out"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = falling_rate(
                self.step_number,
                settings.steps,
                settings.learning_rate,
                rise_steps=_WARM_UP_STEPS,
                floor=0.005,
            )
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self.step_number += 1
        self.trained_s += time.monotonic() - begin_s
        return float(loss.detach())

    def save(self, path: Path, data: str) -> None:
        """Write everything needed to go on; the file is whole or the old one."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self._settings),
                "data": data,
                "step": self.step_number,
                "trained_s": self.trained_s,
                "net": self.net.state_dict(),
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
            others = () if values["data"] == data else ("other episodes",)
            check_same(path, values["settings"], asdict(self._settings), *others)
            self.net.load_state_dict(values["net"])
            self._optimiser.load_state_dict(values["optimiser"])
            self.step_number = int(values["step"])
            self.trained_s = float(values["trained_s"])


def _known_loss(action: Tensor, wanted: Tensor) -> Tensor:
    """Error of actions, normalised; none where `wanted` is NaN."""
    known = wanted.where(wanted.isfinite(), action.detach())
    return functional.smooth_l1_loss(action, known, beta=0.1)


def check_begun(path: Path, settings: EyesSettings) -> None:
    """Refuse other settings before anything is read for a run that was begun.

    Args:
        path: What continues the run, if there is such a file.
        settings: Present ones.

    Raises:
        ConfigError: Damaged, or a run with other settings; says which.
    """
    if path.exists():
        with continuing(path):
            check_same(path, torch.load(path, weights_only=True)["settings"], asdict(settings))
