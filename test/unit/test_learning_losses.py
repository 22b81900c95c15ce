# SPDX-License-Identifier: Apache-2.0
"""Losses of the residual learner against numbers worked out by hand or by torch's own means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from vla_rl_ros.learning import calql, grasp, sac, td, td3
from vla_rl_ros.learning.acting import Grasp
from vla_rl_ros.learning.networks import (
    actor_forward,
    actor_layout,
    critic_forward,
    critic_layout,
    initialise,
)
from vla_rl_ros.learning.residual import clipped_part, compose

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


def test_target_bootstraps_by_discount_and_success_cuts_it() -> None:
    reward, value = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([2.0, 2.0, 2.0])
    # Running on after five ticks, success, and truncation that keeps the bootstrap.
    discount = torch.tensor([0.99**5, 0.0, 0.99])
    assert td.target(reward, discount, value).tolist() == pytest.approx(
        [0.5 + 2.0 * 0.99**5, 1.0, 1.98]
    )


def test_td_loss_is_half_the_square_summed_over_critics() -> None:
    q = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    wanted = torch.tensor([0.0, 1.0])
    assert float(td.loss(q, wanted)) == pytest.approx(0.5 * (1 + 4) / 2 + 0.5 * (0 + 1) / 2)


def test_subset_picks_whole_critics() -> None:
    layout = critic_layout(5, 3, 2, (8,))
    views = layout.views(initialise(layout, generator(), is_end_zero=False))
    inputs = normal(4, 5)
    everyone = critic_forward(views, inputs)
    some = critic_forward(td.pick_critics(views, torch.tensor([3, 1])), inputs)
    assert torch.equal(some, everyone[[3, 1]])


def test_critic_equals_torch_layers_critic_by_critic() -> None:
    layout = critic_layout(3, 4, 2, (16, 8))
    views = layout.views(initialise(layout, generator(), is_end_zero=False))
    for name in ("scale_0", "shift_0", "bias_0", "scale_1", "shift_1", "bias_1", "bias_out"):
        views[name].add_(normal(*views[name].shape, seed=len(name)))
    inputs = normal(5, 6)
    for i in range(3):
        hidden = inputs
        for layer in (0, 1):
            hidden = hidden @ views[f"weight_{layer}"][i] + views[f"bias_{layer}"][i, 0]
            scale, shift = views[f"scale_{layer}"][i, 0], views[f"shift_{layer}"][i, 0]
            hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:], scale, shift).relu()
        wanted = hidden @ views["weight_out"][i] + views["bias_out"][i, 0]
        torch.testing.assert_close(critic_forward(views, inputs)[i], wanted)


def test_actor_with_a_zero_end_answers_exactly_zero() -> None:
    layout = actor_layout(6, (16, 16), 3)
    views = layout.views(initialise(layout, generator(), is_end_zero=True))
    assert torch.equal(actor_forward(views, 100.0 * normal(5, 6)), torch.zeros(5, 3))


def test_log_probability_is_that_of_the_squashed_gaussian_and_ignores_xi() -> None:
    head, noise = normal(7, 6, seed=1), normal(7, 3, seed=2)
    mean, log_std = head.chunk(2, -1)
    distribution = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform()
    )
    squashed = torch.tanh(mean + log_std.exp() * noise)
    wanted = distribution.log_prob(squashed).sum(-1)
    for xi in (0.1, 1.0):
        drawn = sac.draw(head, noise, torch.tensor(xi))
        torch.testing.assert_close(drawn.log_prob, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(drawn.residual, xi * squashed)


def test_channels_that_move_nothing_have_no_part_in_the_log_probability() -> None:
    head, noise = normal(7, 6, seed=1), normal(7, 3, seed=2)
    moved, bound = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.1, 0.0, 0.2])
    alone = sac.draw(head[:, [0, 2, 3, 5]], noise[:, [0, 2]], bound[[0, 2]])
    together = sac.draw(head, noise, bound, moved)
    torch.testing.assert_close(together.log_prob, alone.log_prob)
    torch.testing.assert_close(together.residual[:, [0, 2]], alone.residual)


def test_log_probability_stays_finite_far_out() -> None:
    head = torch.tensor([[30.0, -30.0, 0.0, 0.0]])
    drawn = sac.draw(head, torch.zeros(1, 2), torch.tensor(0.5))
    assert torch.isfinite(drawn.log_prob).all()
    assert drawn.residual.abs().max() <= 0.5


def test_entropy_raises_the_target() -> None:
    # log pi = -2: an entropy of 2 has to make the next state worth more.
    value = sac.soft_value(torch.tensor([1.0]), torch.tensor([-2.0]), torch.tensor(0.1))
    assert value.tolist() == pytest.approx([1.2])


def test_actor_loss_pays_for_entropy_and_value() -> None:
    loss = sac.actor_loss(torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 0.0]), torch.tensor(0.5))
    assert float(loss) == pytest.approx(((-1.0 - 1.0) + (0.0 - 3.0)) / 2)


@pytest.mark.parametrize(("log_prob", "grows"), [(5.0, True), (-5.0, False)])
def test_temperature_grows_where_entropy_is_too_low(log_prob: float, grows: bool) -> None:
    # Entropy is -log pi and the target is -2; a gradient below zero makes log alpha grow.
    gradient = sac.temperature_gradient(torch.zeros(1), torch.tensor([log_prob]), -2.0)
    assert (float(gradient) < 0.0) == grows
    assert float(gradient) == pytest.approx(-(log_prob - 2.0))


def test_td3_noise_is_clipped_and_never_leaves_the_bound() -> None:
    noise = torch.tensor([[100.0, -100.0, 0.1]])
    drawn = td3.draw(torch.zeros(1, 3), noise, torch.tensor(0.2), std=0.5, noise_clip=0.1)
    assert drawn.residual.tolist()[0] == pytest.approx([0.1, -0.1, 0.05])
    bold = td3.draw(torch.full((1, 3), 9.0), noise, torch.tensor(0.2), std=0.5, noise_clip=0.1)
    assert bold.residual.abs().max() <= 0.2


def test_composition_clips_and_stops_the_gradient_there() -> None:
    base = torch.tensor([[0.9, 0.0, 0.5]])
    residual = torch.tensor([[0.3, 0.3]], requires_grad=True)
    action = compose(base, residual)
    assert action.tolist()[0] == pytest.approx([1.0, 0.3])
    action.sum().backward()
    assert residual.grad is not None
    assert residual.grad.tolist() == [[0.0, 1.0]]
    assert float(clipped_part(base, residual.detach())) == 0.5


def test_calibration_is_a_floor_and_passes_no_gradient_below_it() -> None:
    q = torch.tensor([[[0.2, 2.0]]], requires_grad=True)
    bounded = calql.calibrate(q, torch.tensor([1.0, 1.0]))
    assert bounded.tolist() == [[[1.0, 2.0]]]
    bounded.sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [[[0.0, 1.0]]]


def test_soft_maximum_by_hand() -> None:
    q = torch.tensor([[[0.0], [math.log(3.0)]]])
    assert float(calql.log_sum_exp(q, None)) == pytest.approx(math.log((1 + 3) / 2))
    density = torch.tensor([[math.log(0.5)], [math.log(0.25)]])
    assert float(calql.log_sum_exp(q, density)) == pytest.approx(math.log((2 + 12) / 2))
    assert float(calql.uniform_log_density(torch.tensor(2.0))) == pytest.approx(math.log(0.25))


def test_penalty_is_the_gap_summed_over_critics() -> None:
    gap = calql.penalty(torch.tensor([[2.0, 4.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0]] * 2))
    assert float(gap) == pytest.approx(2.0)


def test_executed_grasp_is_told_from_the_base() -> None:
    action = torch.tensor([-1.0, 1.0, -1.0, 0.9])
    base = torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert grasp.executed_choice(action, base).tolist() == [
        Grasp.CLOSE, Grasp.OPEN, Grasp.KEEP, Grasp.KEEP,
    ]  # fmt: skip


def test_grasp_choice_has_to_differ_from_the_base_and_beat_it() -> None:
    q = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.05, 1.0, 0.0]])
    base = torch.tensor([1.0, -1.0, 0.0, 0.0])
    assert grasp.choose(q, base, 0.1).tolist() == [
        Grasp.CLOSE, Grasp.OPEN, Grasp.KEEP, Grasp.KEEP,
    ]  # fmt: skip
    assert np.allclose(grasp.value_of(q, torch.tensor([0, 1, 2, 0])), [3.0, 1.0, 0.0, 1.05])
