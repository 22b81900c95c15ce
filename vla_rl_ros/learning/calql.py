# SPDX-License-Identifier: Apache-2.0
"""Calibrated conservative critic (Cal-QL, arXiv 2303.05479), on residual candidates.

    L_i     = 1/2 E[(Q_i(s, a) - y)^2] + weight (LSE_i(s) - E[Q_i(s, a)])
    LSE_i   = log sum_c exp(Qcal_i(s, a_c) - log mu(a_c))
    Qcal_i  = max(Q_i(s, a_c), G(s))

G is the Monte-Carlo return of the recorded trajectory. Without the max this is CQL, which teaches
values below any policy's return and makes the first online actions look good for nothing. The
paper leaves the uniform candidates unbounded; as ours lie around the base, whose return G is,
`calibrate_uniform` bounds them as well.

Candidates lie in the executable set ``clip(a_base + xi w)``, w in [-1, 1]^C: w uniform, w of the
policy at s, and w of the policy at s' applied at s. Densities mu are those of w.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform_log_density(num_channels: Tensor) -> Tensor:
    """Log density of w uniform in [-1, 1]^C, scalar like C."""
    return num_channels * math.log(0.5)


def calibrate(q: Tensor, mc_return: Tensor) -> Tensor:
    """Bound values (E, N, B) of candidates from below by the return (B,)."""
    return torch.maximum(q, mc_return)


def log_sum_exp(q: Tensor, log_density: Tensor | None) -> Tensor:
    """Soft maximum over candidates, (E, N, B) to (E, B).

    Args:
        q: Values of the candidates.
        log_density: Log mu of each, shape (N, B); None where the policy has none, then all weigh
            the same.
    """
    if log_density is None:
        return torch.logsumexp(q, 1) - math.log(q.shape[1])
    # 1 / N makes the sum an estimate of the integral of exp(Q), whatever N is.
    return torch.logsumexp(q - log_density, 1) - math.log(q.shape[1])


def penalty(soft_maximum: Tensor, q_data: Tensor) -> Tensor:
    """Sum over critics of how much candidates are valued above data; both (E, B)."""
    return (soft_maximum - q_data).mean(-1).sum()
