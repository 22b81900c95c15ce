# SPDX-License-Identifier: Apache-2.0
"""When xi grows, which weights are kept, and when the base takes over."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.fisher import worse_p_value
from vla_rl_ros.learning.schedule import Advice, Driver, Schedule, ScheduleConfig

BASE, RESIDUAL = Driver.BASE, Driver.RESIDUAL
RATCHET = ScheduleConfig(rule="ratchet", xi_start=0.1, xi_factor=2.0, window=4, least_episodes=4)


def play(schedule: Schedule, driver: Driver, outcomes: str) -> list[Advice]:
    """Record episodes written as ``+`` and ``-``."""
    return [schedule.record(driver, is_success=mark == "+") for mark in outcomes]


def test_fixed_xi_is_the_limit_whatever_happens() -> None:
    schedule = Schedule(ScheduleConfig(), 0.15)
    assert {advice.xi for advice in play(schedule, RESIDUAL, "+-" * 30)} == {0.15}


def test_ratchet_grows_after_each_window_that_is_no_worse() -> None:
    schedule = Schedule(RATCHET, 0.3)
    assert [advice.xi for advice in play(schedule, RESIDUAL, "+-+-")] == [0.1, 0.1, 0.1, 0.2]
    assert play(schedule, RESIDUAL, "+-+-")[-1].xi == pytest.approx(0.3)
    assert "grows from 0.100 to 0.200" in play(Schedule(RATCHET, 0.3), RESIDUAL, "+-+-")[-1].reason


def test_ratchet_waits_while_success_is_below_that_of_the_last_step() -> None:
    schedule = Schedule(RATCHET, 1.0)
    play(schedule, RESIDUAL, "+++-")
    assert {advice.xi for advice in play(schedule, RESIDUAL, "+-+-+-")} == {0.2}
    assert play(schedule, RESIDUAL, "+++")[-1].xi == pytest.approx(0.4)


def test_ratchet_stops_where_success_is_good_enough() -> None:
    schedule = Schedule(RATCHET, 1.0)
    assert {advice.xi for advice in play(schedule, RESIDUAL, "+" * 12)} == {0.1}


def test_ramp_follows_the_episodes_of_the_residual_only() -> None:
    schedule = Schedule(ScheduleConfig(rule="ramp", xi_start=0.1, ramp_episodes=4), 0.5)
    play(schedule, BASE, "++++")
    found = [advice.xi for advice in play(schedule, RESIDUAL, "++++++")]
    assert found == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.5, 0.5])


def test_best_weights_are_those_of_the_best_full_window_and_newer_wins_a_tie() -> None:
    schedule = Schedule(RATCHET, 0.1)
    play(schedule, BASE, "+-")
    kept = [advice.is_best for advice in play(schedule, RESIDUAL, "+--+++--")]
    # Windows: too short three times, then 0.5, 0.5, 0.75, 0.75, 0.5.
    assert kept == [False, False, False, True, True, True, True, False]
    assert schedule.best_success == 0.75


def test_newer_weights_replace_the_best_within_the_slack_and_never_lower_the_mark() -> None:
    schedule = Schedule(ScheduleConfig(window=4, slack=0.25, worse_p=0.0), 0.1)
    play(schedule, BASE, "+-")
    kept = [advice.is_best for advice in play(schedule, RESIDUAL, "++++-+--")]
    # Windows: too short three times, then 1, 0.75, 0.75, 0.5, 0.25.
    assert kept == [False, False, False, True, True, True, False, False]
    assert schedule.best_success == 1.0


def test_weights_below_the_base_are_never_the_best() -> None:
    schedule = Schedule(RATCHET, 0.1)
    play(schedule, BASE, "+++-")
    assert not any(advice.is_best for advice in play(schedule, RESIDUAL, "+-+-"))
    assert math.isnan(schedule.best_success)


def test_base_takes_over_for_a_turn_when_the_residual_is_measurably_worse() -> None:
    config = ScheduleConfig(
        rule="ratchet", xi_start=0.1, xi_factor=2.0, window=8, least_episodes=6, base_turn=3
    )
    schedule = Schedule(config, 1.0)
    play(schedule, BASE, "+" * 15 + "-" * 15)
    play(schedule, RESIDUAL, "+-++-+-+")
    assert schedule.xi == pytest.approx(0.2)
    # Seven failures in a row are too many beside 15 of 30, whatever was before.
    *before, fallen = play(schedule, RESIDUAL, "-" * 7)
    assert {advice.driver for advice in before} == {RESIDUAL}
    assert fallen.driver is BASE
    assert fallen.restore_best
    assert "base takes over" in fallen.reason
    assert fallen.xi == pytest.approx(0.1)
    assert schedule.num_fall_backs == 1
    turn = play(schedule, BASE, "+-+")
    assert [advice.driver for advice in turn] == [BASE, BASE, RESIDUAL]
    assert math.isnan(schedule.success(RESIDUAL))


def test_weights_measurably_worse_than_the_best_are_given_up_for_them() -> None:
    schedule = Schedule(ScheduleConfig(window=10), 0.15)
    play(schedule, BASE, "+" * 10 + "-" * 30)
    play(schedule, RESIDUAL, "+" * 10)
    assert schedule.best_success == 1.0
    # As good as the base, but not as good as it was.
    *before, fallen = play(schedule, RESIDUAL, "+--+--")
    assert not any(advice.restore_best for advice in before)
    assert fallen.restore_best
    assert fallen.driver is RESIDUAL
    assert "best weights at 1.00" in fallen.reason
    assert (schedule.num_returns, schedule.num_fall_backs) == (1, 0)
    assert math.isnan(schedule.success(RESIDUAL))


def test_a_strict_return_spares_a_residual_that_only_had_a_lucky_window() -> None:
    """A mark that is the best of many windows lies above what stays the same throughout."""

    def returns(return_p: float, seed: int, later: float) -> int:
        rng = np.random.default_rng(seed)
        schedule = Schedule(ScheduleConfig(return_p=return_p), 0.1)
        for episode in range(300):
            level = 0.9 if episode < 200 else later
            schedule.record(Driver.RESIDUAL, is_success=bool(rng.random() < level))
        return schedule.num_returns

    seeds = range(40)
    usual, strict = (sum(returns(p, seed, 0.9) for seed in seeds) for p in (0.02, 0.002))
    assert usual > 60
    assert strict < usual / 4
    # One that broke is still noticed.
    assert all(returns(0.002, seed, 0.3) > 0 for seed in seeds)


def test_nothing_is_judged_before_the_base_was_seen() -> None:
    schedule = Schedule(RATCHET, 0.1)
    assert all(advice.driver is RESIDUAL for advice in play(schedule, RESIDUAL, "-" * 50))


def test_p_value_by_hand() -> None:
    # All 2 of the residual fail, all 2 of the base succeed: one of the 6 ways to deal 2 of 4.
    assert worse_p_value(0, 2, 2, 2) == pytest.approx(1 / 6)
    assert worse_p_value(2, 2, 0, 2) == pytest.approx(1.0)
    assert worse_p_value(0, 6, 20, 40) == pytest.approx(math.comb(26, 6) / math.comb(46, 6))


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 40), st.integers(0, 40))
def test_p_value_is_a_probability_and_falls_with_failures(
    successes: int, failures: int, base_successes: int, base_failures: int
) -> None:
    episodes, base_episodes = successes + failures, base_successes + base_failures
    p = worse_p_value(successes, episodes, base_successes, base_episodes)
    assert 0.0 < p <= 1.0 + 1e-12
    if successes:
        fewer = worse_p_value(successes - 1, episodes, base_successes, base_episodes)
        assert fewer <= p + 1e-12


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80), st.integers(0, 80))
def test_continued_books_give_the_same_advice(episodes: list[tuple[bool, bool]], cut: int) -> None:
    straight, continued = Schedule(RATCHET, 0.5), Schedule(RATCHET, 0.5)
    for i, (is_base, is_success) in enumerate(episodes):
        if i == cut:
            continued = Schedule(RATCHET, 0.5)
            continued.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        driver = BASE if is_base else RESIDUAL
        advice = straight.record(driver, is_success=is_success)
        if i >= cut:
            assert continued.record(driver, is_success=is_success) == advice
        assert advice.xi <= 0.5


def test_damaged_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="state of a schedule"):
        Schedule(RATCHET, 0.5).load_state_dict({"xi": 0.1})
