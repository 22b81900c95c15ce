# SPDX-License-Identifier: Apache-2.0
"""Sequences that wait without blocking."""

from __future__ import annotations

import pytest

from vla_rl_ros.ros.steps import Sequence, StepError, Steps, call, pause, together, wait_for


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class FakeFuture:
    def __init__(self) -> None:
        self.answer: object = None

    def done(self) -> bool:
        return self.answer is not None

    def result(self) -> object:
        return self.answer


class FakeClient:
    srv_name = "arm/home"

    def __init__(self, *, is_ready: bool) -> None:
        self.is_ready = is_ready
        self.future = FakeFuture()
        self.num_released = 0

    def service_is_ready(self) -> bool:
        return self.is_ready

    def call_async(self, request: object) -> FakeFuture:
        return self.future

    def release(self, future: object) -> None:
        self.num_released += 1


def run_steps(steps: Steps[object], clock: FakeTime, ticks: int = 1000) -> object:
    for _ in range(ticks):
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        clock.now_s += 0.02
    raise AssertionError("the steps never ended")


def test_a_call_returns_what_the_server_answers() -> None:
    clock, client = FakeTime(), FakeClient(is_ready=True)
    client.future.answer = "done"
    assert run_steps(call(client, object(), 1.0, clock), clock) == "done"


@pytest.mark.parametrize(("is_ready", "word"), [(False, "not there"), (True, "did not answer")])
def test_a_call_gives_up_with_a_sentence(*, is_ready: bool, word: str) -> None:
    clock, client = FakeTime(), FakeClient(is_ready=is_ready)
    with pytest.raises(StepError, match=f"arm/home .*{word}"):
        run_steps(call(client, object(), 1.0, clock), clock)
    assert client.num_released == int(is_ready)
    assert 1.0 <= clock.now_s < 1.1


def test_waiting_says_whether_it_was_worth_it() -> None:
    clock = FakeTime()
    assert run_steps(wait_for(lambda: clock.now_s > 0.5, 1.0, clock), clock) is True
    assert run_steps(wait_for(lambda: False, 1.0, clock), clock) is False


def test_a_sequence_may_replace_itself_and_cancels_what_it_drops() -> None:
    clock, sequence, seen = FakeTime(), Sequence(), []

    def first() -> Steps[None]:
        try:
            seen.append("first")
            yield
            seen.append("never")
        finally:
            seen.append("cut off")

    def second() -> Steps[None]:
        yield from pause(0.0, clock)
        seen.append("second")

    sequence.start(first())
    sequence.tick()
    sequence.start(second())
    sequence.tick()
    assert seen == ["first", "cut off", "second"]
    assert not sequence.is_running


def test_side_by_side_takes_as_long_as_the_longest_and_fails_with_the_first() -> None:
    clock, ended = FakeTime(), []

    def waits(name: str, duration_s: float, error: str = "") -> Steps[None]:
        try:
            yield from pause(duration_s, clock)
            if error:
                raise StepError(error)
        finally:
            ended.append(name)

    run_steps(together([waits("a", 0.5), waits("b", 0.2)]), clock)
    assert ended == ["b", "a"]
    assert 0.5 <= clock.now_s < 0.55
    with pytest.raises(StepError, match="broken"):
        run_steps(together([waits("c", 5.0), waits("d", 0.1, "broken")]), clock)
    assert ended[2:] == ["d", "c"]
