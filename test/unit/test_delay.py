# SPDX-License-Identifier: Apache-2.0
"""The delay estimate: what counts, what is forgotten, what caution adds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.delay import DelayEstimator, delay_of
from vla_rl_ros.core.errors import ConfigError


def measured(*latencies: float, **settings: object) -> DelayEstimator:
    delay = DelayEstimator(num_warm_up=0, **settings)
    for latency in latencies:
        delay.add(latency)
    return delay


@pytest.mark.parametrize(
    "broken",
    [{"size": 0}, {"quantile": 0.0}, {"quantile": 1.1}, {"expected": -1}, {"num_warm_up": -1}],
)
def test_impossible_windows_are_refused(broken: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DelayEstimator(**broken)


@pytest.mark.parametrize(("latency", "delay"), [(0.0, 1), (0.99, 1), (1.0, 2), (3.5, 4)])
def test_a_chunk_is_first_used_at_the_tick_after_its_arrival(latency: float, delay: int) -> None:
    assert delay_of(latency) == delay


def test_nothing_measured_gives_what_was_expected() -> None:
    assert DelayEstimator().estimate() == 1
    assert DelayEstimator(expected=4).estimate() == 4


def test_a_few_fast_answers_do_not_overrule_the_expectation_but_four_do() -> None:
    delay = measured(0.1, 0.1, 0.1, expected=4)
    assert delay.estimate() == 4
    delay.add(0.1)
    assert delay.estimate() == 1


def test_the_cold_model_counts_only_until_there_are_other_measurements() -> None:
    delay = DelayEstimator()
    delay.add(9.5)
    assert delay.estimate() == 10
    delay.add(1.5)
    assert delay.estimate() == 2


def test_two_spikes_in_a_window_change_nothing_and_a_new_regime_is_followed() -> None:
    delay = measured(*[1.5] * 14, 8.0, 1.5, 8.0)
    assert delay.estimate() == 2
    for _ in range(3):
        delay.add(5.5)
    assert delay.estimate() == 6
    for _ in range(16):
        delay.add(1.5)
    assert delay.estimate() == 2


def test_an_answer_just_before_a_tick_makes_the_next_request_careful() -> None:
    close, spare = measured(*[1.8] * 16), measured(*[1.7] * 16)
    assert close.estimate() == spare.estimate() == 2
    assert close.careful(20) == 3
    assert spare.careful(20) == 2


def test_a_loss_makes_the_next_request_careful_until_a_chunk_is_taken() -> None:
    delay = measured(*[1.5] * 16)
    delay.add(6.2, is_late=True)
    assert delay.estimate() == 2
    assert delay.careful(20) == 7
    # Locking what is not there would only lock standing still.
    assert delay.careful(4) == 4
    assert delay.careful(0) == 2
    delay.add(1.5)
    assert delay.careful(20) == 3


def test_a_spike_that_the_plan_could_not_outlast_is_expected_again() -> None:
    delay = measured(*[1.5] * 15, 5.5)
    assert delay.estimate() == 2
    assert delay.careful(20) == 3
    assert delay.careful(7) == 6


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=60), st.integers(0, 40))
def test_caution_never_goes_below_the_estimate_nor_beyond_what_is_promised(
    latencies: list[float], num_promised: int
) -> None:
    delay = measured(*latencies)
    careful = delay.careful(num_promised)
    assert delay.estimate() <= careful <= max(delay.estimate(), num_promised)
    assert delay.estimate() <= delay_of(max(latencies))


def test_uniform_jitter_of_a_tick_is_within_one_tick_of_the_estimate() -> None:
    rng = np.random.default_rng(0)
    for base in rng.uniform(0.0, 8.0, 20):
        delay, hits = measured(*[base + 0.5] * 4), []
        for latency in base + rng.uniform(0.0, 1.0, 400):
            hits.append(abs(delay.estimate() - delay_of(latency)) <= 1)
            delay.add(latency)
        assert np.mean(hits) >= 0.99
