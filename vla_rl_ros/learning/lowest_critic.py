# SPDX-License-Identifier: Apache-2.0
"""Smallest value of a critic ensemble, with its gradient by the action.

Only the critic that attains the minimum has a gradient. Sent back through that one, a row costs
what one critic costs, however large the ensemble is; autograd multiplies zeros in all the others.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from vla_rl_ros.learning.networks import critic_end, critic_layers, normalised


def lowest(views: dict[str, Tensor], obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Value of the most pessimistic critic of each row and its gradient.

    Args:
        views: Arrays of `networks.critic_layout`, one output each.
        obs: Shape (B, O).
        action: Shape (B, C).

    Returns:
        Values (B,), and their gradients by the action (B, C).
    """
    layers = critic_layers(views, action, given=obs)
    values = critic_end(views, layers[-1])[..., 0]
    critic, row = values.argmin(0).sort(stable=True)
    every = torch.arange(len(values), device=critic.device)
    ends = (critic <= every.unsqueeze(1)).sum(1)

    gradient = views["weight_out"][critic, :, 0]
    for i in reversed(range(len(layers))):
        own = {name: views[name][critic, 0] for name in (f"scale_{i}", f"shift_{i}")}
        activation = partial(normalised, own, i)
        (gradient,) = torch.func.vjp(activation, layers[i][critic, row])[1](gradient)
        if i > 0:
            gradient = torch.ops.vla_rl_ros.owned_product(gradient, views[f"weight_{i}"].mT, ends)
    by_action = views["weight_0"][critic, obs.shape[-1] :]
    gradient = (gradient.unsqueeze(1) * by_action).sum(-1)
    return values.amin(0), torch.zeros_like(gradient).index_copy(0, row, gradient)


def _owned_product(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """Each row times the matrix of its owner.

    An operator of its own, because a step that is compiled whole cannot have sizes that depend on
    data. Torch's `grouped_mm` takes nothing but bfloat16 there.

    Args:
        rows: Shape (B, K), sorted by owner.
        matrices: One for each owner, shape (E, K, N).
        ends: Number of rows up to and with each owner's, shape (E,).

    Returns:
        Shape (B, N).
    """
    products = rows.new_empty(len(rows), matrices.shape[2])
    first = 0
    for matrix, end in zip(matrices.unbind(), ends.tolist(), strict=True):
        torch.mm(rows[first:end], matrix, out=products[first:end])
        first = end
    return products


def _owned_product_shape(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(len(rows), matrices.shape[2])


_NAME = "vla_rl_ros::owned_product"
torch.library.define(_NAME, "(Tensor rows, Tensor matrices, Tensor ends) -> Tensor")
torch.library.impl(_NAME, "CompositeExplicitAutograd", _owned_product)
torch.library.register_fake(_NAME, _owned_product_shape)
