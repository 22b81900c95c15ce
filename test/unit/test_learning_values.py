# SPDX-License-Identifier: Apache-2.0
"""What is learned on problems whose solution is known: values, residuals, the grasp."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vla_rl_ros.learning import calql, td
from vla_rl_ros.learning.acting import execute
from vla_rl_ros.learning.gradient_steps import GradientSteps
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig

torch.set_num_threads(1)
GAMMA, LENGTH, ROWS = 0.8, 3, 48
SMALL = LearnerConfig(hidden=(32,), critic_lr=5e-3, tau=0.05, normalise_obs=False)


def corridor(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three states in a row, reward 1 at the end whatever is done; the data acts near the base."""
    state = rng.integers(LENGTH, size=ROWS)
    is_last = state == LENGTH - 1
    one_hot = np.eye(LENGTH, dtype=np.float32)
    zeros = np.zeros((ROWS, 1), np.float32)
    return {
        "obs": one_hot[state],
        "next_obs": one_hot[np.minimum(state + 1, LENGTH - 1)],
        "base": zeros,
        "next_base": zeros,
        "action": rng.uniform(-0.05, 0.05, (ROWS, 1)).astype(np.float32),
        "reward": is_last.astype(np.float32),
        "discount": GAMMA * (1.0 - is_last).astype(np.float32),
        "mc_return": (GAMMA ** (LENGTH - 1 - state)).astype(np.float32),
        "is_demo": np.ones(ROWS, np.float32),
    }


