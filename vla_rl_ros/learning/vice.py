# SPDX-License-Identifier: Apache-2.0
"""VICE: a success classifier that goes on learning while it is the reward.

A classifier that stays as it is has blind spots, and a policy that is paid by it finds them.
Here everything the policy did lately counts as failure and a fixed set of goals as success, so a
blind spot is closed soon after it was found (Fu et al., arXiv 1805.11686; Singh et al., arXiv
1904.07854; much as in SERL, arXiv 2401.16013, see `ViceSettings`). The reward is computed
whenever a batch is drawn, never stored: what the classifier once believed of an old row would be
stale.

Works on vectors, which may hold features of images. Called by training loops and `bench/vice.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.batch import Batch
from vla_rl_ros.learning.presets import LearnerConfig

Float32Array = npt.NDArray[np.float32]

VICE_TERM = "vice"
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True, kw_only=True)
class ViceSettings:
    """How the classifier learns.

    Learning rate, smoothing, mixup's alpha, weight of the penalty and threshold are SERL's by
    default. The rest is not: SERL has one layer of 256 with LayerNorm, dropout 0.1 and leaky ReLU
    behind an encoder of images, here are two of 64 with SiLU and nothing else; SERL draws one part
    of mixup per batch, here every row has its own; and SERL keeps the slope at blends of two
    mixed rows, here it is kept at the mixed rows.
    """

    hidden: tuple[int, ...] = param((64, 64), doc="Widths of its layers.", low=1, high=4096)
    learning_rate: float = param(3e-4, doc="Adam step.", low=1e-6, high=0.1)
    batch: int = param(64, doc="Rows of each kind per step.", low=2, high=65536)
    smoothing: float = param(0.2, doc="Of the labels.", low=0.0, high=0.9)
    mixup: float = param(
        1.0,
        doc="alpha of the Beta distribution that mixes rows; 0 mixes none.",
        low=0.0,
        high=10.0,
    )
    gradient_penalty: float = param(
        10.0, doc="Weight of keeping the logit's slope at 1 per deviation.", low=0.0, high=1e3
    )
    threshold: float = param(
        0.5, doc="Probability from which on a state pays 1.", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)
        if not self.hidden:
            raise ConfigError("ViceSettings.hidden=() needs at least one layer")


class Vice:
    """A classifier of observations, and the reward made of it.

    Attributes:
        settings: As given.
        num_updates: Steps done.
    """

    def __init__(
        self,
        positives: Float32Array,
        background: Float32Array,
        settings: ViceSettings | None = None,
        *,
        seed: int = 0,
    ) -> None:
        """Initialise from the seed.

        Args:
            positives: What success looks like, shape (N, O).
            background: Anything seen in the task, shape (M, O); with the positives it gives mean
                and scale of the inputs.
            settings: How to learn.
            seed: Of weights and noise.

        Raises:
            ConfigError: No positives, or widths that differ.
        """
        if positives.ndim != 2 or not len(positives):
            raise ConfigError(f"positives have shape {positives.shape}, wanted is (N, O), N > 0")
        if background.ndim != 2 or background.shape[1] != positives.shape[1]:
            raise ConfigError(
                f"background has shape {background.shape}, wanted is (M, {positives.shape[1]})"
            )
        self.settings = settings or ViceSettings()
        self.num_updates = 0
        self._rng = np.random.default_rng([seed, 7])
        seen = np.concatenate([positives, background]).astype(np.float64)
        self._mean = torch.tensor(seen.mean(0), dtype=torch.float32)
        deviation = np.maximum(seen.std(0), _SMALLEST_DEVIATION)
        self._scale = torch.tensor(1.0 / deviation, dtype=torch.float32)
        self._goals = np.array(positives, dtype=np.float32)
        self._net = _mlp(positives.shape[1], self.settings.hidden, seed)
        self._optimiser = torch.optim.Adam(self._net.parameters(), lr=self.settings.learning_rate)

    @property
    def version(self) -> str:
        """Of goals and settings; the weights go on changing, and so does what a row is worth."""
        digest = hashlib.sha256(self._goals.tobytes())
        digest.update(repr(self.settings).encode())
        return f"vice {digest.hexdigest()[:12]}"

    def update(self, negatives: Float32Array) -> dict[str, float]:
        """One gradient step.

        Args:
            negatives: What was seen lately, shape (B, O), drawn from the *present* replay.

        Returns:
            Loss, penalty, and the part of each kind that the classifier gets right.

        Raises:
            ConfigError: No rows, or another width.
        """
        if not len(negatives):
            raise ConfigError("there are no negatives: update after the replay got its first rows")
        settings, rng = self.settings, self._rng
        bad = self._scaled(negatives)
        good = self._scaled(self._goals[rng.integers(0, len(self._goals), settings.batch)])
        inputs = torch.cat([good, bad])
        labels = torch.cat([torch.ones(len(good)), torch.zeros(len(bad))])
        smooth = settings.smoothing
        targets = labels * (1.0 - smooth) + 0.5 * smooth
        # Both kinds weigh the same, whatever the number of their rows.
        weights = torch.cat(
            [torch.full((len(good),), 0.5 / len(good)), torch.full((len(bad),), 0.5 / len(bad))]
        )
        inputs, targets = self._mixed(inputs, targets)
        inputs.requires_grad_()
        logits = self._net(inputs)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(
            logits, targets, weights, reduction="sum"
        )
        (slopes,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
        penalty = ((slopes.norm(dim=1) - 1.0) ** 2).mean()
        self._optimiser.zero_grad(set_to_none=True)
        (loss + settings.gradient_penalty * penalty).backward()
        self._optimiser.step()
        self.num_updates += 1
        with torch.no_grad():
            seen_good, seen_bad = (self._net(part)[:, 0] for part in (good, bad))
        return {
            "vice_loss": float(loss.detach()),
            "vice_penalty": float(penalty.detach()),
            "vice_goals_right": float((seen_good >= 0.0).float().mean()),
            "vice_replay_paid": float((seen_bad >= 0.0).float().mean()),
        }

    def _mixed(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup (arXiv 1710.09412): every row and its label blended with another one's."""
        alpha = self.settings.mixup
        if alpha == 0.0:
            return inputs, targets
        part = torch.tensor(self._rng.beta(alpha, alpha, len(inputs)), dtype=torch.float32)
        other = torch.from_numpy(self._rng.permutation(len(inputs)))
        mixed = part[:, None] * inputs + (1.0 - part[:, None]) * inputs[other]
        return mixed, part * targets + (1.0 - part) * targets[other]

    def probability(self, obs: Float32Array) -> npt.NDArray[np.float32]:
        """Probability of success of observations (n, O), shape (n,)."""
        with torch.no_grad():
            values: npt.NDArray[np.float32] = self._net(self._scaled(obs))[:, 0].sigmoid().numpy()
        return values

    def reward(self, next_obs: Float32Array) -> Float32Array:
        """What arriving at observations (n, O) pays by the present classifier, shape (n,)."""
        paid: Float32Array = (self.probability(next_obs) >= self.settings.threshold).astype(
            np.float32
        )
        return paid

    def relabelled(self, batch: Batch) -> dict[str, Any]:
        """A batch of one-step transitions whose reward is the present one.

        Call it each time a batch is drawn; `check_learner` says for whom that is enough.
        """
        found = dict(batch)
        found["reward"] = self.reward(np.asarray(batch["next_obs"], dtype=np.float32))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly; tensors and plain values for `torch.save`."""
        return {
            "version": self.version,
            "net": self._net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "mean": self._mean,
            "scale": self._scale,
            "num_updates": self.num_updates,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises:
            ConfigError: Other goals or settings.
        """
        if state["version"] != self.version:
            raise ConfigError(f"the state is of {state['version']}, not of {self.version}")
        self._mean, self._scale = state["mean"], state["scale"]
        self._net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.num_updates = int(state["num_updates"])
        self._rng.bit_generator.state = state["rng"]

    def _scaled(self, obs: Float32Array) -> Tensor:
        if obs.ndim != 2 or obs.shape[1] != len(self._mean):
            raise ConfigError(f"observations have shape {obs.shape}, not (n, {len(self._mean)})")
        values = torch.from_numpy(np.array(obs, dtype=np.float32))
        return (values - self._mean) * self._scale


def check_learner(config: LearnerConfig) -> None:
    """Refuse a learner to which a reward that is computed late means something else.

    Raises:
        ConfigError: Sums over several steps, or values of whole episodes, hold stored rewards.
    """
    if config.n_step != 1:
        raise ConfigError(
            f"learner.n_step={config.n_step}: VICE pays when a batch is drawn, which knows one "
            "step; set learner.n_step=1"
        )
    if config.conservative != "never" or config.offline_init == "calql":
        raise ConfigError(
            "Cal-QL compares with returns that were stored; VICE has none: use another preset"
        )


def _mlp(width: int, hidden: tuple[int, ...], seed: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.SiLU()]
            width = size
        layers.append(nn.Linear(width, 1))
    return nn.Sequential(*layers)
