# SPDX-License-Identifier: Apache-2.0
"""Figures of smoothness, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from unit.timing_cases import START, P, chunk

from vla_rl_ros.core.chunking import Seam, Step
from vla_rl_ros.core.seams import SeamMetrics, prefix_mismatch
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import FloatArray


def action(x_m: float) -> FloatArray:
    return np.array([x_m, 0, 0, 0, 0, 0, 1.0])


def test_prefix_mismatch_is_zero_for_equal_bits_only() -> None:
    locked = chunk(START, delay_ticks=3)
    kept = [locked.actions[1], locked.actions[2]]
    assert prefix_mismatch(locked, kept) == 0.0
    assert prefix_mismatch(locked, [kept[0], kept[1] + 0.25]) == pytest.approx(0.25)
    assert prefix_mismatch(locked, kept[:1]) == math.inf
    assert prefix_mismatch(locked, [kept[0], None]) == math.inf
    assert prefix_mismatch(chunk(START, delay_ticks=1), []) == 0.0


def test_steps_at_seams_are_told_from_steps_inside_of_chunks() -> None:
    metrics, played = SeamMetrics(ActionSpec()), chunk(START, delay_ticks=0)
    metrics.on_seam(None)
    for tick, x_m in enumerate([0.0, 0.002, 0.004]):
        metrics.on_tick(START + tick * P, Step(tick, action(x_m), played))
    metrics.on_seam(Seam(START + 3 * P, action(0.006), action(0.010)))
    metrics.on_tick(START + 3 * P, Step(3, action(0.010), played))
    metrics.on_tick(START + 4 * P, None)
    figures = metrics.summary()
    # One normalised unit is 0.02 m.
    assert figures["boundary_jump_max"] == pytest.approx(0.2)
    assert figures["seam_step_max"] == pytest.approx(0.3)
    assert figures["chunk_step_p99"] == pytest.approx(0.1)
    assert figures["boundary_jump_ratio"] == pytest.approx(2.0)
    assert figures["seam_step_ratio"] == pytest.approx(3.0)
    assert figures["underflows"] == 1.0
    # Second difference 4 mm at 10 Hz.
    assert figures["jerk_p95_m_per_s3"] == pytest.approx(4.0)
    assert figures["observation_age_p99_s"] == pytest.approx(0.3)


def test_waiting_for_the_first_chunk_is_no_underflow_and_episodes_are_not_compared() -> None:
    metrics = SeamMetrics(ActionSpec())
    metrics.on_tick(START, None)
    metrics.on_tick(START + P, Step(0, action(0.0), chunk(START)))
    metrics.begin()
    metrics.on_tick(START + 2 * P, None)
    metrics.on_tick(START + 3 * P, Step(0, action(0.02), chunk(START)))
    figures = metrics.summary()
    assert figures["underflows"] == 0.0
    assert math.isnan(figures["chunk_step_p99"])
