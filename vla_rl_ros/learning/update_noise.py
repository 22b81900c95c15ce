# SPDX-License-Identifier: Apache-2.0
"""The random numbers of an update: which ones `gradient_steps` asks for, and in what order.

The learner draws them before a step, so that the step itself can be compiled. They come from the
CPU whatever the device is: the same seed gives the same numbers on all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_rl_ros.learning.presets import LearnerConfig


class UpdateNoise:
    """Noise of one learner's steps."""

    def __init__(
        self,
        config: LearnerConfig,
        num_channels: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Draw from a generator that stays the caller's, to be saved and restored.

        Args:
            config: Settings.
            num_channels: Continuous channels of an action, C.
            generator: On the CPU.
            device: Where the noise goes.
        """
        self._config, self._num_channels = config, num_channels
        self._generator, self._device = generator, device
        self._is_reduced = config.num_target_critics < config.num_critics

    def critic(
        self, num_rows: int, *, is_conservative: bool, is_offline: bool
    ) -> dict[str, Tensor]:
        """Noise of a critic step on B rows, for N candidates and Z target critics.

        Returns:
            What the kind of step needs of ``next`` (B, C), ``now_many`` and ``next_many``
            (N, B, C), standard normal; ``uniform`` (N, B, C) in [-1, 1); ``subset`` (Z,), indices.
        """
        config, channels = self._config, self._num_channels
        many = (config.num_candidates, num_rows, channels)
        noise: dict[str, Tensor] = {}
        if not is_offline:
            noise["next"] = self._normal(num_rows, channels)
        if is_conservative:
            uniform = torch.rand(many, generator=self._generator)
            noise["uniform"] = (2.0 * uniform - 1.0).to(self._device)
            noise["now_many"] = self._normal(*many)
        if is_conservative or (is_offline and config.offline_target == "policy_max"):
            noise["next_many"] = self._normal(*many)
        if self._is_reduced:
            order = torch.randperm(config.num_critics, generator=self._generator)
            noise["subset"] = order[: config.num_target_critics].to(self._device)
        return noise

    def actor(self, num_rows: int) -> dict[str, Tensor]:
        """Noise of an actor step on B rows: ``now`` (B, C), standard normal."""
        return {"now": self._normal(num_rows, self._num_channels)}

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)
