# SPDX-License-Identifier: Apache-2.0
"""The learner as a whole: identity at the start, exact repetition and resume, what moves what."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl_ros.core.errors import ConfigError, LearningError
from vla_rl_ros.learning.acting import ResidualActor, execute
from vla_rl_ros.learning.gradient_steps import (
    CONSERVATIVE_METRICS,
    CRITIC_METRICS,
    GradientSteps,
)
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import PRESETS, LearnerConfig, preset

torch.set_num_threads(1)
OBS, A, B = 5, 3, 16
SMALL = LearnerConfig(hidden=(16, 16), actor_every=1)
SAC = dataclasses.replace(SMALL, algorithm="sac")


def batch(seed: int = 0, **changes: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)

    rows = {
        "obs": draw(B, OBS), "base": draw(B, A), "next_obs": draw(B, OBS), "next_base": draw(B, A),
        "action": draw(B, A), "reward": draw(B), "discount": np.full(B, 0.9, np.float32),
        "mc_return": draw(B), "is_demo": np.zeros(B, np.float32),
        "grasp_penalty": np.zeros(B, np.float32),
    }  # fmt: skip
    for key, value in changes.items():
        rows[key] = np.broadcast_to(np.float32(value), rows[key].shape)  # type: ignore[arg-type]
    return rows


def small(name: str) -> LearnerConfig:
    return dataclasses.replace(preset(name), hidden=(16, 16), num_candidates=3)


def flat(learner: ResidualLearner) -> dict[str, torch.Tensor]:
    state = learner.nets.state_dict()
    nets = ((name, values) for name, values in state.items() if isinstance(values, dict))
    return {f"{name}.{key}": value for name, values in nets for key, value in values.items()}


def assert_same(one: ResidualLearner, other: ResidualLearner) -> None:
    ours, theirs = flat(one), flat(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_untrained_residual_leaves_the_base_bit_for_bit(name: str) -> None:
    config = small(name)
    learner = ResidualLearner(config, OBS, A, seed=3)
    actor = ResidualActor(learner.weights())
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for base in (*rng.uniform(-1.0, 1.0, (20, A)), np.array([-0.0, 1.0, -1.0])):
            wanted = base.astype(dtype)
            obs = 10.0 * rng.standard_normal(OBS)
            for acts in (lambda o, b: learner.act(o, b, deterministic=True), actor.act):
                executed = execute(wanted, acts(obs, wanted))
                assert executed.dtype == dtype
                assert executed.tobytes() == wanted.tobytes()


@given(
    st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3),
    st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3),
)
def test_execution_stays_in_range_and_keeps_untouched_channels(
    base: list[float], residual: list[float]
) -> None:
    action = execute(np.array(base), np.array(residual))
    assert np.all(np.abs(action) <= 1.0)
    for each, given_base, given_residual in zip(action, base, residual, strict=True):
        if given_residual == 0.0:
            assert each == given_base


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_same_seed_and_batches_give_the_same_weights(name: str) -> None:
    one, other = (ResidualLearner(small(name), OBS, A, seed=1) for _ in range(2))
    for i in range(4):
        kind = {"offline": i < 2, "critic_only": i == 1}
        assert one.update(batch(i), **kind) == other.update(batch(i), **kind)
    assert_same(one, other)
    different = ResidualLearner(small(name), OBS, A, seed=2)
    assert not torch.equal(different.nets.critic.params, one.nets.critic.params)


@pytest.mark.parametrize("name", ["pld", "rlpd", "hil_serl", "calql"])
def test_resume_continues_as_if_never_stopped(name: str) -> None:
    config = small(name)
    straight = ResidualLearner(config, OBS, A, seed=1)
    straight.fit_normaliser(batch(9)["obs"])
    obs, base = batch(8)["obs"][0], batch(8)["base"][0]
    resumed = ResidualLearner(config, OBS, A, seed=77)
    for i in range(6):
        if i == 3:
            file = io.BytesIO()
            torch.save(straight.state_dict(), file)
            file.seek(0)
            resumed.load_state_dict(torch.load(file, weights_only=True))
        straight.update(batch(i))
        acted = straight.act(obs, base)
        if i >= 3:
            resumed.update(batch(i))
            assert np.array_equal(acted, resumed.act(obs, base))
    assert resumed.num_updates == straight.num_updates == 6
    assert_same(straight, resumed)


def test_state_of_another_learner_is_refused_by_name() -> None:
    state = ResidualLearner(SMALL, OBS, A, seed=0).state_dict()
    with pytest.raises(ConfigError, match=r"tau=0\.01"):
        ResidualLearner(dataclasses.replace(SMALL, tau=0.5), OBS, A, seed=0).load_state_dict(state)
    with pytest.raises(ConfigError, match="obs_dim"):
        ResidualLearner(SMALL, OBS + 1, A, seed=0).load_state_dict(state)
    with pytest.raises(ConfigError, match="not the state"):
        ResidualLearner(SMALL, OBS, A, seed=0).load_state_dict({"config": state["config"]})


@pytest.mark.parametrize("config", [SMALL, SAC], ids=["td3", "sac"])
def test_critic_phase_moves_neither_actor_nor_temperature(config: LearnerConfig) -> None:
    learner = ResidualLearner(config, OBS, A, seed=0)
    before = flat(learner)
    learner.update(batch(), critic_only=True)
    after = flat(learner)
    for name, value in before.items():
        is_critic = name.startswith("critic")
        assert torch.equal(value, after[name]) != is_critic, name


@pytest.mark.parametrize("config", [SMALL, SAC], ids=["td3", "sac"])
def test_actor_step_leaves_the_critics_alone(config: LearnerConfig) -> None:
    critic_only, both = (ResidualLearner(config, OBS, A, seed=0) for _ in range(2))
    critic_only.update(batch(), critic_only=True)
    both.update(batch())
    assert torch.equal(critic_only.nets.critic.params, both.nets.critic.params)
    assert not torch.equal(critic_only.nets.actor.params, both.nets.actor.params)


def test_actor_moves_every_so_many_updates() -> None:
    learner = ResidualLearner(dataclasses.replace(SMALL, actor_every=3), OBS, A, seed=0)
    has_moved = ["actor_loss" in learner.update(batch(i)) for i in range(6)]
    assert has_moved == [False, False, True] * 2


def test_slow_average_acts_and_is_what_a_restored_policy_learns_from() -> None:
    config = dataclasses.replace(SMALL, acting_tau=0.25, actor_lr=1e-2)
    learner, name = ResidualLearner(config, OBS, A, 0), "actor.weight_out"
    learned = [learner.nets.actor.views()["weight_out"].numpy().copy()]
    for seed in range(3):
        learner.update(batch(seed))
        learned.append(learner.nets.actor.views()["weight_out"].numpy().copy())
    average = learned[0]
    for each in learned[1:]:
        average = average + 0.25 * (each - average)
    np.testing.assert_allclose(learner.weights()[name], average, atol=1e-7)
    assert not np.allclose(learned[-1], average)

    other = ResidualLearner(config, OBS, A, 1)
    other.load(learner.weights())
    np.testing.assert_array_equal(other.weights()[name], learner.weights()[name])
    np.testing.assert_array_equal(other.nets.actor.params, other.nets.actor.target)


def test_critic_sees_the_executed_action_and_not_the_base() -> None:
    plain, moved_base, moved_action = (ResidualLearner(SMALL, OBS, A, seed=0) for _ in range(3))
    wanted = plain.update(batch(), critic_only=True)
    assert moved_base.update(batch(base=0.1), critic_only=True) == wanted
    assert moved_action.update(batch(action=0.1), critic_only=True) != wanted


def test_target_takes_the_composed_next_action() -> None:
    config = dataclasses.replace(SMALL, target_std=0.0, normalise_obs=False)
    learner, rows = ResidualLearner(config, OBS, A, seed=0), batch()
    # Untrained: the residual is zero and the target critics equal the critics.
    next_q = learner.q(rows["next_obs"], rows["next_base"]).min(0)
    wanted = rows["reward"] + rows["discount"] * next_q
    metrics = learner.update(rows, critic_only=True)
    assert metrics["target_mean"] == pytest.approx(float(wanted.mean()), abs=1e-5)


def test_residual_reaches_the_target_within_its_bound_and_clip() -> None:
    config = dataclasses.replace(SMALL, target_std=0.0, xi=0.5, normalise_obs=False)
    learner, rows = ResidualLearner(config, OBS, A, seed=0), batch(next_base=0.8)
    learner.nets.actor.views()["bias_out"].fill_(20.0)
    next_q = learner.q(rows["next_obs"], np.ones((B, A))).min(0)
    metrics = learner.update(rows, critic_only=True)
    wanted = float((rows["reward"] + rows["discount"] * next_q).mean())
    assert metrics["target_mean"] == pytest.approx(wanted, abs=1e-5)


def test_terminal_rows_have_the_reward_as_target() -> None:
    learner, rows = ResidualLearner(SMALL, OBS, A, seed=0), batch(discount=0.0)
    metrics = learner.update(rows)
    assert metrics["target_mean"] == pytest.approx(float(rows["reward"].mean()), abs=1e-6)


def test_targets_stay_within_what_the_reward_can_pay() -> None:
    clipped = dataclasses.replace(SMALL, clip_target=True)
    learner = ResidualLearner(clipped, OBS, A, seed=0, value_range=(-1.0, 2.0))
    assert learner.update(batch(reward=7.0))["target_mean"] == 2.0
    assert learner.update(batch(reward=-7.0))["target_mean"] == -1.0
    for unbound in (
        ResidualLearner(clipped, OBS, A, seed=0),
        ResidualLearner(SMALL, OBS, A, seed=0, value_range=(-1.0, 2.0)),
    ):
        assert unbound.update(batch(reward=7.0))["target_mean"] > 2.0


def test_from_scratch_ignores_the_base() -> None:
    config = dataclasses.replace(SMALL, from_scratch=True, xi=1.0)
    one, other = (ResidualLearner(config, OBS, A, seed=0) for _ in range(2))
    for i in range(3):
        assert one.update(batch(i)) == other.update(batch(i) | {"base": -batch(i)["base"]})
    obs, base = batch()["obs"][0], batch()["base"][0]
    actions = [execute(b, one.act(obs, b, deterministic=True)) for b in (base, -base)]
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-6)


def test_weights_carry_the_whole_policy() -> None:
    learner = ResidualLearner(SAC, OBS, A, seed=0)
    learner.fit_normaliser(5.0 + 3.0 * batch()["obs"])
    for i in range(3):
        learner.update(batch(i))
    learner.xi = 0.3
    actor, other = ResidualActor(learner.weights()), ResidualLearner(SAC, OBS, A, seed=9)
    other.load(learner.weights())
    obs, base = batch()["obs"][0], batch()["base"][0]
    wanted = learner.act(obs, base, deterministic=True)
    assert np.any(wanted)
    assert np.array_equal(actor.act(obs, base), wanted)
    assert np.array_equal(other.act(obs, base, deterministic=True), wanted)
    assert actor.xi == pytest.approx(0.3)
    incomplete = learner.weights()
    del incomplete["actor.bias_out"]
    with pytest.raises(ConfigError, match=r"actor\.bias_out"):
        other.load(incomplete)
    with pytest.raises(ConfigError, match="not of a residual actor"):
        ResidualActor(incomplete)


def test_numpy_policy_equals_the_one_that_learns() -> None:
    from vla_rl_ros.learning import sac
    from vla_rl_ros.learning.networks import actor_forward

    learner = ResidualLearner(SAC, OBS, A, seed=0)
    for i in range(20):
        learner.update(batch(i))
    rows = batch(50)
    obs, base = torch.from_numpy(rows["obs"]), torch.from_numpy(rows["base"])
    head = actor_forward(learner.nets.actor.views(), torch.cat([obs, base], 1))
    wanted = sac.draw(head, torch.zeros(B, A), learner.nets.xi).residual
    acted = [
        learner.act(o, b, deterministic=True)
        for o, b in zip(rows["obs"], rows["base"], strict=True)
    ]
    np.testing.assert_allclose(np.stack(acted), wanted.numpy(), rtol=1e-4, atol=1e-7)


@settings(max_examples=20)
@given(st.floats(0.0, 2.0), st.integers(0, 100))
def test_exploration_never_leaves_the_bound(xi: float, seed: int) -> None:
    for config in (SMALL, SAC):
        learner = ResidualLearner(config, OBS, A, seed=seed)
        learner.xi = xi
        residual = learner.act(np.ones(OBS), np.zeros(A))
        assert np.all(np.abs(residual) <= np.float32(xi))


@pytest.mark.parametrize("config", [SMALL, SAC])
def test_parts_of_the_bound_hold_channels_back(config: LearnerConfig) -> None:
    parts = (1.0, 0.5, *(0.0,) * (A - 2))
    config = dataclasses.replace(config, xi=0.4, xi_parts=parts, actor_lr=0.1)
    learner = ResidualLearner(config, OBS, A, seed=0)
    for i in range(20):
        learner.update(batch(i))
    actor = ResidualActor(learner.weights())
    np.testing.assert_allclose(actor.bound, 0.4 * np.array(parts), rtol=1e-6)
    np.testing.assert_allclose(learner.bound, actor.bound)
    obs, base, rng = batch()["obs"], batch()["base"], np.random.default_rng(0)
    moved = np.array([actor.act(o, b, rng=rng) for o, b in zip(obs, base, strict=True)])
    assert np.all(np.abs(moved) <= actor.bound)
    assert np.any(np.abs(moved[:, 0]) > 0.5 * 0.4)
    # Weights of before there were parts use all of the bound, in every channel.
    old = learner.weights()
    del old["xi_parts"]
    learner.load(old)
    assert np.all(learner.bound == np.float32(0.4))
    assert np.all(ResidualActor(old).bound == np.float32(0.4))


def test_target_entropy_is_that_of_the_channels_that_move() -> None:
    config = dataclasses.replace(
        SAC, xi_parts=(1.0, *(0.0,) * (A - 1)), entropy_per_dim=-0.5, actor_lr=0.0
    )
    learner = ResidualLearner(config, OBS, A, seed=0)
    before = float(learner.nets.temperature.params[0])
    metrics = learner.update(batch())
    # Entropy is -log pi; where it is below the target, log alpha grows.
    grew = float(learner.nets.temperature.params[0]) > before
    assert grew == (-metrics["log_prob"] < -0.5)
    # One channel of this deviation: three would have a log-probability below -1.
    assert abs(metrics["log_prob"]) < 1.0


def test_conservative_candidates_have_densities_of_the_channels_that_move() -> None:
    config = dataclasses.replace(
        small("calql"), algorithm="sac", xi_parts=(1.0, 0.0, 0.0), is_calibrated=False,
        offline_target="base",
    )  # fmt: skip
    learner = ResidualLearner(config, OBS, A, seed=0)
    learner.nets.critic.params.zero_()
    rows = {name: torch.from_numpy(values) for name, values in batch().items()}
    noise = {name: torch.zeros(3, B, A) for name in ("uniform", "now_many", "next_many")}
    noise["subset"] = torch.arange(config.num_target_critics)
    steps = GradientSteps(config, learner.nets, A)
    found = steps.critic(rows, noise, is_conservative=True, is_offline=True)
    # All values are zero, so the gap is that of the densities: uniform, and normal at its mean.
    normal = np.exp(-config.initial_log_std) / np.sqrt(2.0 * np.pi)
    gap = np.log((3 / 0.5 + 6 / normal) / 9)
    names = (*CRITIC_METRICS, *CONSERVATIVE_METRICS)
    assert found[names.index("conservative_gap")] == pytest.approx(
        config.num_critics * gap, rel=1e-5
    )


def test_a_grasp_critic_has_no_part_of_the_bound() -> None:
    with pytest.raises(ConfigError, match="let it end with 1"):
        dataclasses.replace(preset("hil_serl"), xi_parts=(1.0, 1.0, 0.5))
    dataclasses.replace(preset("hil_serl"), xi_parts=(1.0, 0.5, 1.0))


def test_states_of_before_a_setting_existed_are_continued_and_adopted() -> None:
    learner = ResidualLearner(SMALL, OBS, A, seed=0)
    learner.update(batch())
    state = learner.state_dict()
    for name in ("xi_parts", "acting_tau"):
        del state["config"][name]
    del state["nets"]["xi_parts"]
    again = ResidualLearner(SMALL, OBS, A, seed=1)
    again.load_state_dict(state)
    assert_same(again, learner)
    assert torch.equal(again.nets.xi_parts, torch.ones(A))
    slow = ResidualLearner(dataclasses.replace(SMALL, acting_tau=0.5), OBS, A, seed=1)
    slow.adopt(state)
    assert torch.equal(slow.nets.actor.target, learner.nets.actor.params)
    bound = dataclasses.replace(SMALL, xi_parts=(1.0,) * (A - 1) + (0.0,))
    with pytest.raises(ConfigError, match=r"xi_parts=\(\)"):
        ResidualLearner(bound, OBS, A, seed=1).adopt(state)


def test_the_widest_weights_reach_as_far_as_the_settings_allow() -> None:
    config = dataclasses.replace(SMALL, xi=0.4, xi_parts=(1.0, 0.5, 0.0))
    learner = ResidualLearner(config, OBS, A, seed=0)
    learner.xi = 0.0
    widest = ResidualActor(learner.widest_weights())
    np.testing.assert_allclose(widest.bound, [0.4, 0.2, 0.0], rtol=1e-6)
    assert ResidualActor(learner.weights()).bound.max() == 0.0


def test_parts_of_the_bound_are_one_per_channel() -> None:
    with pytest.raises(ConfigError, match="xi_parts has 2 values"):
        ResidualLearner(dataclasses.replace(SMALL, xi_parts=(1.0, 1.0)), OBS, A, seed=0)


def test_normaliser_scales_once_and_spares_still_channels() -> None:
    learner = ResidualLearner(SMALL, OBS, A, seed=0)
    obs = batch()["obs"].astype(np.float64) * 10.0
    obs[:, 0] = 4.0
    learner.fit_normaliser(obs)
    scaled = learner.nets.scaled(torch.from_numpy(obs).float()).numpy()
    assert np.all(np.abs(scaled[:, 0]) < 1e-5)
    np.testing.assert_allclose(scaled[:, 1:].std(0), 1.0, rtol=1e-3)
    learner.update(batch())
    with pytest.raises(ConfigError, match="after an update"):
        learner.fit_normaliser(obs)


def test_wrong_batches_are_refused_by_name() -> None:
    learner = ResidualLearner(SMALL, OBS, A, seed=0)
    with pytest.raises(ConfigError, match="mc_return"):
        learner.update({key: value for key, value in batch().items() if key != "mc_return"})
    with pytest.raises(ConfigError, match=r"base.*\(16, 2\)"):
        learner.update(batch() | {"base": batch()["base"][:, :2]})


def test_loss_that_is_not_finite_is_an_error() -> None:
    learner = ResidualLearner(SMALL, OBS, A, seed=0)
    with pytest.raises(LearningError, match="not finite"):
        learner.update(batch(reward=np.nan))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_target_critics": 3}, "num_critics=2: lower it"),
        ({"hidden": ()}, "at least one layer"),
        ({"offline_updates": 5}, "set both or none"),
        ({"algorithm": "ppo"}, "td3, sac"),
        ({"clip_target": True, "backup_entropy": True}, "set one of them to false"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        dataclasses.replace(LearnerConfig(), **changes)  # type: ignore[arg-type]


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="calql, hil_serl, pld, pld_paper, rlpd, wsrl"):
        preset("sarsa")
