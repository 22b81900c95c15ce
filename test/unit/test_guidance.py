# SPDX-License-Identifier: Apache-2.0
"""Weights and gain of real-time chunking, against the formulas worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.guidance import guidance_gain, prefix_weights


def test_weights_of_a_case_worked_out_by_hand() -> None:
    # H=8, d=2, s=3: c_i = (5 - i) / 4 for i = 2, 3, 4.
    soft = [c * (math.exp(c) - 1.0) / (math.e - 1.0) for c in (0.75, 0.5, 0.25)]
    assert prefix_weights(8, 2, 3) == pytest.approx([1.0, 1.0, *soft, 0.0, 0.0, 0.0])


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_weights_fall_from_locked_to_nothing(horizon: int, locked: int, executed: int) -> None:
    executed = min(executed, horizon)
    weights = prefix_weights(horizon, locked, executed)
    assert weights.shape == (horizon,)
    assert np.all((weights >= 0.0) & (weights <= 1.0))
    assert np.all(np.diff(weights) <= 1e-12)
    assert np.all(weights[:locked] == 1.0)
    assert np.all(weights[max(locked, horizon - executed) :] == 0.0)


def test_gain_is_bounded_at_both_ends_and_follows_the_formula_between() -> None:
    assert guidance_gain(0.0) == guidance_gain(1.0) == 5.0
    for tau in (0.2, 0.5, 0.8):
        r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        assert guidance_gain(tau, beta=100.0) == pytest.approx((1 - tau) / (tau * r2))
    assert guidance_gain(0.5) == pytest.approx(2.0)


def test_what_has_no_weights_is_refused() -> None:
    for horizon, locked, executed in ((8, -1, 2), (8, 2, 9), (8, 2, -1)):
        with pytest.raises(ConfigError):
            prefix_weights(horizon, locked, executed)
    with pytest.raises(ConfigError):
        guidance_gain(1.5)
