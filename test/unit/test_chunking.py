# SPDX-License-Identifier: Apache-2.0
"""Ticks, chunks and requests in lock-step: no clock, random delays, resets and losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.chunking import ChunkSchedule, Verdict, chunk_poses
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.requests import ChunkRequests, DelayWindow
from vla_rl_ros.core.ticks import TickGrid, nearest_index
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


def row(
    tick_ns: int, *, chunk_id: int = 1, step: int = 0, source: Source = Source.VLA
) -> ExecutedAction:
    zeros = np.zeros(7)
    return ExecutedAction(
        stamp_ns=tick_ns,
        epoch=1,
        source=source,
        executed=zeros,
        base=zeros,
        residual=zeros,
        chunk_id=chunk_id,
        chunk_step=step,
    )


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


@given(offset=st.integers(-P // 2, P // 2), horizon=st.integers(2, 20))
def test_a_chunk_off_the_tick_grid_is_played_without_repeat_or_skip(
    offset: int, horizon: int
) -> None:
    plan = schedule()
    plan.offer(chunk(START + offset, horizon=horizon), START)
    indices = [s.index for n in range(horizon) if (s := plan.at(START + n * P)) is not None]
    assert indices == list(range(indices[0], indices[0] + len(indices)))


def test_half_a_period_rounds_upwards_every_time() -> None:
    halves = [nearest_index(n * P + P // 2, 0, P) for n in range(-3, 4)]
    assert halves == [-2, -1, 0, 1, 2, 3, 4]


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


def test_grid_stamps_lie_exactly_one_period_apart_despite_jitter() -> None:
    grid = TickGrid(P)
    rng = np.random.default_rng(0)
    stamps = [grid.stamp(START + n * P + int(rng.integers(-2e6, 2e6))) for n in range(200)]
    assert set(np.diff(stamps)) == {P}
    assert grid.next_ns == stamps[-1] + P


def test_grid_counts_skipped_ticks_and_follows_a_clock_that_was_set() -> None:
    grid = TickGrid(P)
    grid.stamp(START)
    assert grid.stamp(START + 4 * P) == START + 4 * P
    assert grid.num_skipped == 3
    assert grid.stamp(START - 7_777_777) == START - 7_777_777
    assert grid.stamp(START - 7_777_777 + P) == START - 7_777_777 + P
    assert grid.num_restarts == 1
    drifted = START - 7_777_777 + 2 * P + 6_000_000
    assert grid.stamp(drifted) == drifted
    assert grid.num_restarts == 2


def test_impossible_settings_are_refused() -> None:
    for broken in (
        lambda: ChunkSchedule(0),
        lambda: TickGrid(P, tolerance_ns=P),
        lambda: DelayWindow(size=0),
        lambda: DelayWindow(quantile=0.0),
    ):
        with pytest.raises(ConfigError):
            broken()


def test_delay_estimate_covers_the_quantile_and_forgets_a_spike_within_the_window() -> None:
    window = DelayWindow(size=16, quantile=0.95, initial=1)
    assert window.estimate() == 1
    for _ in range(16):
        window.add(2)
    assert window.estimate() == 2
    window.add(9)
    assert window.estimate() == 9
    for _ in range(16):
        window.add(2)
    assert window.estimate() == 2


def test_requests_come_every_execute_ticks_and_never_while_one_is_pending() -> None:
    requests = ChunkRequests(P)
    requests.reset(1)
    asked = []
    for n in range(9):
        if requests.on_tick(row(START + n * P, step=n), execute_ticks=3):
            number = requests.sent(START + n * P)
            asked.append(n)
            if n != 3:
                requests.answered(number)
        if n == 4:
            requests.answered(number)
    assert asked == [0, 3, 6]


def test_holding_and_lost_answers_ask_at_once() -> None:
    requests = ChunkRequests(P)
    requests.reset(1)
    number = requests.sent(START)
    held = row(START + P, step=NO_STEP, source=Source.HOLD)
    assert not requests.on_tick(held, execute_ticks=8)
    requests.answered(number - 1)
    assert requests.is_pending
    requests.answered(number)
    assert requests.on_tick(held, execute_ticks=8)


def test_a_clock_set_back_does_not_starve_the_requests() -> None:
    requests = ChunkRequests(P)
    requests.reset(1)
    requests.answered(requests.sent(START))
    assert requests.on_tick(row(START - 3600 * 10 * P), execute_ticks=1)


def test_delay_is_the_first_played_index_and_the_first_chunk_of_an_epoch_does_not_count() -> None:
    requests = ChunkRequests(P)
    requests.reset(1)
    for n, (chunk_id, step) in enumerate([(1, 6), (1, 7), (2, 3), (2, 4), (3, 2)]):
        requests.on_tick(row(START + n * P, chunk_id=chunk_id, step=step), execute_ticks=99)
    assert requests.delay.estimate() == 3
    requests.reset(2)
    assert requests.delay.estimate() == 3
    assert requests.is_first


def test_prefix_is_what_was_executed_and_then_what_is_promised() -> None:
    requests = ChunkRequests(P, DelayWindow(initial=3))
    requests.reset(1)
    assert requests.prefix(START) is None
    requests.published(chunk(START), START)
    executed = replace(row(START + P), executed=np.full(7, 0.5))
    requests.on_tick(executed, execute_ticks=1)
    prefix = requests.prefix(START + P)
    assert prefix is not None
    assert np.array_equal(prefix[0], np.full(7, 0.5))
    assert np.array_equal(prefix[1:, 0], [2.0, 3.0])
    # Without a row of this very tick there are only promises.
    assert np.array_equal(requests.prefix(START + 2 * P)[:, 0], [2.0, 3.0, 4.0])


@given(
    latencies=st.lists(st.integers(0, 12 * P), min_size=5, max_size=60),
    execute_ticks=st.integers(1, 6),
    resets=st.sets(st.integers(1, 59), max_size=3),
)
def test_whatever_the_latency_each_tick_plays_its_own_element_or_nothing(
    latencies: list[int], execute_ticks: int, resets: set[int]
) -> None:
    epoch = 1
    plan, requests = schedule(epoch), ChunkRequests(P)
    requests.reset(epoch)
    under_way: list[tuple[int, ActionChunk]] = []
    held_in_a_row = 0
    for n in range(len(latencies)):
        tick = START + n * P
        if n in resets:
            epoch += 1
            plan.reset(epoch)
            requests.reset(epoch)
        for arrival, answer in sorted(under_way, key=lambda pair: pair[0]):
            if arrival <= tick:
                requests.answered(answer.chunk_id)
                verdict = plan.offer(answer, tick)
                assert (verdict is Verdict.OTHER_EPOCH) is (answer.epoch != epoch)
                under_way.remove((arrival, answer))
        step = plan.at(tick)
        if step is not None:
            assert step.action[0] == n
            assert step.chunk.epoch == epoch
        played = row(
            tick,
            chunk_id=step.chunk.chunk_id if step else 0,
            step=step.index if step else NO_STEP,
            source=Source.VLA if step else Source.HOLD,
        )
        held_in_a_row = 0 if step else held_in_a_row + 1
        if requests.on_tick(played, execute_ticks):
            prefix = requests.prefix(tick)
            assert prefix is not None
            assert 1 <= len(prefix) <= max(1, requests.delay.estimate())
            answer = chunk(tick, epoch=epoch, chunk_id=requests.sent(tick))
            under_way.append((tick + latencies[n], answer))
            requests.published(answer, tick)
        # Nothing to play and nothing asked for would be starvation.
        assert step is not None or requests.is_pending
