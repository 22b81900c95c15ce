# SPDX-License-Identifier: Apache-2.0
"""A connection to a policy server that may die, hang or talk nonsense, and that comes back."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.sync.client import connect
from websockets.uri import parse_uri

from vla_rl_ros.core.errors import ConfigError, InferenceError
from vla_rl_ros.policies.openpi_wire import pack, unpack

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5
_PATIENCE_S = 0.05
"""An observation that waited longer for its turn is not worth an answer."""
_CLOSE_S = 0.1
_MAX_ANSWER_BYTES = 16 * 2**20


class OpenpiConnection:
    """Asks one question at a time; used from one thread.

    Whatever goes wrong ends the connection, because a late answer would otherwise be taken for
    that to the next question.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """Remember where the server is; the first question connects.

        Args:
            url: ``ws://host:port``.
            timeout_s: Longest time for one question, connecting included.

        Raises:
            ConfigError: `url` is none.
        """
        try:
            parse_uri(url)
        except InvalidURI as error:
            raise ConfigError(f"url='{url}' is not ws://host:port or wss://host:port") from error
        self._url, self._timeout_s = url, timeout_s
        self._link: ClientConnection | None = None
        self._open = contextlib.ExitStack()
        self._pause_s = 0.0
        self._retry_at_s = -math.inf
        self.metadata: Mapping[str, object] = {}
        """What the server said about itself when it was last connected to."""

    def ask(self, question: Mapping[str, object]) -> Mapping[str, object]:
        """Send an observation and wait for the answer.

        Takes `timeout_s` at most, and a tenth of a second more to close a connection that hangs.
        After a failure the server is left alone for a moment, 0.1 s at first and 0.5 s after more
        of them; a question in that time waits 50 ms at most.

        Raises:
            InferenceError: No usable answer; says what happened.
            ValueError: `question` holds what cannot be sent.
        """
        data = pack(question)
        self._await_turn()
        deadline_s = time.monotonic() + self._timeout_s
        try:
            answer = self._exchange(data, deadline_s)
        except InferenceError:
            self._give_up()
            raise
        self._pause_s = 0.0
        return answer

    def close(self) -> None:
        """End the connection; the next question opens a new one."""
        self._link = None
        self._open.close()

    def _await_turn(self) -> None:
        wait_s = self._retry_at_s - time.monotonic()
        if wait_s > 0.0:
            time.sleep(min(wait_s, _PATIENCE_S))
        if wait_s > _PATIENCE_S:
            raise InferenceError(
                f"policy server {self._url} failed; next try in {wait_s - _PATIENCE_S:.1f} s"
            )

    def _give_up(self) -> None:
        self.close()
        self._pause_s = min(max(2.0 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._retry_at_s = time.monotonic() + self._pause_s

    def _exchange(self, data: bytes, deadline_s: float) -> Mapping[str, object]:
        try:
            if self._link is None:
                self._link = self._connect(deadline_s)
                self.metadata = self._receive(self._link, deadline_s)
                logger.info("connected to policy server %s", self._url)
            with _cut_at(self._link, deadline_s):
                self._link.send(data)
            return self._receive(self._link, deadline_s)
        except (TimeoutError, ConnectionClosed) as error:
            if time.monotonic() >= deadline_s:
                what = f"did not answer within timeout_s={self._timeout_s}"
            else:
                what = f"closed the connection: {error}"
            raise InferenceError(f"policy server {self._url} {what}") from error
        except (OSError, WebSocketException) as error:
            raise InferenceError(
                f"no policy server at {self._url} ({error}); start it or set url"
            ) from error

    def _connect(self, deadline_s: float) -> ClientConnection:
        return self._open.enter_context(
            connect(
                self._url,
                compression=None,
                proxy=None,
                open_timeout=_left_s(deadline_s),
                # The published server answers nothing while its model runs, pings included.
                ping_interval=None,
                close_timeout=_CLOSE_S,
                max_size=_MAX_ANSWER_BYTES,
            )
        )

    def _receive(self, link: ClientConnection, deadline_s: float) -> Mapping[str, object]:
        frame = link.recv(timeout=_left_s(deadline_s))
        if isinstance(frame, str):
            # The published server sends its traceback as text.
            lines = frame.strip().splitlines() or ["no reason given"]
            raise InferenceError(f"policy server {self._url} reports: {lines[-1][:200]}")
        try:
            message = unpack(frame)
        except ValueError as error:
            raise InferenceError(
                f"policy server {self._url} sent what is no openpi message: {error}"
            ) from error
        if not isinstance(message, dict):
            raise InferenceError(
                f"policy server {self._url} sent a {type(message).__name__} instead of a map"
            )
        return message


@contextlib.contextmanager
def _cut_at(link: ClientConnection, deadline_s: float) -> Iterator[None]:
    """End a connection at a deadline: send() alone waits for ever for one who does not read."""
    timer = threading.Timer(_left_s(deadline_s), _cut, (link,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(link: ClientConnection) -> None:
    with contextlib.suppress(OSError):
        link.socket.shutdown(socket.SHUT_RDWR)


def _left_s(deadline_s: float) -> float:
    return max(deadline_s - time.monotonic(), 1e-3)
