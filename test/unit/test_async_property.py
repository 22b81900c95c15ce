# SPDX-License-Identifier: Apache-2.0
"""Actor and inference side on schedules of their own, with messages that take their time.

Whatever the latencies, a chunk that is continued behind its locked rows continues exactly what was
executed; and whatever is lost, the arm is asked for again.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.async_world import World
from unit.timing_cases import traits

from vla_rl_ros.core.chunking import Verdict
from vla_rl_ros.core.modes import AsyncSettings
from vla_rl_ros.core.types import Mode

SOAK_S = 600.0

WAYS = st.lists(st.floats(0.0, 0.99), min_size=1, max_size=40)
LATENCIES = st.lists(
    st.one_of(st.floats(0.05, 4.0), st.floats(0.05, 4.0), st.floats(4.0, 14.0)),
    min_size=1,
    max_size=40,
)
TICKS = st.sets(st.integers(2, 119), max_size=8)


@settings(max_examples=200)
@example(  # two chunks in a row repeat the tick that is held
    latencies=[1.0, 5.0, 1.0],
    ways=[0.0],
    horizon=7,
    execute_ticks=2,
    max_locked=5,
    lost=set(),
    resets=set(),
    human={4},
    mutes={2, 16},
)
@given(
    latencies=LATENCIES,
    ways=WAYS,
    horizon=st.integers(4, 24),
    execute_ticks=st.integers(1, 8),
    max_locked=st.integers(1, 12),
    lost=st.sets(st.integers(1, 40), max_size=6),
    resets=TICKS,
    human=TICKS,
    mutes=TICKS,
)
def test_what_is_continued_was_executed_whatever_comes_late_or_never(
    latencies: list[float],
    ways: list[float],
    horizon: int,
    execute_ticks: int,
    max_locked: int,
    lost: set[int],
    resets: set[int],
    human: set[int],
    mutes: set[int],
) -> None:
    execute_ticks = min(execute_ticks, horizon - 1)
    world = World(
        latencies=latencies,
        ways=ways,
        settings=AsyncSettings(execute_ticks=execute_ticks, latency_budget_s=0.0),
        traits=traits(horizon, max_locked),
        lost=lost,
        resets=resets,
        human=human,
        mutes=mutes,
    )
    world.run(120)
    assert world.mismatches() == []
    assert world.played() > 0 or max(latencies) > 2.0 or lost or resets or human


@settings(max_examples=100)
@given(latencies=LATENCIES, ways=WAYS, mutes=TICKS, lost=st.sets(st.integers(1, 40), max_size=6))
def test_nothing_that_is_lost_starves_the_arm(
    latencies: list[float], ways: list[float], mutes: set[int], lost: set[int]
) -> None:
    world = World(
        latencies=latencies,
        ways=ways,
        settings=AsyncSettings(execute_ticks=2, latency_budget_s=0.1),
        traits=traits(16),
        lost=lost,
        mutes=mutes,
    )
    world.run(120)
    # After whatever happened there is either an element, or a question under way.
    longest = max(
        (
            len(list(run))
            for none, run in itertools.groupby(
                world.log.values(), key=lambda pair: pair[1] is None
            )
            if none
        ),
        default=0,
    )
    assert longest <= 3 * (max(latencies) + 4) * (1 + len(lost))


@pytest.mark.parametrize("base", [0.3, 1.2, 2.6, 4.4])
@pytest.mark.parametrize("mode", [Mode.PREFIX_LOCK, Mode.NAIVE, Mode.RTC, Mode.WEIGHTED])
def test_jitter_within_a_tick_never_underflows(mode: Mode, base: float) -> None:
    rng = np.random.default_rng(3)
    world = World(
        latencies=list(base + rng.uniform(0.0, 1.0, 97)),
        ways=list(rng.uniform(0.0, 0.05, 89)),
        settings=AsyncSettings(mode=mode.value, execute_ticks=6, latency_budget_s=0.6),
        traits=traits(16),
    )
    world.run(600)
    assert world.underflows() == []
    if mode is Mode.PREFIX_LOCK:
        assert world.mismatches() == []
    requests = world.requests
    assert requests.num_conditioned > 60
    assert requests.num_hits >= requests.num_conditioned - 4


def test_a_spike_is_dropped_and_the_old_plan_goes_on_meanwhile() -> None:
    latencies = [1.5] * 20 + [7.5] + [1.5] * 30
    world = World(
        latencies=latencies,
        ways=[0.02],
        settings=AsyncSettings(execute_ticks=3, latency_budget_s=0.2),
        traits=traits(24),
    )
    world.run(140)
    assert world.verdicts.count(Verdict.LATER_THAN_PROMISED) == 1
    assert world.underflows() == []
    assert world.mismatches() == []


def test_the_same_world_runs_the_same_way_twice() -> None:
    def outcome() -> list[bytes]:
        rng = np.random.default_rng(5)
        world = World(
            latencies=list(rng.uniform(0.1, 6.0, 40)),
            ways=list(rng.uniform(0.0, 0.9, 40)),
            settings=AsyncSettings(execute_ticks=4, latency_budget_s=0.2),
            traits=traits(16, 8),
            lost={3, 9},
            resets={50},
            human={70, 71, 72},
        )
        world.run(120)
        return [row.base.tobytes() for row, _ in world.log.values()]

    assert outcome() == outcome()


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.3])
def test_ten_minutes_at_20_hz_with_a_spiky_server(delay_s: float) -> None:
    rng, num_answers, period_s = np.random.default_rng(1), 2000, 0.05
    answers_s = delay_s + rng.uniform(0.0, 0.05, num_answers)
    answers_s += np.where(rng.random(num_answers) < 0.005, 0.15, 0.0)
    world = World(
        latencies=list(answers_s / period_s),
        ways=list(rng.uniform(0.01, 0.08, 997)),
        settings=AsyncSettings(
            control_period_s=period_s, execute_ticks=8, latency_budget_s=delay_s + 0.055
        ),
        traits=traits(32),
    )
    world.run(round(SOAK_S / period_s))
    requests = world.requests
    assert requests.num_conditioned > 1400
    assert world.underflows() == []
    assert world.mismatches() == []
    assert requests.num_hits >= 0.99 * requests.num_conditioned
