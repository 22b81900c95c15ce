# SPDX-License-Identifier: Apache-2.0
"""What `bench takeover` makes of what it heard, on motions made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.types import Pose
from vla_rl_ros.tools.takeover_figures import jump_at, num_changes, response_ms, rest_ms

HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
MS = 1_000_000
PERIOD_NS = 100 * MS


def moving(until_ms: int, *, turns_ms: int = 10**9, step_mm: float = 0.0, heard_ms: int = 0):
    """100 Hz of a reference that goes along x at 0.1 m/s, from `turns_ms` on along y."""
    found = []
    for now_ms in range(0, until_ms, 10):
        before = min(now_ms, turns_ms + heard_ms)
        after = max(0, now_ms - turns_ms - heard_ms)
        y = after * 1e-4 + (1e-3 * step_mm if after else 0.0)
        found.append((now_ms * MS, offset_pose(HOME, np.array([before * 1e-4, y, 0]), ZERO3)))
    return found


ZERO3 = np.zeros(3)
ALONG_Y = np.array([0.0, 0.01, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("heard_ms", [0, 4, 13])
def test_a_turn_is_no_jump_whenever_the_arm_hears_of_it(heard_ms: int) -> None:
    references = moving(500, turns_ms=200, heard_ms=heard_ms)
    jump = jump_at(200 * MS, ALONG_Y, references, PERIOD_NS)
    assert jump is not None
    assert jump.distance_m < 2e-4
    assert jump.angle_rad == 0.0


def test_a_step_is_a_jump_of_its_size() -> None:
    references = moving(500, turns_ms=200, step_mm=3.0, heard_ms=5)
    jump = jump_at(200 * MS, ALONG_Y, references, PERIOD_NS)
    assert jump is not None
    assert jump.distance_m == pytest.approx(3e-3, abs=6e-4)


def test_a_reference_that_goes_on_while_one_is_missing_does_not_jump() -> None:
    references = [r for r in moving(500, turns_ms=200, heard_ms=5) if r[0] != 200 * MS]
    jump = jump_at(209 * MS, ALONG_Y, references, PERIOD_NS)
    assert jump is not None
    assert jump.distance_m < 3e-4


def test_what_nobody_saw_is_not_judged() -> None:
    assert jump_at(0, ALONG_Y, [], PERIOD_NS) is None
    references = moving(500, turns_ms=200)
    told_late = [r for r in references if not 190 * MS < r[0] < 220 * MS]
    assert jump_at(205 * MS, ALONG_Y, told_late, PERIOD_NS) is None
    assert jump_at(15 * MS, ALONG_Y, references[1:], PERIOD_NS) is None
    assert jump_at(205 * MS, ALONG_Y, moving(240, turns_ms=200), PERIOD_NS) is None


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
