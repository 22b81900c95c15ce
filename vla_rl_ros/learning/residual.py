# SPDX-License-Identifier: Apache-2.0
"""Base plus bounded residual inside gradient steps: ``a = clip(a_base + xi tanh(u), -1, 1)``.

Everything is normalised to [-1, 1]. The critic sees executed actions only (PLD, arXiv 2511.00091;
ResFiT, arXiv 2509.19301); the actor sees observation and base. Acting composes in `acting`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class Drawn:
    """Residuals a policy drew.

    Attributes:
        residual: Bounded residual, shape (B, C).
        log_prob: Of ``tanh(u)``, not rescaled by xi, shape (B,); zero for a deterministic policy.
    """

    residual: Tensor
    log_prob: Tensor


def compose(base: Tensor, residual: Tensor) -> Tensor:
    """Executed action, shape (..., C); no gradient flows where the sum leaves [-1, 1].

    Args:
        base: Base action, shape (..., A); only its first C channels count, the rest are chosen by
            a grasp critic.
        residual: Bounded residual, shape (..., C).
    """
    return (base[..., : residual.shape[-1]] + residual).clamp(-1.0, 1.0)


def clipped_part(base: Tensor, residual: Tensor) -> Tensor:
    """Part of the channels in which the clip holds the residual back."""
    total = base[..., : residual.shape[-1]] + residual
    return (total.abs() > 1.0).float().mean()


def join(obs: Tensor, other: Tensor) -> Tensor:
    """Input of a network: observation (B, O) beside base or action (B, X)."""
    return torch.cat([obs, other], dim=-1)
