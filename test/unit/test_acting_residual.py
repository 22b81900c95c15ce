# SPDX-License-Identifier: Apache-2.0
"""What is added to the base at a tick, and what the actor sees there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from node.weights_stub import SEEN, XI, made_weights

from vla_rl_ros.core.chunking import Step
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import ActionChunk
from vla_rl_ros.learning.acting import execute
from vla_rl_ros.learning.acting_residual import ActingResidual
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.actor_view import ActorView
from vla_rl_ros.learning.schedule import Driver

SPEC = ActionSpec()
BASE = clip_action(np.array([0.004, -0.02, 0.02, 0.05, -0.1, 0.0, 1.0]), SPEC)
OBSERVATION = np.zeros(SEEN.dim, np.float32)


def residual(weights=None, *, seen=SEEN, cap: float = 1.0, base=BASE, rng=None):
    acting = ActingResidual(SPEC)
    if weights is not None:
        acting.take(weights)
    observation = np.zeros(seen.dim, np.float32)
    return acting.residual(seen, observation, base, cap=cap, rng=rng)


@pytest.mark.parametrize(
    "found",
    [
        residual(),
        residual(made_weights(moved=0.0)),
        residual(made_weights(), cap=0.0),
        residual(replace(made_weights(), driver=Driver.BASE)),
        residual(replace(made_weights(), obs_version="other")),
        residual(made_weights(), seen=ActorObservationSpec()),
    ],
)
def test_the_base_stays_as_it_is_bit_for_bit(found) -> None:
    assert found.tobytes() == np.zeros(7).tobytes()


def test_the_executed_action_is_that_of_the_training_loops() -> None:
    acting = ActingResidual(SPEC)
    made = made_weights(moved=0.1)
    acting.take(made)
    added = acting.residual(SEEN, OBSERVATION, BASE, cap=1.0, rng=None)
    normalised = SPEC.to_normalised(BASE)
    trained = execute(normalised, made.actor().act(OBSERVATION, normalised))
    assert np.allclose(SPEC.to_normalised(BASE + added), trained, atol=1e-12)


def test_the_cap_bounds_each_channel_and_the_range_the_sum() -> None:
    added = residual(made_weights(moved=0.15), cap=0.05)
    normalised = SPEC.to_normalised(BASE + added)
    assert np.abs(normalised).max() <= 1.0 + 1e-12
    assert np.allclose((normalised - SPEC.to_normalised(BASE))[[0, 1, 3, 4, 5]], 0.05)
    # At the end of the range nothing is left to add.
    assert added[2] == 0.0


def test_a_learner_that_warms_up_wanders_where_one_explores_and_anew_in_each_episode() -> None:
    acting = ActingResidual(SPEC)
    acting.take(replace(made_weights(moved=0.1), wander_std=0.5, wander_ticks=10.0))
    zero = SPEC.to_si(np.zeros(7))
    plain = acting.residual(SEEN, OBSERVATION, zero, cap=1.0, rng=None)
    assert np.allclose(SPEC.to_normalised(zero + plain), 0.1)

    def walk() -> np.ndarray:
        rng = np.random.default_rng(5)
        acting.begin_episode()
        steps = [acting.residual(SEEN, OBSERVATION, zero, cap=1.0, rng=rng) for _ in range(200)]
        return SPEC.to_normalised(zero + np.array(steps))

    first = walk()
    assert np.array_equal(first, walk())
    assert np.abs(first).max() <= XI + 1e-7
    assert np.corrcoef(first[1:, 0], first[:-1, 0])[0, 1] > 0.7


def test_who_drives_changes_between_episodes_and_weights_between_ticks() -> None:
    acting = ActingResidual(SPEC)

    def added() -> np.ndarray:
        return acting.residual(SEEN, OBSERVATION, BASE, cap=1.0, rng=None)

    acting.take(made_weights(moved=0.1))
    first = added()
    acting.take(replace(made_weights(moved=0.05), driver=Driver.BASE))
    assert acting.driver(SEEN) is Driver.RESIDUAL
    assert 0.0 < np.abs(added()).max() < np.abs(first).max()
    acting.begin_episode()
    assert not np.any(added())
    acting.take(made_weights())
    assert not np.any(added())
    assert acting.driver(SEEN) is Driver.BASE
    acting.begin_episode()
    assert np.any(added())


def test_weights_that_do_not_fit_leave_the_old_ones() -> None:
    acting = ActingResidual(SPEC)
    acting.take(made_weights(version=1))
    with pytest.raises(InvalidCommandError):
        acting.take(replace(made_weights(version=2), obs_names=("one",)))
    assert acting.held is not None
    assert acting.held.version == 1
    assert np.any(acting.residual(SEEN, OBSERVATION, BASE, cap=1.0, rng=None))


@pytest.mark.filterwarnings("ignore:.*encountered in matmul")
def test_weights_that_overflow_rest_until_others_come() -> None:
    acting = ActingResidual(SPEC)
    made = made_weights()
    made.weights["actor.weight_0"][:] = np.float32(3e38)
    made.weights["actor.weight_out"][::2] = np.float32(3e38)
    made.weights["actor.weight_out"][1::2] = np.float32(-3e38)
    acting.take(made)
    assert not np.any(acting.residual(SEEN, np.ones_like(OBSERVATION), BASE, cap=1.0, rng=None))
    assert "not finite" in acting.misfit(SEEN)
    assert acting.driver(SEEN) is Driver.BASE
    acting.take(made_weights())
    assert np.any(acting.residual(SEEN, OBSERVATION, BASE, cap=1.0, rng=None))


def step(stamp_ns: int, index: int = 2) -> Step:
    chunk = ActionChunk(
        chunk_id=1,
        epoch=1,
        stamp_ns=stamp_ns,
        period_ns=10**8,
        delay_ticks=1,
        actions=np.zeros((8, 7)),
    )
    return Step(index, chunk.actions[index], chunk)


def test_features_are_those_of_the_chunk_that_is_played() -> None:
    view = ActorView()
    state = np.arange(20.0)
    for stamp_ns in (1, 2):
        view.on_features(stamp_ns, "tower", np.full(2, stamp_ns, np.float32))
    assert view.spec == SEEN
    nothing_yet, is_whole = view.observe(state, None)
    assert is_whole
    assert nothing_yet[20:].tolist() == [1.0, 0.0, 0.0]
    vector, is_whole = view.observe(state, step(1))
    assert is_whole
    assert vector[20:].tolist() == [0.25, 1.0, 1.0]
    # The newest chunk has come, but the old one is still played.
    assert view.observe(state, step(2))[0][21] == 2.0
    assert view.observe(state, step(1))[0][21] == 1.0


def test_missing_features_are_said_and_those_of_another_tower_begin_anew() -> None:
    view = ActorView()
    view.on_features(1, "tower", np.ones(2, np.float32))
    view.observe(np.zeros(20), step(1))
    vector, is_whole = view.observe(np.zeros(20), step(9))
    assert not is_whole
    assert vector[21:].tolist() == [1.0, 1.0]
    view.on_features(10, "another", np.ones(3, np.float32))
    assert view.spec.feature_dim == 3
    assert view.spec.version != SEEN.version
    assert not view.observe(np.zeros(20), step(1))[1]


def test_a_policy_without_features_shows_state_and_phase() -> None:
    view = ActorView()
    vector, is_whole = view.observe(np.zeros(20), step(1))
    assert is_whole
    assert vector.shape == (21,)
