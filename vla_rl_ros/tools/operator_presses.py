# SPDX-License-Identifier: Apache-2.0
"""Presses whose answer takes its time: the page asks again instead of waiting on a connection.

A browser has six connections to a server, for all of its tabs together. Were each press to hold
one until its answer comes, presses in one tab would keep a STOP in another from being sent. What
is left are two requests per page that is shown, for the state and for an image.
Called by `operator_server` from many threads.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

Answer = Future[tuple[bool, str]]
PROMPT_S = 0.25
"""An answer that comes within that time is given at once."""
TIMEOUT_S = 30.0
KEPT_S = 60.0
"""For so long an answer waits for the page that pressed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Press:
    answer: Answer
    pressed_s: float


class Presses:
    """Presses on their way, each by a name of its own.

    Whoever may read the state sees all names and answers; nothing can be done with them.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin without any.

        Args:
            now_s: Monotonic time.
        """
        self._now_s = now_s
        self._lock = threading.Lock()
        self._pressed: dict[str, _Press] = {}

    def follow(self, answer: Answer) -> dict[str, Any]:
        """What the page is told of a press at once: the answer, or the name to ask for it by."""
        try:
            return _told(*answer.result(PROMPT_S))
        except FutureTimeoutError:
            name = secrets.token_urlsafe(8)
            with self._lock:
                self._pressed[name] = _Press(answer=answer, pressed_s=self._now_s())
            return {"press": name}

    def answered(self) -> dict[str, dict[str, Any]]:
        """Answers by name; those that nobody can still wait for are forgotten."""
        now_s = self._now_s()
        with self._lock:
            self._pressed = {
                name: press
                for name, press in self._pressed.items()
                if now_s - press.pressed_s < TIMEOUT_S + KEPT_S
            }
            pressed = dict(self._pressed)
        return {
            name: told
            for name, press in pressed.items()
            if (told := _look(press, now_s)) is not None
        }


def _look(press: _Press, now_s: float) -> dict[str, Any] | None:
    if press.answer.done():
        return _told(*press.answer.result())
    if now_s - press.pressed_s > TIMEOUT_S:
        return _told(False, f"no answer within {TIMEOUT_S:g} s")
    return None


def _told(is_done: bool, sentence: str) -> dict[str, Any]:
    return {"is_done": is_done, "sentence": sentence}
