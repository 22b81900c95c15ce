# SPDX-License-Identifier: Apache-2.0
"""Whole updates against a plain torch implementation with modules, autograd and `torch.optim`."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from vla_rl_ros.learning.gradient_steps import GradientSteps
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.networks import Layout
from vla_rl_ros.learning.presets import LearnerConfig

torch.set_num_threads(1)
OBS, ACTIONS, ROWS, XI = 4, 2, 32, 0.3
CONFIG = LearnerConfig(
    hidden=(12, 8), num_critics=3, num_target_critics=2, xi=XI, gamma=0.9, tau=0.1,
    critic_lr=1e-2, actor_lr=1e-2, temperature_lr=1e-2, actor_every=1, target_std=0.2,
    noise_clip=0.25, bc_weight=0.5, residual_weight=0.1,
)  # fmt: skip
CASES = {
    "td3": CONFIG,
    "sac": dataclasses.replace(CONFIG, algorithm="sac", backup_entropy=True, actor_q="min"),
    "sac_clipped": dataclasses.replace(CONFIG, algorithm="sac", max_grad_norm=0.05),
}


class ReferenceCritic(nn.Module):
    """One critic out of the ensemble."""

    def __init__(self, views: dict[str, Tensor], index: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(2):
            layers += [_linear(views, f"{i}", index), nn.LayerNorm(CONFIG.hidden[i]), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _linear(views, "out", index))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.layers(torch.cat([obs, action], 1)).squeeze(1)


def _linear(views: dict[str, Tensor], name: str, index: int | None) -> nn.Linear:
    weight, bias = views[f"weight_{name}"], views[f"bias_{name}"]
    if index is not None:
        weight, bias = weight[index], bias[index, 0]
    linear = nn.Linear(*weight.shape)
    linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
    return linear


class Reference:
    """The same learner written the long way."""

    def __init__(self, learner: ResidualLearner) -> None:
        self.config = learner.config
        views = learner.nets.critic.views()
        self.critics = nn.ModuleList(
            ReferenceCritic(views, i) for i in range(self.config.num_critics)
        )
        self.targets = copy.deepcopy(self.critics)
        actor = learner.nets.actor.views()
        self.actor = nn.Sequential(
            _linear(actor, "0", None), nn.ReLU(), _linear(actor, "1", None), nn.ReLU(),
            _linear(actor, "out", None),
        )  # fmt: skip
        self.log_alpha = learner.nets.temperature.params.clone().requires_grad_()
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), self.config.critic_lr)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), self.config.actor_lr)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], self.config.temperature_lr)

    def policy(self, obs: Tensor, base: Tensor, noise: Tensor, std: float) -> tuple[Tensor, ...]:
        head = self.actor(torch.cat([obs, base], 1))
        if self.config.algorithm == "td3":
            spread = (std * noise).clamp(-self.config.noise_clip, self.config.noise_clip)
            residual = (XI * torch.tanh(head) + spread).clamp(-XI, XI)
            return (base + residual).clamp(-1, 1), torch.zeros(len(obs)), residual
        mean, log_std = head.chunk(2, 1)
        gaussian = torch.distributions.Normal(mean, log_std.exp())
        squash = torch.distributions.TanhTransform(cache_size=1)
        both = torch.distributions.TransformedDistribution(gaussian, squash)
        unit = squash(mean + log_std.exp() * noise)
        return (base + XI * unit).clamp(-1, 1), both.log_prob(unit).sum(1), XI * unit

    def update(self, rows: dict[str, Tensor], noise: dict[str, Tensor]) -> None:
        with torch.no_grad():
            action, log_prob, _ = self.policy(
                rows["next_obs"], rows["next_base"], noise["next"], self.config.target_std
            )
            chosen = [self.targets[i] for i in noise["subset"].tolist()]
            value = torch.stack([q(rows["next_obs"], action) for q in chosen]).amin(0)
            if self.config.backup_entropy:
                value = value - self.log_alpha.exp() * log_prob
            wanted = rows["reward"] + rows["discount"] * value
        losses = [
            0.5 * nn.functional.mse_loss(q(rows["obs"], rows["action"]), wanted)
            for q in self.critics
        ]
        self._step(self.critic_adam, sum(losses), self.critics.parameters())
        for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            slow.data += self.config.tau * (fast.data - slow.data)

        action, log_prob, residual = self.policy(rows["obs"], rows["base"], noise["now"], 0.0)
        values = torch.stack([q(rows["obs"], action) for q in self.critics])
        value = values.mean(0) if self.config.actor_q == "mean" else values.amin(0)
        imitation = rows["is_demo"] * (action - rows["action"]).square().sum(1)
        loss = (
            (self.log_alpha.exp().detach() * log_prob - value).mean()
            + self.config.bc_weight * imitation.mean()
            + self.config.residual_weight * (residual / XI).square().sum(1).mean()
        )
        if self.config.algorithm == "td3":
            loss = loss - (self.log_alpha.exp().detach() * log_prob).mean()
        self._step(self.actor_adam, loss, self.actor.parameters())
        if self.config.algorithm == "sac":
            entropy = self.config.entropy_per_dim * ACTIONS
            alpha_loss = -(self.log_alpha.exp() * (log_prob.detach() + entropy)).mean()
            self.alpha_adam.zero_grad()
            alpha_loss.backward()
            self.alpha_adam.step()

    def _step(self, adam: torch.optim.Adam, loss: Tensor, weights: object) -> None:
        self.critic_adam.zero_grad()
        self.actor_adam.zero_grad()
        loss.backward()
        if self.config.max_grad_norm > 0.0:
            nn.utils.clip_grad_norm_(weights, self.config.max_grad_norm)  # type: ignore[arg-type]
        adam.step()


def rows_of(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows = {
        "obs": normal(ROWS, OBS), "next_obs": normal(ROWS, OBS),
        "base": normal(ROWS, ACTIONS).tanh(), "next_base": normal(ROWS, ACTIONS).tanh(),
        "action": normal(ROWS, ACTIONS).tanh(), "reward": normal(ROWS),
        "discount": 0.9 * (normal(ROWS) > -1.0).float(), "is_demo": (normal(ROWS) > 0.0).float(),
        "mc_return": normal(ROWS),
    }  # fmt: skip
    subset = torch.randperm(3, generator=generator)[:2]
    noise = {"next": normal(ROWS, ACTIONS), "now": normal(ROWS, ACTIONS), "subset": subset}
    return rows, noise


@pytest.mark.parametrize("name", sorted(CASES))
def test_updates_equal_modules_autograd_and_torch_adam(name: str) -> None:
    learner = ResidualLearner(CASES[name], OBS, ACTIONS, seed=0)
    # The zero end hides the layers before it from the first gradients.
    end = learner.nets.actor.views()["weight_out"]
    end.copy_(0.5 * torch.randn(end.shape, generator=torch.Generator().manual_seed(7)))
    reference = Reference(learner)
    steps = GradientSteps(learner.config, learner.nets, ACTIONS)
    for seed in range(5):
        rows, noise = rows_of(seed)
        with torch.no_grad():
            steps.critic(rows, noise, is_conservative=False, is_offline=False)
            steps.actor(rows, noise)
        reference.update(rows, noise)
    critic = learner.nets.critic
    for params, modules in (
        (critic.params, reference.critics),
        (critic.target, reference.targets),
    ):
        assert params is not None
        assert_equal(critic.layout, params, [module.layers for module in modules])
    assert_equal(learner.nets.actor.layout, learner.nets.actor.params, [reference.actor])
    torch.testing.assert_close(
        learner.nets.temperature.params, reference.log_alpha.detach(), rtol=1e-5, atol=1e-6
    )


def assert_equal(layout: Layout, params: Tensor, networks: list[nn.Sequential]) -> None:
    views = layout.views(params)
    for index, network in enumerate(networks):
        linears = [module for module in network if isinstance(module, nn.Linear)]
        for name, linear in zip(("0", "1", "out"), linears, strict=True):
            weight, bias = views[f"weight_{name}"], views[f"bias_{name}"]
            if weight.ndim == 3:
                weight, bias = weight[index], bias[index, 0]
            torch.testing.assert_close(weight, linear.weight.data.T, rtol=1e-4, atol=2e-5)
            torch.testing.assert_close(bias, linear.bias.data, rtol=1e-4, atol=2e-5)
