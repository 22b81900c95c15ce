# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic form of the residual actor (Haarnoja et al. 2018; RLPD, arXiv 2302.02948).

Pure functions of tensors. With head ``(mean, log_std)``, ``u = mean + std eps`` and residual
``xi tanh(u)``:

    log pi  = sum_c [ log N(eps_c) - log std_c - log(1 - tanh(u_c)^2) ]
    actor   E[ alpha log pi - Q(s, clip(a_base + xi tanh(u))) ]
    alpha   E[ -log_alpha (log pi + target_entropy) ]
    target  y = r + discount (min_Z Q'(s', a') - alpha log pi(a'))     (last term optional)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from vla_rl_ros.learning.acting import LOG_STD_MAX, LOG_STD_MIN
from vla_rl_ros.learning.residual import Drawn

_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def num_outputs(num_channels: int) -> int:
    """Width of the actor's head: mean and log standard deviation."""
    return 2 * num_channels


def draw(head: Tensor, noise: Tensor, xi: Tensor, is_moved: Tensor | None = None) -> Drawn:
    """Residuals of the stochastic policy.

    Args:
        head: Output of the actor, shape (B, 2 C).
        noise: Standard normal, shape (B, C); zero for the mean.
        xi: Bound, scalar or of each channel, shape (C,).
        is_moved: 1 for each channel that counts in the log-probability, shape (C,); None for all.
            One that moves nothing must not: its entropy would stand in for that of the others.
    """
    mean, log_std = head.chunk(2, dim=-1)
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    u = mean + log_std.exp() * noise
    # log(1 - tanh(u)^2) without cancellation for large u.
    log_slope = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
    log_probs = -0.5 * noise.square() - _HALF_LOG_2_PI - log_std - log_slope
    if is_moved is not None:
        log_probs = log_probs * is_moved
    return Drawn(xi * torch.tanh(u), log_probs.sum(-1))


def soft_value(next_q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """Value of s' with its entropy: the log-probability is *subtracted*.

    RLPD's Algorithm 1 as printed adds it; its code and the theory of SAC subtract it.
    """
    return next_q - alpha * log_prob


def actor_loss(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """Loss of the actor from values (B,) and log-probabilities (B,)."""
    return (alpha * log_prob - q).mean()


def temperature_gradient(
    log_alpha: Tensor, log_prob: Tensor, target_entropy: Tensor | float
) -> Tensor:
    """Gradient of ``E[-alpha (log pi + target_entropy)]`` by log alpha, shape of `log_alpha`.

    The form with alpha in place of log alpha, as in RLPD's code: the step shrinks with alpha.
    """
    return -(log_alpha.exp() * (log_prob.mean() + target_entropy))
