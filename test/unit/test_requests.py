# SPDX-License-Identifier: Apache-2.0
"""Chunks and requests in lock-step: no clock, random delays, resets and losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.test_chunking import START, P, chunk, schedule

from vla_rl_ros.core.chunking import Verdict
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.requests import ChunkRequests, DelayWindow
from vla_rl_ros.core.types import ActionChunk


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


def test_impossible_windows_are_refused() -> None:
    for broken in ({"size": 0}, {"quantile": 0.0}, {"quantile": 1.1}, {"initial": -1}):
        with pytest.raises(ConfigError):
            DelayWindow(**broken)


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


@settings(max_examples=60, deadline=None)
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
