# SPDX-License-Identifier: Apache-2.0
"""The lock-step session: each mode under injected delays, and what its figures say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.async_plan import AsyncSession
from vla_rl_ros.core.chunking import Verdict
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.core.requests import Request
from vla_rl_ros.core.types import FloatArray, Mode

H = 16
TRAITS = PolicyTraits(horizon=H, conditionings=frozenset(Conditioning), max_locked=H)


def policy(request: Request, tick: int) -> FloatArray:
    """Element i says which tick it belongs to and which request it answers."""
    actions = np.zeros((H, 7))
    actions[:, 0] = 1e-4 * (tick + np.arange(H))
    actions[:, 1] = 1e-4 * request.number
    if request.prefix is not None:
        locked = request.prefix.actions[: request.prefix.num_locked]
        # Goes on smoothly from what is locked.
        actions[:, 1] = locked[-1, 1]
    return actions


def run(mode: Mode, delay: int, *, num_ticks: int = 200, **settings: object) -> AsyncSession:
    """Play with a constant injected delay; every element must be the one of its tick."""
    session = AsyncSession(AsyncSettings(mode=mode.value, **settings), TRAITS)
    request = session.first_request()
    assert session.deliver(request, policy(request, 0)) is Verdict.ACCEPTED
    under_way: list[tuple[int, Request]] = []
    shift = 0
    for tick in range(num_ticks):
        step = session.on_tick()
        if step is not None and mode is not Mode.SYNC:
            assert step.action[0] == pytest.approx(1e-4 * (tick - shift))
        request = session.executed(np.zeros(7) if step is None else step.action)
        if request is not None:
            under_way.append((tick + delay, request))
        for due, answered in list(under_way):
            if due <= tick:
                under_way.remove((due, answered))
                stamp_tick = answered.stamp_ns // session_period(session)
                session.deliver(answered, policy(answered, stamp_tick))
    return session


def session_period(session: AsyncSession) -> int:
    return session.requests.settings.period_ns


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.SYNC])
@pytest.mark.parametrize("delay", [0, 1, 2, 4, 7])
def test_a_constant_delay_never_stalls(mode: Mode, delay: int) -> None:
    session = run(mode, delay, execute_ticks=8, latency_budget_s=0.75)
    figures = session.metrics.summary()
    assert figures["underflows"] == 0
    assert figures["late_chunks"] == 0
    assert figures["prefix_mismatch"] == 0
    assert session.requests.delay.estimate() == delay + 1
    # The first four are conditioned for the latency budget.
    assert session.requests.num_hits >= session.requests.num_conditioned - 4


@given(
    mode=st.sampled_from(Mode),
    delay=st.integers(0, 4),
    at_tick=st.integers(1, 40),
    back=st.integers(3, 1000),
    human=st.sets(st.integers(0, 40)),
)
def test_a_clock_set_back_costs_one_answer_and_nothing_of_before_is_played(
    mode: Mode, delay: int, at_tick: int, back: int, human: set[int]
) -> None:
    session = AsyncSession(AsyncSettings(mode=mode.value, execute_ticks=8), TRAITS)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    under_way: list[tuple[int, Request]] = []
    first_new: int | None = None
    played = []
    for tick in range(at_tick + 40):
        if tick == at_tick:
            session.tick -= back
        step = session.on_tick()
        if tick >= at_tick:
            played.append(step is not None)
            assert step is None or step.chunk.chunk_id >= first_new
        is_human = tick < at_tick and tick in human
        done = np.zeros(7) if step is None else step.action
        request = session.executed(done, Source.HUMAN if is_human else None)
        if request is not None:
            under_way.append((tick + delay, request))
            if tick >= at_tick:
                first_new = first_new or request.number
        for due, answered in list(under_way):
            if due <= tick:
                under_way.remove((due, answered))
                session.deliver(answered, policy(answered, tick))
    assert played[: delay + 2] == [False] * (delay + 1) + [True]
    assert mode is Mode.SYNC or all(played[delay + 1 :])


def test_sync_plays_s_elements_and_holds_while_the_model_thinks() -> None:
    session = AsyncSession(AsyncSettings(mode="sync", execute_ticks=4), TRAITS)
    request = session.first_request()
    session.deliver(request, policy(request, 0))
    played = []
    pending: tuple[int, Request] | None = None
    for tick in range(16):
        step = session.on_tick()
        played.append(None if step is None else step.index)
        request = session.executed(np.zeros(7))
        if request is not None:
            pending = (tick + 2, request)
        if pending is not None and pending[0] <= tick:
            assert pending[1].prefix is None
            session.deliver(pending[1], policy(pending[1], tick))
            pending = None
    # Observed at rest in the first tick without an element, used after d = 3 of them.
    assert played == [0, 1, 2, 3, None, None, None, 0, 1, 2, 3, None, None, None, 0, 1]


def test_locking_removes_the_jump_that_naive_has() -> None:
    naive = run(Mode.NAIVE, 3, execute_ticks=6, latency_budget_s=0.4).metrics.summary()
    locked = run(Mode.PREFIX_LOCK, 3, execute_ticks=6, latency_budget_s=0.4).metrics.summary()
    assert naive["boundary_jump_max"] > 1e-4
    assert locked["boundary_jump_max"] == pytest.approx(0.0, abs=1e-12)
    assert locked["seam_step_max"] < naive["seam_step_max"]


def test_a_late_chunk_is_dropped_and_the_next_request_goes_out_at_once_with_more() -> None:
    settings = AsyncSettings(execute_ticks=3, latency_budget_s=0.05)
    session = AsyncSession(settings, TRAITS)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    asked: list[tuple[int, int]] = []
    late: Request | None = None
    for tick in range(12):
        step = session.on_tick()
        assert step is not None
        request = session.executed(step.action)
        if request is not None:
            asked.append((tick, request.delay_ticks))
            late = request
        if tick == 6:
            assert late is not None
            assert session.deliver(late, policy(late, 3)) is Verdict.LATER_THAN_PROMISED
    assert asked == [(3, 1), (7, 4)]
    assert session.metrics.late_chunks == 1


def test_when_nothing_is_left_the_arm_holds_and_the_next_chunk_starts_at_its_beginning() -> None:
    session = AsyncSession(AsyncSettings(execute_ticks=8), TRAITS)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    request = None
    for tick in range(20):
        step = session.on_tick()
        assert (step is None) is (tick >= H)
        asked = session.executed(np.zeros(7))
        if asked is not None and request is None:
            request = asked
            session.failed(asked)
        elif asked is not None and tick < H:
            session.failed(asked)
        elif asked is not None:
            request = asked
    assert request is not None
    assert request.delay_ticks == 0
    assert request.prefix is None
    assert session.deliver(request, policy(request, 0)) is Verdict.ACCEPTED
    step = session.on_tick()
    assert step is not None
    assert step.index == 0


def test_a_takeover_drops_plan_and_pending_and_the_release_asks_afresh() -> None:
    session = AsyncSession(AsyncSettings(execute_ticks=2, latency_budget_s=0.2), TRAITS)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    pending = None
    for _ in range(3):
        step = session.on_tick()
        pending = session.executed(step.action) or pending
    assert pending is not None
    session.on_tick()
    assert session.executed(np.full(7, 0.01), Source.HUMAN) is None
    assert session.on_tick() is None
    assert session.executed(np.full(7, 0.01), Source.HUMAN) is None
    assert session.deliver(pending, policy(pending, 2)) is Verdict.BEFORE_TAKEOVER
    assert session.on_tick() is None
    released = session.executed(np.zeros(7))
    assert released is not None
    assert (released.delay_ticks, released.prefix) == (0, None)
    assert session.deliver(released, policy(released, 0)) is Verdict.ACCEPTED
    assert session.on_tick().index == 0


def test_answers_from_before_a_reset_are_refused() -> None:
    session = AsyncSession(AsyncSettings(), TRAITS)
    old = session.first_request()
    session.reset()
    assert session.deliver(old, policy(old, 0)) is Verdict.OTHER_EPOCH
    fresh = session.first_request()
    assert fresh.is_first
    assert session.deliver(fresh, policy(fresh, 0)) is Verdict.ACCEPTED


def test_a_tick_that_did_not_happen_breaks_the_promise() -> None:
    session = AsyncSession(AsyncSettings(execute_ticks=3, latency_budget_s=0.3), TRAITS)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    pending = None
    while pending is None:
        pending = session.executed(session.on_tick().action)
    assert pending.delay_ticks == 3
    session.on_tick()
    session.executed(np.zeros(7), Source.HOLD)
    assert session.deliver(pending, policy(pending, 3)) is Verdict.BROKEN_PROMISE


def test_settings_that_do_not_fit_the_policy_are_refused() -> None:
    with pytest.raises(ConfigError, match="horizon"):
        AsyncSession(AsyncSettings(latency_budget_s=0.9), TRAITS)


def test_a_policy_slower_than_its_longest_prefix_never_continues_but_starts_over() -> None:
    slow = PolicyTraits(horizon=H, conditionings=frozenset(Conditioning), max_locked=2)
    session = AsyncSession(AsyncSettings(execute_ticks=2, latency_budget_s=0.2), slow)
    first = session.first_request()
    session.deliver(first, policy(first, 0))
    under_way: list[tuple[int, Request]] = []
    starts = 0
    for tick in range(80):
        step = session.on_tick()
        starts += step is not None and step.index == 0
        request = session.executed(np.zeros(7) if step is None else step.action)
        if request is not None:
            under_way.append((tick + 4, request))
        if under_way and under_way[0][0] <= tick:
            answered = under_way.pop(0)[1]
            session.deliver(answered, policy(answered, 0))
    assert session.metrics.late_chunks > 3
    assert session.metrics.mismatches == []
    assert starts >= 3
