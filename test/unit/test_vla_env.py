# SPDX-License-Identifier: Apache-2.0
"""The cell with a policy inside: an untrained residual is the base, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from vla_rl_ros.core.chunking import Step
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.prefix import Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.acting import ResidualActor
from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.gym_episodes import play
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.vla_env import BASE_ID, ENV_ID, planned_base
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.tools.lockstep import InjectedDelay, LockStep
from vla_rl_ros.tools.sim_world import SimWorld

TICKS = 25


class _Watched:
    """A door whose executed actions are written down."""

    def __init__(self) -> None:
        arguments = '{"task": "lift"}'
        self.door = Door(
            DoorSettings(
                env_id=ENV_ID, env_arguments=arguments, base=BASE_ID, max_ticks=TICKS, seed=0
            )
        )
        self.env: Any = self.door.env.unwrapped
        self.executed: list[FloatArray] = []
        step = self.env.sim.step

        def noted(action: FloatArray) -> bool:
            self.executed.append(action)
            return bool(step(action))

        self.env.sim.step = noted


@pytest.fixture(scope="module")
def watched() -> Iterator[_Watched]:
    made = _Watched()
    yield made
    made.door.close()


def _actions(watched: _Watched, actor: ResidualActor | None, seed: int) -> FloatArray:
    watched.executed = []
    play(watched.door, None if actor is None else actor.act, seed, held_out=True)
    return np.array(watched.executed)


def _untrained(door: Door) -> ResidualActor:
    learner = ResidualLearner(LearnerConfig(), door.obs_dim, door.action_dim, 0)
    return ResidualActor(learner.weights())


def test_an_untrained_residual_is_the_base_bit_for_bit(watched: _Watched) -> None:
    base = _actions(watched, None, 3)
    residual = _actions(watched, _untrained(watched.door), 3)
    assert base.tobytes() == residual.tobytes()
    assert len(base) == TICKS


def test_the_base_is_what_the_lock_step_runner_plays(watched: _Watched) -> None:
    """Same scene, same noise: the two ways of running the timing core agree to the last bit."""
    in_env = _actions(watched, None, 3)
    env = watched.env
    world = SimWorld(env.policy, "default")
    world.reset(Task.LIFT, 3, env.session.tick * 100_000_000)
    # The noise of an episode is drawn after its layout.
    rng = np.random.default_rng(3)
    sample_layout(Task.LIFT, env.sim.config, rng)
    env.policy.reseed(int(rng.integers(2**31)))
    played: list[FloatArray] = []
    step = world.execute

    def noted(element: Step | None, stamp_ns: int) -> FloatArray:
        executed = step(element, stamp_ns)
        played.append(executed)
        return executed

    world.execute = noted  # type: ignore[method-assign]
    LockStep(env.session, env.policy, world, 100_000_000).run(
        InjectedDelay(), np.random.default_rng(0), TICKS
    )
    world.close()
    assert np.array_equal(np.array(played)[:, :6], in_env[:, :6])


def test_an_episode_depends_on_its_seed_alone(watched: _Watched) -> None:
    first = _actions(watched, None, 1)
    _actions(watched, None, 2)
    assert first.tobytes() == _actions(watched, None, 1).tobytes()


def test_what_is_executed_reaches_the_promise(watched: _Watched) -> None:
    env = watched.env
    env.reset(seed=0)
    prefixes: list[Prefix] = []
    infer = env.policy.infer

    def noted(observation: PolicyObservation, prefix: Prefix) -> Any:
        prefixes.append(prefix)
        return infer(observation, prefix)

    env.policy.infer = noted
    env.step(env.base)
    moved = env.base + np.array([0.001, 0, 0, 0, 0, 0, 0])
    env.step(moved)
    env.policy.infer = infer
    assert np.array_equal(prefixes[0].actions[0], moved)


def test_features_follow_the_images_of_the_played_chunk(watched: _Watched) -> None:
    env = watched.env
    first, _ = env.reset(seed=0)
    start = env.policy.features()
    assert np.array_equal(first[-env.seen_spec.feature_dim :], start)
    env.step(env.base)
    second, *_ = env.step(env.base)
    assert np.array_equal(second[-env.seen_spec.feature_dim :], env.policy.features())
    assert second.dtype == np.float32
    assert second.shape == (env.seen_spec.dim,)


def test_the_base_of_another_environment_is_refused() -> None:
    other = gymnasium.make("CartPole-v1")
    with pytest.raises(ConfigError, match="belongs to"):
        planned_base(other)
