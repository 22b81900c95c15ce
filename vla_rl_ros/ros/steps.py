# SPDX-License-Identifier: Apache-2.0
"""Sequences that wait without blocking: generators, advanced one slice per tick of a timer.

A step yields whenever it has to wait, so a bring-up or a reset reads from top to bottom while the
executor goes on serving callbacks. Nothing here depends on how rclpy runs coroutines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol, TypeVar

from vla_rl_ros.core.errors import VlaRlError

T = TypeVar("T")
Steps = Generator[None, None, T]
Clock = Callable[[], float]


class StepError(VlaRlError, RuntimeError):
    """A step of a sequence failed; the sentence says which and why."""


class FalseStartError(StepError):
    """An episode must not begin, because the scene is not in its start; nothing is broken."""


class _Future(Protocol):
    def done(self) -> bool: ...

    def result(self) -> Any: ...  # noqa: ANN401 - a response of any service


class ServiceClient(Protocol):
    """What is used of a service client; `ros/gated_client.py` has one."""

    srv_name: str

    def service_is_ready(self) -> bool:
        """Whether a server is there."""

    def call_async(self, request: Any) -> _Future:  # noqa: ANN401 - a request of any service
        """Send a request."""

    def release(self, future: Any) -> None:  # noqa: ANN401 - rclpy's own future
        """Stop waiting for an answer, whether it came or not."""


class Sequence:
    """Runs one generator at a time."""

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._steps: Steps[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is something left to do."""
        return self._steps is not None

    def start(self, steps: Steps[None]) -> None:
        """Run `steps` from the next tick on, cutting off what runs now."""
        self.cancel()
        self._steps = steps

    def cancel(self) -> None:
        """Cut off what runs; its ``finally`` blocks run now."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def tick(self) -> None:
        """Advance to the next wait. What the steps raise leaves here and ends them."""
        steps = self._steps
        if steps is None:
            return
        try:
            next(steps)
        except StopIteration:
            ended = True
        except BaseException:
            self._steps = None
            raise
        else:
            ended = False
        # The steps may have started others in their place.
        if ended and self._steps is steps:
            self._steps = None


def pause(duration_s: float, clock: Clock) -> Steps[None]:
    """Wait for a time."""
    until_s = clock() + duration_s
    while clock() < until_s:
        yield


def wait_for(predicate: Callable[[], bool], timeout_s: float, clock: Clock) -> Steps[bool]:
    """Wait until `predicate` holds; returns whether it did in time."""
    until_s = clock() + timeout_s
    while not predicate():
        if clock() >= until_s:
            return False
        yield
    return True


def together(many: Iterable[Steps[None]]) -> Steps[None]:
    """Run several sequences side by side; the first error ends them all."""
    waiting = list(many)
    try:
        while waiting:
            waiting = [steps for steps in waiting if not _has_ended(steps)]
            if waiting:
                yield
    finally:
        for steps in waiting:
            steps.close()


def _has_ended(steps: Steps[None]) -> bool:
    try:
        next(steps)
    except StopIteration:
        return True
    return False


def call(client: ServiceClient, request: object, timeout_s: float, clock: Clock) -> Steps[Any]:
    """Call a service; returns its response.

    Args:
        client: Of the service.
        request: What to send.
        timeout_s: For the server to appear and to answer, together.
        clock: Monotonic time.

    Raises:
        StepError: No server, no answer in time, or the call failed.
    """
    until_s = clock() + timeout_s
    while not client.service_is_ready():
        if clock() >= until_s:
            raise StepError(f"service {client.srv_name} is not there after {timeout_s:.3g} s")
        yield
    future = client.call_async(request)
    try:
        while not future.done():
            if clock() >= until_s:
                raise StepError(f"service {client.srv_name} did not answer in {timeout_s:.3g} s")
            yield
    finally:
        client.release(future)
    return future.result()


def trigger(client: ServiceClient, request: object, timeout_s: float, clock: Clock) -> Steps[str]:
    """Call a std_srvs service with ``success`` and ``message``; returns the message.

    Raises:
        StepError: As `call`, or the server refused.
    """
    response = yield from call(client, request, timeout_s, clock)
    if not response.success:
        raise StepError(f"{client.srv_name} refused: {response.message}")
    return str(response.message)
