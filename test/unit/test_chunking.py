# SPDX-License-Identifier: Apache-2.0
"""Which element belongs to which tick."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.timing_cases import START, P, chunk

from vla_rl_ros.core.chunking import PlacedChunk, chunk_poses, hold_action, is_as_promised
from vla_rl_ros.core.types import ActionChunk, Pose


@given(tick=st.integers(-3, 12), num=st.integers(0, 10), horizon=st.integers(1, 10))
def test_rows_are_what_will_be_played_and_no_more_than_what_remains(
    tick: int, num: int, horizon: int
) -> None:
    placed = PlacedChunk(chunk(START, horizon=horizon), START)
    tick_ns = START + tick * P
    rows = placed.rows(tick_ns, num)
    assert len(rows) == min(num, placed.remaining(tick_ns))
    first = max(tick, 0)
    for offset, action in enumerate(rows):
        step = placed.step(START + (first + offset) * P)
        assert step is not None
        assert np.array_equal(action, step.action)


@given(offset=st.integers(-P // 2, P // 2), horizon=st.integers(2, 20))
def test_a_chunk_off_the_tick_grid_has_each_element_once(offset: int, horizon: int) -> None:
    placed = PlacedChunk(chunk(START, horizon=horizon), START + offset)
    steps = [placed.step(START + n * P) for n in range(horizon)]
    indices = [step.index for step in steps if step is not None]
    assert indices == list(range(indices[0], indices[0] + len(indices)))


def test_a_promise_is_kept_by_the_same_bits_only() -> None:
    promised = chunk(START, mark=0.01).actions[2]
    assert is_as_promised(promised, promised.copy())
    assert not is_as_promised(promised, promised + 1e-18 + 1e-15)
    assert not is_as_promised(promised, None)
    assert is_as_promised(hold_action(1.0), None)


def test_chunk_poses_integrate_increments_in_base_axes() -> None:
    actions = np.zeros((3, 7))
    actions[:, 0] = 0.01
    actions[:, 5] = 0.1
    made = ActionChunk(
        chunk_id=1, epoch=1, stamp_ns=0, period_ns=P, delay_ticks=0, actions=actions
    )
    poses = chunk_poses(made, Pose(np.array([0.4, 0.0, 0.2]), np.array([1.0, 0.0, 0.0, 0.0])))
    assert len(poses) == 4
    assert poses[-1].position_m == pytest.approx([0.43, 0.0, 0.2])
