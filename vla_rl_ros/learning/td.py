# SPDX-License-Identifier: Apache-2.0
"""Temporal differences of a critic ensemble (REDQ, arXiv 2101.05982; RLPD, arXiv 2302.02948).

    y      = reward + discount V(s')
    V(s')  = min over a random Z of the E target critics of Q'(s', a')
    L_TD   = sum_i 1/2 E[(Q_i(s, a) - y)^2]

`reward` is the n-step sum and `discount` is ``gamma^n (1 - terminated)``: the end of an episode by
success cuts the bootstrap, the end by time does not.
"""

from __future__ import annotations

from torch import Tensor


def pick_critics(views: dict[str, Tensor], subset: Tensor) -> dict[str, Tensor]:
    """Views of the critics with the given indices, shape (Z,)."""
    return {name: view[subset] for name, view in views.items()}


def target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """What a critic should say, shape (B,)."""
    return reward + discount * next_value


def loss(q: Tensor, wanted: Tensor) -> Tensor:
    """Sum over critics of half the mean squared error; q is (E, B), wanted (B,)."""
    return 0.5 * (q - wanted).square().mean(-1).sum()
