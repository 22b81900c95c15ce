# SPDX-License-Identifier: Apache-2.0
"""The residual is bounded, and zero leaves the policy's action as it is, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vla_rl_ros.core.residual import clip_action, compose, residual_action
from vla_rl_ros.core.spec import ActionSpec

SPEC = ActionSpec()
normalised = arrays(np.float64, 7, elements=st.floats(-1.0, 1.0))
anything = arrays(np.float64, 7, elements=st.floats(-50.0, 50.0))
scale = st.floats(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(base=anything, xi=scale)
def test_zero_residual_is_bit_equal_to_the_base(base: np.ndarray, xi: float) -> None:
    assert compose(base, np.zeros(7), xi).tobytes() == base.tobytes()


@settings(max_examples=60, deadline=None)
@given(base=normalised, u=anything, xi=scale)
def test_residual_is_bounded_and_stays_in_range(
    base: np.ndarray, u: np.ndarray, xi: float
) -> None:
    executed = compose(base, u, xi)
    assert np.all(np.abs(executed - base) <= xi + 1e-12)
    assert np.all(np.abs(executed) <= 1.0)


@settings(max_examples=60, deadline=None)
@given(base=normalised, u=anything, xi=scale)
def test_si_residual_is_zero_where_u_is_zero_and_adds_up_to_the_composed_action(
    base: np.ndarray, u: np.ndarray, xi: float
) -> None:
    u[3:] = 0.0
    base_si = SPEC.to_si(base)
    residual = residual_action(base_si, u, xi, SPEC)
    assert np.array_equal(residual[3:], np.zeros(4))
    wanted = SPEC.to_si(compose(base, u, xi))
    assert np.allclose(base_si + residual, wanted, rtol=0.0, atol=1e-12)


def test_residual_has_the_value_of_the_formula() -> None:
    u = np.array([1.0, -1.0, 100.0, 0.0, 0.0, 0.0, 0.0])
    base = np.array([0.0, 0.01, 0.019, 0.0, 0.0, 0.0, 1.0])
    residual = residual_action(base, u, 0.2, SPEC)
    bound = 0.2 * np.tanh(1.0) * 0.02
    assert np.allclose(residual, [bound, -bound, 0.001, 0.0, 0.0, 0.0, 0.0], atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(base=normalised)
def test_clip_keeps_values_in_range_bit_equal(base: np.ndarray) -> None:
    action = np.clip(SPEC.to_si(base), -0.02, 0.02)
    action[6] = abs(action[6])
    assert clip_action(action, SPEC).tobytes() == action.tobytes()


def test_clip_bounds_each_channel_to_the_spec() -> None:
    assert np.array_equal(
        clip_action(np.full(7, 9.0), SPEC), [0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 1.0]
    )
    assert np.array_equal(
        clip_action(np.full(7, -9.0), SPEC), [-0.02, -0.02, -0.02, -0.1, -0.1, -0.1, 0.0]
    )
