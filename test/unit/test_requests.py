# SPDX-License-Identifier: Apache-2.0
"""When the policy is asked, and what it is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from unit.timing_cases import START, P, chunk, row, row_of, traits

from vla_rl_ros.core.chunking import Verdict
from vla_rl_ros.core.delay import DelayEstimator
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.core.requests import ChunkRequests
from vla_rl_ros.core.types import ActionChunk

H = 8


def at(tick: int) -> int:
    return START + tick * P


def make(
    execute_ticks: int = 3,
    *,
    delay_ticks: int = 2,
    policy: PolicyTraits | None = None,
    mode: str = "prefix_lock",
) -> ChunkRequests:
    settings = AsyncSettings(mode=mode, execute_ticks=execute_ticks, latency_budget_s=0.2)
    requests = ChunkRequests(
        settings, policy or traits(H), DelayEstimator(expected=delay_ticks, num_warm_up=0)
    )
    requests.reset(1)
    return requests


def publish(requests: ChunkRequests, tick: int, now_tick: float, **made: object) -> ActionChunk:
    """Answer a request asked at a tick."""
    request = requests.request(at(tick))
    assert requests.answered(request) is Verdict.ACCEPTED
    published = chunk(
        at(tick),
        chunk_id=request.number,
        delay_ticks=request.delay_ticks,
        horizon=H,
        **made,
    )
    requests.published(published, START + int(now_tick * P))
    return published


def playing(requests: ChunkRequests) -> ActionChunk:
    """Requests that know a chunk whose element 0 is played at tick 0."""
    first = publish(requests, 0, 0.0)
    assert not requests.on_tick(row_of(first, START, 0))
    return first


def test_the_next_request_comes_s_ticks_after_the_start_and_not_while_one_is_pending() -> None:
    requests = make(3)
    first = playing(requests)
    due = [requests.on_tick(row_of(first, at(n), n)) for n in (1, 2, 3)]
    assert due == [False, False, True]
    request = requests.request(at(3))
    assert not requests.on_tick(row_of(first, at(4), 4))
    assert requests.answered(request) is Verdict.ACCEPTED


def test_it_comes_earlier_when_little_is_left() -> None:
    requests = make(6, delay_ticks=2)
    first = playing(requests)
    due = [requests.on_tick(row_of(first, at(n), n)) for n in range(1, 6)]
    # At tick 5 three elements are left: the delay of 2 and a margin of 1.
    assert due == [False, False, False, False, True]


def test_nothing_is_asked_between_publishing_and_the_row_that_shows_the_chunk() -> None:
    requests = make(1, delay_ticks=2)
    first = playing(requests)
    requests.on_tick(row_of(first, at(1), 1))
    second = publish(requests, 1, 1.5)
    assert second.delay_ticks == 2
    assert not requests.on_tick(row_of(first, at(2), 2))
    assert requests.on_tick(row_of(second, at(3), 2))
    assert requests.num_late == 0


def test_a_chunk_the_actor_dropped_counts_as_late_and_the_next_request_is_longer() -> None:
    requests = make(1, delay_ticks=1)
    first = playing(requests)
    requests.on_tick(row_of(first, at(1), 1))
    late = publish(requests, 1, 3.5)
    assert late.delay_ticks == 1
    assert requests.on_tick(row_of(first, at(3), 3))
    assert requests.num_late == 1
    assert requests.request(at(3)).delay_ticks == 3


def test_prefix_is_what_was_executed_then_what_is_promised_then_a_hold() -> None:
    requests = make(3, delay_ticks=4)
    first = playing(requests)
    executed = np.full(7, 0.5)
    last = row(at(6), chunk_id=1, step=6, base=first.actions[6], executed=executed)
    requests.on_tick(last)
    request = requests.request(at(6))
    assert request.prefix is not None
    rows = request.prefix.actions
    assert (request.delay_ticks, request.prefix.num_locked, len(rows)) == (4, 4, 4)
    assert rows[0].tobytes() == executed.tobytes()
    assert rows[1].tobytes() == first.actions[7].tobytes()
    assert not rows[2:, :6].any()
    assert np.all(rows[2:, 6] == first.actions[7, 6])


def test_guidance_gets_the_whole_plan_and_the_others_nothing() -> None:
    guided = make(3, delay_ticks=2, mode="rtc")
    first = playing(guided)
    guided.on_tick(row_of(first, at(3), 3))
    request = guided.request(at(3))
    assert request.prefix is not None
    assert request.prefix.conditioning is Conditioning.GUIDE
    assert len(request.prefix.actions) == H - 3
    naive = make(3, delay_ticks=2, mode="naive")
    first = playing(naive)
    naive.on_tick(row_of(first, at(3), 3))
    request = naive.request(at(3))
    assert (request.prefix, request.delay_ticks) == (None, 2)


def test_rows_are_locked_for_a_policy_that_cannot_be_conditioned_and_it_may_anchor_to_them() -> (
    None
):
    deaf = PolicyTraits(horizon=H, conditionings=frozenset({Conditioning.NONE}), max_locked=0)
    requests = make(3, policy=deaf)
    first = playing(requests)
    requests.on_tick(row_of(first, at(3), 3))
    request = requests.request(at(3))
    assert request.prefix is not None
    assert request.prefix.conditioning is Conditioning.NONE
    assert request.prefix.num_locked == 2


def test_delay_is_limited_by_what_the_policy_can_lock() -> None:
    requests = make(3, delay_ticks=5, policy=traits(H, max_locked=2))
    first = playing(requests)
    requests.on_tick(row_of(first, at(3), 3))
    assert requests.request(at(3)).delay_ticks == 2


def test_a_hold_while_elements_are_left_is_a_hiccup_and_breaks_a_pending_promise() -> None:
    requests = make(2, delay_ticks=2)
    first = playing(requests)
    requests.on_tick(row_of(first, at(1), 1))
    assert requests.on_tick(row_of(first, at(2), 2))
    request = requests.request(at(2))
    assert not requests.on_tick(row(at(3), source=Source.HOLD))
    assert requests.answered(request) is Verdict.BROKEN_PROMISE
    # The plan is still there, and the next request promises its elements.
    assert requests.on_tick(row_of(first, at(4), 4))
    assert requests.request(at(4)).delay_ticks == 2


def test_when_the_plan_has_ended_nothing_is_promised() -> None:
    requests = make(3)
    playing(requests)
    assert requests.on_tick(row(at(8), source=Source.HOLD))
    request = requests.request(at(8))
    assert (request.delay_ticks, request.prefix) == (0, None)


def test_a_plan_of_somebody_else_promises_nothing_even_under_the_same_number() -> None:
    requests = make(3)
    first = publish(requests, 0, 0.0)
    foreign = row(at(0), chunk_id=first.chunk_id, step=0, base=np.full(7, 0.125))
    requests.on_tick(foreign)
    assert requests.on_tick(row(at(1), chunk_id=77, step=4))
    assert requests.request(at(1)).prefix is None


def test_a_failed_inference_is_asked_again_at_the_next_tick() -> None:
    requests = make(3)
    first = playing(requests)
    for n in (1, 2, 3):
        requests.on_tick(row_of(first, at(n), n))
    requests.answered(requests.request(at(3)))
    assert requests.on_tick(row_of(first, at(4), 4))


def test_an_answer_for_another_epoch_or_an_older_question_is_worth_nothing() -> None:
    requests = make()
    old = requests.request(at(0))
    newer = requests.request(at(1))
    assert requests.answered(old) is Verdict.OTHER_EPOCH
    requests.reset(2)
    assert requests.answered(newer) is Verdict.OTHER_EPOCH
    assert requests.request(at(2)).is_first


def test_a_question_from_before_the_start_is_not_played_over_a_running_plan() -> None:
    requests = make()
    first = publish(requests, 0, 0.0)
    refresh = requests.request(at(0) - 1)
    requests.on_tick(row_of(first, at(0), 0))
    assert requests.answered(refresh) is Verdict.LATER_THAN_PROMISED


def test_a_clock_set_back_does_not_starve_the_requests() -> None:
    requests = make(3)
    first = playing(requests)
    assert requests.on_tick(row(at(-36000), chunk_id=first.chunk_id, step=1))


def test_a_clock_set_back_forgets_chunks_questions_and_humans_of_before() -> None:
    back = row(at(-600), source=Source.HOLD)
    unseen = make(1)
    first = playing(unseen)
    unseen.on_tick(row_of(first, at(1), 1))
    assert publish(unseen, 1, 1.5).delay_ticks == 2
    assert unseen.on_tick(back)

    asked = make(1)
    first = playing(asked)
    asked.on_tick(row_of(first, at(1), 1))
    request = asked.request(at(1))
    assert asked.on_tick(back)
    assert asked.answered(request) is Verdict.OTHER_EPOCH
    assert not asked.request(at(-600)).is_first

    driven = make(1)
    driven.on_tick(row(at(0), source=Source.HUMAN))
    assert driven.on_tick(back)
    assert driven.answered(driven.request(at(-600))) is Verdict.ACCEPTED


def test_hits_count_estimates_within_a_tick() -> None:
    requests = make(3, delay_ticks=2)
    first = playing(requests)
    for n in (1, 2, 3):
        requests.on_tick(row_of(first, at(n), n))
    second = publish(requests, 3, 4.5)
    requests.on_tick(row_of(second, at(5), 2))
    assert (requests.num_conditioned, requests.num_hits) == (1, 1)


def test_a_policy_that_is_only_watched_is_asked_beside_a_human_too() -> None:
    settings = AsyncSettings(mode="prefix_lock", execute_ticks=3, latency_budget_s=0.2)
    delay = DelayEstimator(expected=2, num_warm_up=0)
    due = {}
    for is_shadow in (False, True):
        requests = ChunkRequests(settings, traits(H), delay, is_shadow=is_shadow)
        requests.reset(1)
        first = playing(requests)
        rows = [replace(row_of(first, at(n), n), source=Source.HUMAN) for n in (1, 2, 3)]
        due[is_shadow] = [requests.on_tick(each) for each in rows]
    assert due == {False: [False] * 3, True: [False, False, True]}
