# SPDX-License-Identifier: Apache-2.0
"""Noise of the warm-up: bounded, slow, repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.learning.exploration import Wanderer

BASE, OBS = np.zeros(3, np.float32), np.zeros(5, np.float32)


def walk(std: float, ticks: float, xi: float, seed: int, length: int) -> np.ndarray:
    wanderer = Wanderer(std, ticks, xi, np.random.default_rng(seed))
    return np.array([wanderer(OBS, BASE) for _ in range(length)])


def test_noise_stays_within_the_bound_and_has_the_type_of_a_residual() -> None:
    found = walk(std=2.0, ticks=10.0, xi=0.15, seed=0, length=400)
    assert found.dtype == np.float32
    assert found.shape == (400, 3)
    assert np.abs(found).max() == np.float32(0.15)


@pytest.mark.parametrize("ticks", [1.0, 10.0, 50.0])
def test_deviation_is_that_asked_for_and_correlation_falls_to_one_e_th(ticks: float) -> None:
    episodes = [walk(std=0.2, ticks=ticks, xi=0.5, seed=seed, length=101) for seed in range(800)]
    values = np.array(episodes) / 0.5
    assert values.std(axis=0) == pytest.approx(0.2, rel=0.15)
    lag = round(ticks)
    correlation = (values[:, 0] * values[:, lag]).mean() / values.var()
    assert correlation == pytest.approx(np.exp(-1.0), abs=0.08)


def test_equal_seeds_walk_equally_and_episodes_begin_anew() -> None:
    assert np.array_equal(walk(0.5, 10.0, 0.15, 7, 20), walk(0.5, 10.0, 0.15, 7, 20))
    assert not np.array_equal(walk(0.5, 10.0, 0.15, 7, 20), walk(0.5, 10.0, 0.15, 8, 20))
