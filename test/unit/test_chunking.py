# SPDX-License-Identifier: Apache-2.0
"""Which element belongs to which tick, and which chunks may be played."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl_ros.core.chunking import ChunkSchedule, Verdict, chunk_poses
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ActionChunk, Pose

P = 100_000_000
START = 1_700_000_000_000_000_000


def chunk(
    stamp_ns: int, *, epoch: int = 1, chunk_id: int = 1, horizon: int = 8, period_ns: int = P
) -> ActionChunk:
    """A chunk whose first channel says which tick each element belongs to."""
    actions = np.zeros((horizon, 7))
    actions[:, 0] = (stamp_ns - START) / P + np.arange(horizon)
    return ActionChunk(
        chunk_id=chunk_id,
        epoch=epoch,
        stamp_ns=stamp_ns,
        period_ns=period_ns,
        delay_ticks=1,
        actions=actions,
    )


def schedule(epoch: int = 1) -> ChunkSchedule:
    made = ChunkSchedule(P)
    made.reset(epoch)
    return made


def test_element_i_belongs_to_observation_tick_plus_i() -> None:
    plan = schedule()
    assert plan.offer(chunk(START), START + P) is Verdict.ACCEPTED
    for index in range(8):
        step = plan.at(START + index * P)
        assert step is not None
        assert step.index == index
        assert step.action[0] == index
    assert plan.at(START + 8 * P) is None
    assert plan.at(START - P) is None


def test_late_chunk_is_played_from_its_own_index_not_from_its_start() -> None:
    plan = schedule()
    assert plan.offer(chunk(START), START + 3 * P) is Verdict.ACCEPTED
    step = plan.at(START + 3 * P)
    assert step is not None
    assert step.index == 3


@pytest.mark.parametrize(
    ("offered", "next_tick", "verdict"),
    [
        (chunk(START, epoch=2), START, Verdict.OTHER_EPOCH),
        (chunk(START, epoch=0), START, Verdict.OTHER_EPOCH),
        (chunk(START, period_ns=P // 2), START, Verdict.BAD_PERIOD),
        (chunk(START), START + 8 * P, Verdict.TOO_LATE),
        (chunk(START), START + 7 * P, Verdict.ACCEPTED),
        (chunk(START), START - P, Verdict.FROM_FUTURE),
        (chunk(START), START - P // 2, Verdict.ACCEPTED),
    ],
)
def test_chunks_that_cannot_be_played_are_dropped_with_the_reason(
    offered: ActionChunk, next_tick: int, verdict: Verdict
) -> None:
    plan = schedule()
    assert plan.offer(offered, next_tick) is verdict
    assert (plan.active is offered) is (verdict is Verdict.ACCEPTED)


def test_an_older_observation_never_replaces_a_newer_one_whatever_the_ids_say() -> None:
    plan = schedule()
    plan.offer(chunk(START + P, chunk_id=900), START + 2 * P)
    assert plan.offer(chunk(START, chunk_id=901), START + 2 * P) is Verdict.OLDER
    assert plan.offer(chunk(START + P, chunk_id=902), START + 2 * P) is Verdict.OLDER
    # A policy process that was started again counts from one.
    assert plan.offer(chunk(START + 2 * P, chunk_id=1), START + 3 * P) is Verdict.ACCEPTED


def test_reset_forgets_the_chunk_and_refuses_its_epoch() -> None:
    plan = schedule()
    plan.offer(chunk(START), START)
    plan.reset(2)
    assert plan.at(START) is None
    assert plan.remaining(START) == 0
    assert plan.committed(START, 3).shape == (0, 7)
    assert plan.offer(chunk(START + P), START + P) is Verdict.OTHER_EPOCH


@settings(max_examples=60, deadline=None)
@given(tick=st.integers(-3, 12), num=st.integers(0, 10), horizon=st.integers(1, 10))
def test_committed_is_what_will_be_played_and_no_longer_than_what_remains(
    tick: int, num: int, horizon: int
) -> None:
    plan = schedule()
    plan.offer(chunk(START, horizon=horizon), START)
    tick_ns = START + tick * P
    committed = plan.committed(tick_ns, num)
    assert len(committed) == min(num, plan.remaining(tick_ns))
    first = max(tick, 0)
    for offset, action in enumerate(committed):
        step = plan.at(START + (first + offset) * P)
        assert step is not None
        assert np.array_equal(action, step.action)


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(-P // 2, P // 2), horizon=st.integers(2, 20))
def test_a_chunk_off_the_tick_grid_is_played_without_repeat_or_skip(
    offset: int, horizon: int
) -> None:
    plan = schedule()
    plan.offer(chunk(START + offset, horizon=horizon), START)
    indices = [s.index for n in range(horizon) if (s := plan.at(START + n * P)) is not None]
    assert indices == list(range(indices[0], indices[0] + len(indices)))


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


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ConfigError):
        ChunkSchedule(0)
