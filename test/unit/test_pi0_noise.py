# SPDX-License-Identifier: Apache-2.0
"""Noise that belongs to ticks: what overlapping chunks share, and what they do not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vla_rl_ros.policies.pi0.noise import TickNoise

HORIZON, DIM, PERIOD_S = 8, 3, 0.1
PERIOD_NS = 100_000_000


def _noise(seed: int = 0) -> TickNoise:
    return TickNoise(seed, PERIOD_S, HORIZON, DIM)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=20),
    st.integers(0, 2**40),
    st.integers(0, PERIOD_NS),
    st.lists(st.integers(-20_000_000, 20_000_000), min_size=21, max_size=21),
)
def test_a_tick_has_one_row(
    steps: list[int], begin: int, phase_ns: int, jitters_ns: list[int]
) -> None:
    noise, tick = _noise(), begin
    known: dict[int, NDArray[np.float32]] = {}
    for step, jitter_ns in zip([0, *steps], jitters_ns, strict=False):
        tick += step
        rows = noise.rows(tick * PERIOD_NS + phase_ns + jitter_ns)
        assert rows.shape == (HORIZON, DIM)
        assert rows.dtype == np.float32
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(row, known.get(tick + i, row))
        known = {tick + i: row for i, row in enumerate(rows)}


def test_rows_are_standard_normal() -> None:
    noise = _noise()
    rows = np.concatenate([noise.rows(i * HORIZON * PERIOD_NS) for i in range(2000)])
    assert abs(rows.mean()) < 0.02
    assert abs(rows.std() - 1.0) < 0.02


def test_a_new_episode_begins_otherwise_and_a_seed_as_before() -> None:
    noise = _noise(seed=3)
    first = noise.rows(0)
    noise.forget()
    assert not np.array_equal(noise.rows(0), first)
    np.testing.assert_array_equal(_noise(seed=3).rows(0), first)


def test_time_that_went_back_begins_anew() -> None:
    noise = _noise()
    later = noise.rows(5 * PERIOD_NS)
    earlier = noise.rows(2 * PERIOD_NS)
    assert not np.isin(earlier, later).any()


def test_what_is_given_out_is_not_what_is_kept() -> None:
    noise = _noise()
    rows = noise.rows(0)
    kept = rows.copy()
    rows[:] = 0.0
    np.testing.assert_array_equal(noise.rows(0), kept)


def test_draws_belong_to_no_tick() -> None:
    noise = _noise()
    rows = noise.rows(0)
    draws = noise.draw(2)
    assert draws.shape == (2, HORIZON, DIM)
    assert not np.isin(draws, rows).any()
    np.testing.assert_array_equal(noise.rows(0), rows)
