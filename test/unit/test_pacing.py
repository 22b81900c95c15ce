# SPDX-License-Identifier: Apache-2.0
"""The schedule of simulation steps, on a clock that only moves when told to."""

from __future__ import annotations

import pytest

from vla_rl_ros.sim.pacing import Pacer


class FakeClock:
    """Time that passes by sleeping, and by `work`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float, overshoot_s: float = 0.0) -> None:
        self.slept_s.append(duration_s)
        self.now_s += duration_s + overshoot_s


def pacer(clock: FakeClock, factor: float | None = 1.0, overshoot_s: float = 0.0) -> Pacer:
    return Pacer(
        0.001, factor, clock=clock, sleep=lambda duration_s: clock.sleep(duration_s, overshoot_s)
    )


def run(schedule: Pacer, clock: FakeClock, num_steps: int, busy_s: float) -> None:
    for _ in range(num_steps):
        clock.now_s += busy_s
        schedule.wait()


def test_late_wake_ups_do_not_slow_the_schedule_down():
    clock = FakeClock()
    schedule = pacer(clock, overshoot_s=0.0002)
    run(schedule, clock, 3000, busy_s=0.0003)
    assert schedule.stats().real_time_factor == pytest.approx(1.0, abs=1e-3)
    assert schedule.stats().busy_p50_ms == pytest.approx(0.3)


def test_a_short_stall_is_caught_up():
    clock = FakeClock()
    schedule = pacer(clock)
    run(schedule, clock, 100, busy_s=0.0002)
    run(schedule, clock, 1, busy_s=0.05)
    assert schedule.stats().backlog_s == pytest.approx(0.0490, abs=1e-4)
    run(schedule, clock, 99, busy_s=0.0002)
    stats = schedule.stats()
    assert stats.num_backlogs_given_up == 0
    assert stats.backlog_s == 0.0
    assert clock.now_s == pytest.approx(100.2)


def test_a_backlog_beyond_a_tenth_of_a_second_is_given_up_and_counted():
    clock = FakeClock()
    schedule = pacer(clock)
    run(schedule, clock, 1, busy_s=0.5)
    stats = schedule.stats()
    assert stats.num_backlogs_given_up == 1
    assert stats.backlog_given_up_s == pytest.approx(0.499)
    clock.slept_s.clear()
    run(schedule, clock, 1, busy_s=0.0002)
    assert clock.slept_s == pytest.approx([0.0008])


def test_a_machine_that_is_too_slow_shows_in_the_factor():
    clock = FakeClock()
    schedule = pacer(clock)
    run(schedule, clock, 1000, busy_s=0.002)
    assert schedule.stats().real_time_factor == pytest.approx(0.5, abs=0.01)
    assert schedule.stats().num_backlogs_given_up > 0


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 2.0), (0.5, 0.5), (None, 5.0)])
def test_factor_scales_time_and_none_runs_free(factor: float | None, expected: float):
    clock = FakeClock()
    schedule = pacer(clock, factor)
    run(schedule, clock, 2000, busy_s=0.0002)
    assert schedule.stats().real_time_factor == pytest.approx(expected, rel=0.01)
    assert schedule.is_free_running == (factor is None)


def test_episode_factor_starts_where_it_was_marked():
    clock = FakeClock()
    schedule = pacer(clock)
    run(schedule, clock, 1000, busy_s=0.004)
    schedule.mark_episode()
    run(schedule, clock, 500, busy_s=0.0001)
    stats = schedule.stats()
    # What was late at the mark is caught up afterwards.
    assert stats.episode_real_time_factor == pytest.approx(1.0, rel=0.3)
    assert stats.real_time_factor < 0.7


def test_restart_forgives_a_pause():
    clock = FakeClock()
    schedule = pacer(clock)
    clock.now_s += 30.0
    schedule.restart()
    run(schedule, clock, 100, busy_s=0.0001)
    assert schedule.stats().num_backlogs_given_up == 0
    assert schedule.stats().real_time_factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("period_s", "factor"), [(0.0, 1.0), (0.001, 0.0), (0.001, -1.0)])
def test_nonsense_is_refused(period_s: float, factor: float):
    with pytest.raises(ValueError, match="must be positive"):
        Pacer(period_s, factor)
