# SPDX-License-Identifier: Apache-2.0
"""What trainers that can be stopped share."""

from __future__ import annotations

import pytest

from vla_rl_ros.learning.training_loop import falling_rate


def rate(step: int) -> float:
    return falling_rate(step, 100, 0.02, rise_steps=10, floor=0.05)


def test_the_rate_rises_along_a_line_and_falls_to_its_floor() -> None:
    assert rate(0) == pytest.approx(0.002)
    assert rate(4) == pytest.approx(0.01, rel=0.01)
    rates = [rate(step) for step in range(9, 101)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == rate(500) == pytest.approx(0.05 * 0.02)
    assert rate(50) == pytest.approx(0.02 * (0.05 + 0.95 / 2))
