# SPDX-License-Identifier: Apache-2.0
"""What `bench takeover` makes of what it heard, on motions made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.types import Pose
from vla_rl_ros.tools.takeover_figures import num_changes, response_ms, rest_ms

HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
MS = 1_000_000
ZERO3 = np.zeros(3)


def moving(until_ms: int):
    """100 Hz of a reference that goes along x at 0.1 m/s."""
    times_ms = range(0, until_ms, 10)
    return [(t * MS, offset_pose(HOME, np.array([t * 1e-4, 0, 0]), ZERO3)) for t in times_ms]


def test_response_is_the_first_target_that_turns_as_told() -> None:
    references = [(now_ms * MS, HOME) for now_ms in range(0, 400, 10)]
    turned = offset_pose(HOME, ZERO3, np.array([0, 0, 0.05]))
    back = offset_pose(HOME, ZERO3, np.array([0, 0, -0.05]))
    targets = [(90 * MS, turned), (100 * MS, back), (120 * MS, HOME), (130 * MS, turned)]
    assert response_ms(95 * MS, 0.05, targets, references) == pytest.approx(35.0)
    assert response_ms(95 * MS, -0.05, targets, references) == pytest.approx(5.0)
    assert response_ms(131 * MS, 0.05, targets, references) is None


def test_rest_is_when_the_reference_is_where_it_stays() -> None:
    moved = moving(100)
    rest = [(now_ms * MS, moved[-1][1]) for now_ms in range(100, 300, 10)]
    assert rest_ms(50 * MS, [*moved, *rest]) == pytest.approx(30.0)
    assert rest_ms(150 * MS, [*moved, *rest]) == 0.0


def test_repetitions_are_no_changes() -> None:
    assert num_changes([0.08, 0.0, 0.0, 0.08, 0.0], 0.08) == 3
    assert num_changes([], 1.0) == 0
