# SPDX-License-Identifier: Apache-2.0
"""The grid of ticks, and measurements brought to one stamp."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.alignment import StampedBuffer, lerp
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.ticks import TickGrid, nearest_index

P = 100_000_000
START = 1_700_000_000_000_000_000


def test_half_a_period_rounds_upwards_every_time() -> None:
    halves = [nearest_index(n * P + P // 2, 0, P) for n in range(-3, 4)]
    assert halves == [-2, -1, 0, 1, 2, 3, 4]


def test_grid_stamps_lie_exactly_one_period_apart_despite_jitter() -> None:
    grid = TickGrid(P)
    rng = np.random.default_rng(0)
    stamps = [grid.stamp(START + n * P + int(rng.integers(-2e6, 2e6))) for n in range(200)]
    assert set(np.diff(stamps)) == {P}
    assert grid.next_ns == stamps[-1] + P


def test_grid_counts_skipped_ticks_and_follows_a_clock_that_was_set() -> None:
    grid = TickGrid(P)
    grid.stamp(START)
    assert grid.stamp(START + 4 * P) == START + 4 * P
    assert grid.num_skipped == 3
    assert grid.stamp(START - 7_777_777) == START - 7_777_777
    assert grid.stamp(START - 7_777_777 + P) == START - 7_777_777 + P
    assert grid.num_restarts == 1
    drifted = START - 7_777_777 + 2 * P + 6_000_000
    assert grid.stamp(drifted) == drifted
    assert grid.num_restarts == 2


def test_a_tolerance_must_be_below_half_a_period() -> None:
    with pytest.raises(ConfigError):
        TickGrid(P, tolerance_ns=P)


def test_buffer_finds_the_samples_around_a_stamp() -> None:
    buffer: StampedBuffer[str] = StampedBuffer(3)
    assert buffer.at(0) is None
    assert buffer.newest() is None
    for stamp, value in ((10, "a"), (20, "b"), (30, "c"), (40, "d")):
        assert buffer.add(stamp, value)
    assert not buffer.add(40, "again")
    assert len(buffer) == 3
    middle = buffer.at(33)
    assert middle is not None
    assert (middle.before, middle.after, middle.fraction) == ("c", "d", 0.3)
    assert middle.age_ns == 3
    early, late = buffer.at(5), buffer.at(100)
    assert early is not None
    assert late is not None
    assert (early.before, early.after, early.age_ns) == ("b", "b", -15)
    assert (late.before, late.after, late.age_ns) == ("d", "d", 60)
    assert buffer.newest() == (40, "d")
    buffer.clear()
    assert len(buffer) == 0
    with pytest.raises(ConfigError):
        StampedBuffer(0)


def test_buffer_finds_the_newest_sample_before_a_stamp() -> None:
    buffer: StampedBuffer[str] = StampedBuffer(3)
    assert buffer.before(100) is None
    for stamp, value in ((10, "a"), (20, "b"), (30, "c")):
        buffer.add(stamp, value)
    assert buffer.before(9) is None
    assert buffer.before(29) == (20, "b")
    assert buffer.before(30) == (30, "c")


def test_lerp_is_exact_at_both_ends() -> None:
    a, b = np.array([0.1, 7.0]), np.array([0.3, -2.0])
    assert np.array_equal(lerp(a, b, 0.0), a)
    assert np.array_equal(lerp(a, b, 1.0), b)