def corridor_values(config: LearnerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Learned values of the policy's candidates and of the data's action, (N, LENGTH) each."""
    learner, rng = ResidualLearner(config, LENGTH, 1, seed=0), np.random.default_rng(0)
    for _ in range(100):
        learner.update(corridor(rng), critic_only=True, offline=True)
    obs = np.eye(LENGTH, dtype=np.float32)
    near = [learner.q(obs, np.full((LENGTH, 1), a)).mean(0) for a in (-0.6, -0.3, 0.3, 0.6)]
    return np.stack(near), learner.q(obs, np.zeros((LENGTH, 1))).mean(0)


CALQL = dataclasses.replace(
    SMALL,
    conservative="offline", offline_init="calql", offline_updates=1, xi=0.6, gamma=GAMMA,
    conservative_weight=0.2, num_candidates=4, target_std=0.3, noise_clip=0.6,
)  # fmt: skip
RETURNS = GAMMA ** np.arange(LENGTH - 1, -1, -1)


def tabular_values(*, is_calibrated: bool) -> torch.Tensor:
    """Values (LENGTH, 5) of the corridor by the losses alone; the data does action 2 of five."""
    returns = torch.from_numpy(RETURNS).float()
    q = torch.full((1, LENGTH, 5), 2.0, requires_grad=True)
    for _ in range(600):
        ahead = torch.cat([q.detach()[0, 1:, 2], torch.zeros(1)])
        reward = torch.tensor([0.0] * (LENGTH - 1) + [1.0])
        wanted = td.target(reward, torch.full((LENGTH,), GAMMA), ahead)
        candidates = q.transpose(1, 2)
        bounded = calql.calibrate(candidates, returns) if is_calibrated else candidates
        gap = calql.penalty(calql.log_sum_exp(bounded, None), q[:, :, 2])
        loss = LENGTH * (td.loss(q[:, :, 2], wanted) + 0.05 * gap)
        (gradient,) = torch.autograd.grad(loss, q)
        q.data -= 0.5 * gradient
    return q.detach()[0]


def test_calibrated_values_stop_at_the_return_where_cql_goes_on_falling() -> None:
    others = [0, 1, 3, 4]
    returns = torch.from_numpy(RETURNS).float()[:, None]
    calibrated = tabular_values(is_calibrated=True)
    assert torch.all(calibrated >= returns - 0.02)
    assert torch.all(calibrated[:, others] <= returns + 0.1)
    assert torch.all((calibrated[:, 2:3] - returns).abs() < 0.2)
    plain = tabular_values(is_calibrated=False)
    assert torch.all(plain[:, others] < returns - 0.3)


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_calibration_holds_the_policy_at_its_return_and_spares_its_neighbours(
    algorithm: str,
) -> None:
    config = dataclasses.replace(CALQL, algorithm=algorithm)
    near, at_base = corridor_values(config)
    assert np.all(at_base >= RETURNS - 0.1)
    plain, _ = corridor_values(dataclasses.replace(config, is_calibrated=False))
    assert np.all(plain < near - 2.0)


def test_offline_values_without_that_term_are_the_returns() -> None:
    _, at_base = corridor_values(dataclasses.replace(CALQL, conservative="never"))
    np.testing.assert_allclose(at_base, RETURNS, atol=0.08)


def test_offline_target_is_the_base_or_the_best_of_many() -> None:
    rng = np.random.default_rng(1)
    rows = {key: torch.from_numpy(value) for key, value in corridor(rng).items()}
    many = torch.randn(4, ROWS, 1, generator=torch.Generator().manual_seed(0))
    found = {}
    for how in ("base", "policy_max"):
        config = dataclasses.replace(CALQL, conservative="never", offline_target=how)
        config = dataclasses.replace(config, target_std=0.1, num_critics=3, num_target_critics=2)
        learner = ResidualLearner(config, LENGTH, 1, seed=0)
        steps = GradientSteps(config, learner.nets, 1)
        noise = {"next_many": many, "subset": torch.tensor([2, 0])}
        next_obs = rows["next_obs"].numpy()
        candidates = (
            (0.1 * many).clamp(-0.6, 0.6) if how == "policy_max" else torch.zeros(1, ROWS, 1)
        )
        q = np.stack([learner.q(next_obs, each.numpy())[[2, 0]].min(0) for each in candidates])
        wanted = rows["reward"].numpy() + rows["discount"].numpy() * q.max(0)
        with torch.no_grad():
            metrics = steps.critic(rows, noise, is_conservative=False, is_offline=True)
        found[how] = float(metrics[3])
        assert found[how] == pytest.approx(float(wanted.mean()), abs=1e-5)
    assert found["policy_max"] > found["base"]


@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_residual_goes_where_the_reward_is_and_no_further_than_xi(algorithm: str) -> None:
    config = dataclasses.replace(
        SMALL, algorithm=algorithm, xi=0.4, actor_lr=5e-3, actor_every=1, initial_temperature=1e-3
    )
    learner, rng = ResidualLearner(config, 1, 1, seed=0), np.random.default_rng(0)
    zeros = np.zeros(ROWS, np.float32)
    for _ in range(100):
        obs, base = rng.uniform(-0.5, 0.5, (2, ROWS, 1)).astype(np.float32)
        action = base + rng.uniform(-0.4, 0.4, (ROWS, 1)).astype(np.float32)
        learner.update({
            "obs": obs, "next_obs": obs, "base": base, "next_base": base, "action": action,
            "reward": np.sign(obs[:, 0]) * action[:, 0], "discount": zeros,
            "mc_return": zeros, "is_demo": zeros,
        })  # fmt: skip
    for obs in (-0.4, 0.4):
        residual = learner.act(np.array([obs]), np.zeros(1), deterministic=True)
        assert 0.25 < np.sign(obs) * float(residual[0]) <= np.float32(0.4)


def grasp_rows(rng: np.random.Generator, penalty: float) -> dict[str, np.ndarray]:
    """Reward 1 for an open gripper where obs > 0; the base always closes."""
    obs = rng.uniform(-1.0, 1.0, (ROWS, 1)).astype(np.float32)
    base = np.zeros((ROWS, 2), np.float32)
    base[:, 1] = -1.0
    action = base.copy()
    action[:, 1] = np.where(rng.random(ROWS) < 0.5, 1.0, -1.0)
    is_open = action[:, 1] > 0.0
    zeros = np.zeros(ROWS, np.float32)
    return {
        "obs": obs, "next_obs": obs, "base": base, "next_base": base, "action": action,
        "reward": ((obs[:, 0] > 0.0) & is_open).astype(np.float32), "discount": zeros,
        "mc_return": zeros, "is_demo": zeros,
        "grasp_penalty": np.where(is_open, np.float32(penalty), np.float32(0.0)),
    }  # fmt: skip


@pytest.mark.parametrize(("penalty", "opens"), [(-0.02, True), (-2.0, False)])
def test_grasp_critic_opens_where_it_pays_more_than_the_toggle(
    penalty: float, opens: bool
) -> None:
    config = dataclasses.replace(SMALL, grasp=True, grasp_margin=0.1, xi=0.0)
    learner, rng = ResidualLearner(config, 1, 2, seed=0), np.random.default_rng(0)
    for _ in range(100):
        learner.update(grasp_rows(rng, penalty), critic_only=True)
    base = np.array([0.0, -1.0])
    for obs in (-0.7, 0.7):
        executed = execute(base, learner.act(np.array([obs]), base, deterministic=True))
        assert executed[0] == 0.0
        assert executed[1] == (1.0 if opens and obs > 0.0 else -1.0)


def test_grasp_target_is_that_of_double_dqn() -> None:
    config = dataclasses.replace(SMALL, grasp=True, normalise_obs=False)
    learner = ResidualLearner(config, 1, 2, seed=0)
    net = learner.nets.grasp
    assert net is not None
    # Online says open is best, the target values it at 0.3; both ignore their inputs.
    net.views()["bias_out"].copy_(torch.tensor([[[0.1, 0.2, 0.9]]]))
    net.target_views()["bias_out"].copy_(torch.tensor([[[0.7, 0.5, 0.3]]]))
    rows = grasp_rows(np.random.default_rng(0), -0.02)
    rows |= {
        "discount": np.full(ROWS, 0.5, np.float32),
        "next_base": np.zeros((ROWS, 2), np.float32),
    }
    wanted = rows["reward"] + rows["grasp_penalty"] + 0.5 * 0.3
    chosen = np.where(rows["action"][:, 1] > 0.0, 0.9, 0.2)
    metrics = learner.update(rows, critic_only=True)
    assert metrics["grasp_loss"] == pytest.approx(
        float(0.5 * ((chosen - wanted) ** 2).mean()), rel=1e-4
    )
