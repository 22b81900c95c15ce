# SPDX-License-Identifier: Apache-2.0
"""Deterministic form of the residual actor (TD3, Fujimoto et al. 2018; as used by ResFiT).

Pure functions of tensors. Residual ``xi tanh(u)`` plus clipped noise in units of the normalised
action, never beyond +-xi:

    actor   E[ -Q(s, clip(a_base + xi tanh(u))) ]
    target  y = r + discount min_Z Q'(s', clip(a_base' + clip(xi tanh(u') + noise, -xi, xi)))
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_rl_ros.learning.residual import Drawn


def num_outputs(num_channels: int) -> int:
    """Width of the actor's head."""
    return num_channels


def draw(head: Tensor, noise: Tensor, xi: Tensor, *, std: float, noise_clip: float) -> Drawn:
    """Residuals with clipped noise.

    Args:
        head: Output of the actor, shape (B, C).
        noise: Standard normal, shape (B, C); zero for the policy itself.
        xi: Bound, scalar or of each channel, shape (C,).
        std: Standard deviation of the noise.
        noise_clip: Largest noise.
    """
    spread = (std * noise).clamp(-noise_clip, noise_clip)
    residual = torch.minimum(torch.maximum(xi * torch.tanh(head) + spread, -xi), xi)
    return Drawn(residual, torch.zeros_like(residual[..., 0]))


def mean(head: Tensor, xi: Tensor) -> Drawn:
    """Residuals without noise."""
    residual = xi * torch.tanh(head)
    return Drawn(residual, torch.zeros_like(residual[..., 0]))


def actor_loss(q: Tensor) -> Tensor:
    """Loss of the actor from values (B,)."""
    return -q.mean()
