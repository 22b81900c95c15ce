# SPDX-License-Identifier: Apache-2.0
"""A network as one flat vector with its Adam moments and target, and the step over all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vla_rl_ros.learning.networks import Layout

BETA_MEAN, BETA_SQUARE, EPSILON = 0.9, 0.999, 1e-8


class FlatNet:
    """Weights that learn.

    Every change happens in place, so that a compiled step may keep the addresses.

    Attributes:
        layout: Names and shapes.
        params: Weights, shape (P,).
        target: Slow average of the weights; None where nobody asks for it.
        mean: First moment of Adam.
        square: Second moment of Adam.
        count: Steps done, scalar.
    """

    def __init__(self, layout: Layout, params: Tensor, *, has_target: bool) -> None:
        """Begin with the given weights, shape (P,); the target begins equal."""
        self.layout = layout
        self.params = params
        self.target = params.clone() if has_target else None
        self.mean = torch.zeros_like(params)
        self.square = torch.zeros_like(params)
        self.count = torch.zeros((), device=params.device)

    def views(self) -> dict[str, Tensor]:
        """Weights by name."""
        return self.layout.views(self.params)

    def target_views(self) -> dict[str, Tensor]:
        """Target weights by name."""
        assert self.target is not None
        return self.layout.views(self.target)

    def step(
        self, gradients: Mapping[str, Tensor], learning_rate: float, max_norm: float = 0.0
    ) -> None:
        """One step of Adam (Kingma and Ba 2015).

        Args:
            gradients: By name, as `views`. By the flat vector itself every slice of it would cost
                a sweep over all.
            learning_rate: Step size.
            max_norm: Longer gradients are scaled down to it; 0 for no limit.
        """
        gradient = self.layout.joined(gradients)
        if max_norm > 0.0:
            gradient = gradient * (max_norm / (gradient.norm() + EPSILON)).clamp(max=1.0)
        self.count.add_(1.0)
        self.mean.lerp_(gradient, 1.0 - BETA_MEAN)
        self.square.lerp_(gradient * gradient, 1.0 - BETA_SQUARE)
        mean_correction = 1.0 - BETA_MEAN**self.count
        square_correction = 1.0 - BETA_SQUARE**self.count
        spread = (self.square / square_correction).sqrt() + EPSILON
        self.params.sub_(learning_rate / mean_correction * self.mean / spread)

    def track(self, tau: float) -> None:
        """Move the target towards the weights: ``target += tau (params - target)``."""
        if self.target is not None:
            self.target.lerp_(self.params, tau)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that changes."""
        tensors = {
            "params": self.params, "mean": self.mean, "square": self.square, "count": self.count
        }  # fmt: skip
        if self.target is not None:
            tensors["target"] = self.target
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        for name in self.state_dict():
            current: Tensor = getattr(self, name)
            if state[name].shape != current.shape:
                raise ValueError(f"{name} has {state[name].numel()} values, not {current.numel()}")
            current.copy_(state[name])
