# SPDX-License-Identifier: Apache-2.0
"""The lock-step runner plays the element that belongs to a tick, as late as it was told to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.chunking import hold_action
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.tools.lockstep import (
    InjectedDelay,
    LockStep,
    execute_ticks,
    make_session,
    motion_steps,
    usual_delay,
)
from vla_rl_ros.tools.soak import Soak, run_soak, soak_summary

PERIOD_NS = 100_000_000
HORIZON = 16
NO_TICK = -1
ASYNC_MODES = ["naive", "ensemble", "weighted", "rtc", "prefix_lock"]


class TellingPolicy:
    """Every element says of which observation it is, and where in the chunk it stands."""

    horizon = HORIZON
    cameras = ()
    needs_objects = False
    anchor = Anchor.MEASURED
    conditionings = frozenset(Conditioning)
    max_locked = HORIZON

    def __init__(self) -> None:
        self.prefixes = []
        self.num_resets = 0

    def infer(self, observation, prefix):
        self.prefixes.append(prefix)
        tick = observation.stamp_ns // PERIOD_NS
        actions = np.ones((HORIZON, 7))
        actions[:, :6] = 0.0
        actions[:, 0] = 1e-5 * tick
        actions[:, 1] = 1e-5 * np.arange(HORIZON)
        return actions

    def reset(self) -> None:
        self.num_resets += 1


class RecordingWorld:
    """Notes (tick, tick of the observation, index of the element) of everything it is told."""

    def __init__(self, ends_after: int = 10**6) -> None:
        self.rows = []
        self.seen_after = []
        self.num_periods = 0
        self.ends_after = ends_after

    def observe(self, stamp_ns, last_action):
        self.seen_after.append((stamp_ns // PERIOD_NS, self.num_periods))
        return PolicyObservation(
            stamp_ns=stamp_ns, images={}, state=np.zeros(20), instruction="", task="",
            last_action=last_action,
        )  # fmt: skip

    def execute(self, step, stamp_ns):
        action = hold_action(1.0) if step is None else step.action
        told = (NO_TICK, NO_TICK) if step is None else np.round(1e5 * action[:2]).astype(int)
        self.rows.append((stamp_ns // PERIOD_NS, *(int(value) for value in told)))
        return action

    def advance(self) -> bool:
        self.num_periods += 1
        return self.num_periods >= self.ends_after


def run(mode: str, delay_ticks: int, num_ticks: int = 60, delay: InjectedDelay | None = None):
    policy, world = TellingPolicy(), RecordingWorld()
    session = make_session(mode, delay_ticks, policy)
    runner = LockStep(session, policy, world, PERIOD_NS)
    steady = InjectedDelay(base_periods=delay_ticks - 0.5, is_instant=delay_ticks == 0)
    runner.run(delay or steady, np.random.default_rng(0), num_ticks)
    return world, policy, runner


@pytest.mark.parametrize("delay_ticks", [0, 1, 2, 4, 8])
def test_every_element_belongs_to_its_tick_and_none_comes_early(delay_ticks: int) -> None:
    world, _, runner = run("naive", delay_ticks)

    assert [tick for tick, *_ in world.rows] == list(range(60))
    assert all(seen + index == tick for tick, seen, index in world.rows)
    steps = execute_ticks(delay_ticks)
    oldest = max(1, delay_ticks + steps - 1) if delay_ticks else steps - 1
    later = [row for row in world.rows if row[1] > 0]
    assert {index for *_, index in later} == set(range(delay_ticks, oldest + 1))
    assert runner.session.metrics.underflows == 0


@pytest.mark.parametrize("mode", ASYNC_MODES)
def test_without_delay_every_request_is_answered_in_the_tick_of_its_observation(mode: str) -> None:
    world, *_ = run(mode, 0)

    # What is observed for tick n is seen after n periods: nothing passed meanwhile.
    assert all(tick == periods for tick, periods in world.seen_after)
    if mode in ("naive", "prefix_lock"):
        assert min(index for *_, index in world.rows) == 0


@pytest.mark.parametrize("mode", ASYNC_MODES)
def test_with_delay_the_world_is_seen_as_it_was_at_the_tick_of_the_request(mode: str) -> None:
    world, *_ = run(mode, 4)

    assert all(tick == periods for tick, periods in world.seen_after)


@pytest.mark.parametrize("delay_ticks", [0, 1, 2, 4, 8])
def test_sync_stands_as_long_as_the_answer_takes(delay_ticks: int) -> None:
    world, *_ = run("sync", delay_ticks)
    steps = execute_ticks(delay_ticks)

    expected = []
    while len(expected) < 60:
        expected += [*range(steps), *[NO_TICK] * delay_ticks]
    assert [index for *_, index in world.rows] == expected[:60]


def test_a_lock_is_told_what_was_executed_and_what_is_promised() -> None:
    world, policy, _ = run("prefix_lock", 2)

    assert policy.prefixes[0] is None
    told = [prefix for prefix in policy.prefixes if prefix is not None]
    assert told
    assert all(prefix.conditioning is Conditioning.LOCK for prefix in told)
    assert all(prefix.num_locked >= 2 for prefix in told)
    ticks = [tick for tick, _ in world.seen_after[1:]]
    for prefix, tick in zip(told, ticks, strict=True):
        _, seen, index = world.rows[tick]
        assert np.round(1e5 * prefix.actions[0, :2]).tolist() == [seen, index]


def test_without_delay_nothing_is_locked_and_guidance_begins_with_the_coming_tick() -> None:
    assert all(prefix is None for prefix in run("prefix_lock", 0)[1].prefixes)
    world, policy, _ = run("rtc", 0)
    ticks = [tick for tick, _ in world.seen_after[1:]]
    for prefix, tick in zip(policy.prefixes[1:], ticks, strict=True):
        assert prefix.num_locked == 0
        # Row 0 is the old plan's element of the tick that is observed.
        assert round(1e5 * (prefix.actions[0, 0] + prefix.actions[0, 1])) == tick


def test_an_episode_ends_with_the_task_and_the_next_one_starts_from_rest() -> None:
    policy, world = TellingPolicy(), RecordingWorld(ends_after=7)
    runner = LockStep(make_session("prefix_lock", 4, policy), policy, world, PERIOD_NS)

    assert runner.run(usual_delay(4), np.random.default_rng(0), 60)
    world.num_periods, world.rows = 0, []
    assert runner.run(usual_delay(4), np.random.default_rng(0), 60)

    assert policy.num_resets == 2
    assert len(world.rows) == 7
    assert world.rows[0] == (7, 7, 0)
    world.num_periods = 0
    assert not runner.run(usual_delay(4), np.random.default_rng(0), 3)


@given(st.integers(0, 8))
def test_the_execute_horizon_keeps_the_invariant(delay_ticks: int) -> None:
    assert delay_ticks <= execute_ticks(delay_ticks) <= HORIZON - delay_ticks


def test_a_delay_that_no_plan_covers_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        make_session("prefix_lock", 9, TellingPolicy())


@given(st.integers(1, 8), st.integers(0, 1000))
def test_usual_delays_come_early_or_in_time_but_for_spikes(delay_ticks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    delays = [usual_delay(delay_ticks).draw(rng) for _ in range(100)]

    assert min(delays) >= max(1, delay_ticks - 1)
    assert max(delays) <= delay_ticks + 4
    assert np.mean(np.array(delays) > delay_ticks) < 0.2


def test_modes_that_ask_equally_often_get_equal_delays() -> None:
    """Draw n is the same whatever the parameters, so that rows can be compared in pairs."""
    quiet, spiky = np.random.default_rng(3), np.random.default_rng(3)
    usual_delay(0).draw(quiet)
    usual_delay(4).draw(spiky)
    assert quiet.uniform() == spiky.uniform()


def test_steps_are_in_units_of_the_policy_and_ignore_the_gripper() -> None:
    actions = np.zeros((3, 7))
    actions[1, 0], actions[2, 0], actions[2, 5] = 0.01, 0.01, 0.1
    actions[:, 6] = (0.0, 1.0, 0.0)
    assert motion_steps(actions) == pytest.approx([0.5, 1.0])


def test_a_soak_never_runs_dry_and_keeps_every_promise() -> None:
    rows = [
        run_soak(Soak(mode=mode, latency_s=0.3, num_ticks=3000, seed=1))
        for mode in ("prefix_lock", "naive")
    ]
    figures = soak_summary(rows)

    assert figures["ticks"] == 3000
    assert figures["underflows"] == 0
    assert figures["prefix_mismatch"] == 0.0
    assert figures["delay_hit_share"] >= 0.99
    assert figures["naive_boundary_jump_ratio"] > 5 * figures["boundary_jump_ratio"]


def test_a_soak_is_the_same_every_time() -> None:
    soak = Soak(mode="prefix_lock", latency_s=0.1, num_ticks=400, seed=2)
    first, second = run_soak(soak), run_soak(soak)
    assert {**first, "wall_s": 0} == {**second, "wall_s": 0}
