# SPDX-License-Identifier: Apache-2.0
"""The gradient through the lowest critic alone is the one autograd finds through all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vla_rl_ros.learning.lowest_critic import lowest
from vla_rl_ros.learning.networks import critic_forward, critic_layout, initialise

torch.set_num_threads(1)
OBS, ACTIONS, ROWS = 5, 3, 17


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1]))


def ensemble(num_critics: int, hidden: tuple[int, ...]) -> dict[str, Tensor]:
    layout = critic_layout(num_critics, OBS, ACTIONS, hidden)
    generator = torch.Generator().manual_seed(0)
    flat = initialise(layout, generator, is_end_zero=False)
    # Scales, shifts and biases that are not all equal.
    return layout.views(flat + 0.1 * torch.randn(len(flat), generator=generator))


def by_autograd(views: dict[str, Tensor], obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    action = action.clone().requires_grad_()
    values = critic_forward(views, torch.cat([obs, action], 1))[..., 0].amin(0)
    (gradient,) = torch.autograd.grad(values.sum(), action)
    return values.detach(), gradient


@pytest.mark.parametrize("hidden", [(7,), (8, 6), (9, 5, 4)])
@pytest.mark.parametrize("num_critics", [1, 2, 10])
def test_value_and_gradient_are_those_of_autograd(
    num_critics: int, hidden: tuple[int, ...]
) -> None:
    views = ensemble(num_critics, hidden)
    obs, action = normal(ROWS, OBS), normal(ROWS, ACTIONS)
    wanted = by_autograd(views, obs, action)
    for ours, theirs in zip(lowest(views, obs, action), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_critics_that_are_never_lowest_have_no_part() -> None:
    views = ensemble(3, (8, 6))
    views["bias_out"][:] = torch.tensor([100.0, -100.0, 100.0]).view(3, 1, 1)
    obs, action = normal(ROWS, OBS), normal(ROWS, ACTIONS)
    _, gradient = lowest(views, obs, action)
    alone = {name: view[1:2] for name, view in views.items()}
    torch.testing.assert_close(gradient, by_autograd(alone, obs, action)[1])


def test_owners_without_rows_multiply_nothing() -> None:
    rows, matrices = normal(4, 2), normal(3, 2, 5)
    products = torch.ops.vla_rl_ros.owned_product(rows, matrices, torch.tensor([0, 3, 4]))
    assert torch.equal(products[:3], rows[:3] @ matrices[1])
    assert torch.equal(products[3:], rows[3:] @ matrices[2])
