# SPDX-License-Identifier: Apache-2.0
"""Step figures agree with responses that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.tools.step_metrics import period_jitter_p99_ms, step_metrics

TIME_S = np.arange(0.0, 2.0, 0.001)


def test_first_order_response_has_its_time_constant_as_t63() -> None:
    metrics = step_metrics(TIME_S, 0.01 * (1 - np.exp(-TIME_S / 0.2)), 0.01)
    assert metrics.t63_ms == pytest.approx(199.0, abs=2.0)
    assert metrics.overshoot_percent == 0.0
    assert metrics.speed_max_m_per_s == pytest.approx(0.0475, abs=0.001)


def test_overshoot_and_steady_error_are_signed_by_the_step() -> None:
    position = np.where(TIME_S < 0.5, 0.011, 0.009)
    metrics = step_metrics(TIME_S, position, 0.01)
    assert metrics.overshoot_percent == pytest.approx(10.0)
    assert metrics.steady_error_mm == pytest.approx(1.0)


def test_a_step_that_is_never_reached_has_no_t63() -> None:
    assert np.isnan(step_metrics(TIME_S, np.full_like(TIME_S, 0.001), 0.01).t63_ms)


def test_jitter_is_the_distance_from_the_nominal_period() -> None:
    stamps_s = np.cumsum(np.r_[np.full(50, 0.012), np.full(50, 0.008)])
    assert period_jitter_p99_ms(stamps_s, 0.01) == pytest.approx(2.0)
