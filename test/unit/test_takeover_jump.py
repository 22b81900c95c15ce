# SPDX-License-Identifier: Apache-2.0
"""What `bench takeover` calls a jump, on motions made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.types import Pose
from vla_rl_ros.tools.takeover_jump import jump_at

HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
MS = 1_000_000
PERIOD_NS = 100 * MS
ZERO3 = np.zeros(3)
ALONG_Y = np.array([0.0, 0.01, 0.0, 0.0, 0.0, 0.0])


def moving(until_ms: int, *, turns_ms: int = 10**9, step_mm: float = 0.0, heard_ms: int = 0):
    """100 Hz of a reference that goes along x at 0.1 m/s, from `turns_ms` on along y."""
    found = []
    for now_ms in range(0, until_ms, 10):
        before = min(now_ms, turns_ms + heard_ms)
        after = max(0, now_ms - turns_ms - heard_ms)
        y = after * 1e-4 + (1e-3 * step_mm if after else 0.0)
        found.append((now_ms * MS, offset_pose(HOME, np.array([before * 1e-4, y, 0]), ZERO3)))
    return found


def turning_twice(aimed_ms: int, change_ms: int, heard_ms: int = 4, step_mm: float = 0.0):
    """Along x, from `aimed_ms` on up at 0.2 m/s to a target, from `change_ms` on along y."""
    x = (aimed_ms + heard_ms) * 1e-4
    target = offset_pose(HOME, np.array([x, 0.0, 0.02]), ZERO3)
    found = []
    for now_ms in range(0, 500, 10):
        x = min(now_ms, aimed_ms + heard_ms) * 1e-4
        z = min(max(0, now_ms - aimed_ms - heard_ms), change_ms - aimed_ms) * 2e-4
        after = max(0, now_ms - change_ms - heard_ms)
        y = after * 1e-4 + (1e-3 * step_mm if after else 0.0)
        found.append((now_ms * MS, offset_pose(HOME, np.array([x, y, z]), ZERO3)))
    return found, [(aimed_ms * MS, target)]


@pytest.mark.parametrize("heard_ms", [0, 4, 13])
def test_a_turn_is_no_jump_whenever_the_arm_hears_of_it(heard_ms: int) -> None:
    references = moving(500, turns_ms=200, heard_ms=heard_ms)
    jump = jump_at(200 * MS, ALONG_Y, references, [], PERIOD_NS)
    assert jump is not None
    assert jump.distance_m < 2e-4
    assert jump.angle_rad == 0.0


def test_a_step_is_a_jump_of_its_size() -> None:
    references = moving(500, turns_ms=200, step_mm=3.0, heard_ms=5)
    jump = jump_at(200 * MS, ALONG_Y, references, [], PERIOD_NS)
    assert jump is not None
    assert jump.distance_m == pytest.approx(3e-3, abs=6e-4)


@pytest.mark.parametrize("aimed_ms", [182, 188, 195])
def test_what_the_driver_before_asked_for_last_is_no_jump(aimed_ms: int) -> None:
    references, targets = turning_twice(aimed_ms, 200)
    jump = jump_at(200 * MS, ALONG_Y, references, targets, PERIOD_NS)
    assert jump is not None
    assert jump.distance_m < 3e-4
    without = jump_at(200 * MS, ALONG_Y, references, [], PERIOD_NS)
    assert without is not None
    assert jump.distance_m < without.distance_m


@pytest.mark.parametrize("aimed_ms", [110, 185])
def test_a_target_that_is_repeated_is_as_old_as_it_was(aimed_ms: int) -> None:
    references, [first] = turning_twice(aimed_ms, 200)
    repeated = [(now_ms * MS, first[1]) for now_ms in range(aimed_ms + 12, 200, 12)]
    jumps = [
        jump_at(200 * MS, ALONG_Y, references, targets, PERIOD_NS)
        for targets in ([first], [first, *repeated])
    ]
    assert jumps[0] is not None
    assert jumps[0] == jumps[1]
    assert jumps[0].distance_m < 3e-4


@pytest.mark.parametrize("aimed_ms", [182, 195])
def test_a_step_after_two_turns_is_a_jump_all_the_same(aimed_ms: int) -> None:
    references, targets = turning_twice(aimed_ms, 200, step_mm=3.0)
    jump = jump_at(200 * MS, ALONG_Y, references, targets, PERIOD_NS)
    assert jump is not None
    assert jump.distance_m == pytest.approx(3e-3, abs=8e-4)


def test_a_reference_that_goes_on_while_one_is_missing_does_not_jump() -> None:
    references = [r for r in moving(500, turns_ms=200, heard_ms=5) if r[0] != 200 * MS]
    jump = jump_at(203 * MS, ALONG_Y, references, [], PERIOD_NS)
    assert jump is not None
    assert jump.distance_m < 3e-4


def test_what_nobody_saw_is_not_judged() -> None:
    assert jump_at(0, ALONG_Y, [], [], PERIOD_NS) is None
    references = moving(500, turns_ms=200)
    told_late = [r for r in references if not 190 * MS < r[0] < 220 * MS]
    assert jump_at(205 * MS, ALONG_Y, told_late, [], PERIOD_NS) is None
    assert jump_at(222 * MS, ALONG_Y, told_late, [(205 * MS, HOME)], PERIOD_NS) is None
    assert jump_at(15 * MS, ALONG_Y, references[1:], [], PERIOD_NS) is None
    assert jump_at(205 * MS, ALONG_Y, moving(240, turns_ms=200), [], PERIOD_NS) is None
