# SPDX-License-Identifier: Apache-2.0
"""The simulated scene's side door: JSON lines over a unix socket in the run directory.

Resets, ground truth and faults go through here, never through Franka's protocol, so that the arm
process cannot tell the simulator from a robot. `SceneServer` receives in its own threads and
queues; requests are executed inside the simulation thread between two steps (`run_pending`), so
handlers may touch the physics without locks. `SceneClient` is what nodes, tests and benchmarks
use; it needs no simulator on its side.

Request: ``{"op": "reset", "args": {"task": "lift", "seed": 3}}`` and a line feed. Answer:
``{"ok": true, "result": {...}}`` or ``{"ok": false, "error": "sentence"}``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import SceneError, VlaRlError

LOG = logging.getLogger(__name__)

SOCKET_NAME = "scene.sock"
MAX_LINE_BYTES = 65_536
_EXECUTION_TIMEOUT_S = 5.0
_BACKLOG = 8

Args = dict[str, Any]
Result = dict[str, Any]
Handler = Callable[[Args], "Result | Callable[[], Result]"]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def parse_request(line: bytes) -> tuple[str, Args]:
    """Read one request.

    Args:
        line: Without or with its line feed.

    Returns:
        Operation and arguments.

    Raises:
        SceneError: Says what is wrong with the line.
    """
    try:
        request = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SceneError(f"not a JSON request: {error}") from error
    if not isinstance(request, dict) or not set(request) <= {"op", "args"}:
        raise SceneError('a request is an object with "op" and "args"')
    operation, args = request.get("op"), request.get("args", {})
    if not isinstance(operation, str) or not isinstance(args, dict):
        raise SceneError('"op" must be a string and "args" an object')
    return operation, args


@dataclass(slots=True, eq=False)
class _Request:
    handler: Handler
    args: Args
    is_done: threading.Event = field(default_factory=threading.Event)
    is_abandoned: bool = False
    result: Result | Callable[[], Result] | None = None
    error: str = ""


class SceneServer:
    """Receives requests in threads and runs them where `run_pending` is called."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        """Bind the socket and start listening.

        Args:
            path: Of the socket; a stale one is replaced.
            handlers: Operation -> function from arguments to a JSON object. A handler that
                returns a function has that function run in the connection's thread, for work
                that must not delay the simulation.

        Raises:
            SceneError: If the path is longer than the 107 bytes that sockets allow.
        """
        self._path = path
        self._handlers = dict(handlers)
        self._pending: deque[_Request] = deque()
        self._connections: set[socket.socket] = set()
        self._is_closed = False
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise SceneError(f"cannot listen at {path} ({error}): use a short path") from error
        self._listener.listen(_BACKLOG)
        self._thread = threading.Thread(target=self._accept, name="scene-accept", daemon=True)
        self._thread.start()

    def run_pending(self) -> None:
        """Run what was requested since the last call; costs next to nothing when nothing was."""
        while self._pending:
            request = self._pending.popleft()
            if not request.is_abandoned:
                self._execute(request)

    @staticmethod
    def _execute(request: _Request) -> None:
        try:
            request.result = request.handler(request.args)
        except VlaRlError as error:
            request.error = str(error)
        except Exception as error:
            # Whatever a request does wrong, the physics go on.
            LOG.exception("scene request failed")
            request.error = f"internal error: {error!r}"
        request.is_done.set()

    def close(self) -> None:
        """Close all connections and remove the socket; idempotent."""
        self._is_closed = True
        for connection in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._thread.join(timeout=1.0)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), name="scene-client", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE_BYTES + 1):
                    if len(line) > MAX_LINE_BYTES:
                        # The rest of the line cannot be told from the next request.
                        connection.sendall(_encode({"ok": False, "error": "line too long"}))
                        return
                    connection.sendall(_encode(self._answer(line)))
        except (OSError, ValueError):
            # The client went away, or the server closed while it was reading.
            return
        finally:
            self._connections.discard(connection)

    def _answer(self, line: bytes) -> Result:
        try:
            operation, args = parse_request(line)
            return {"ok": True, "result": self._run(operation, args)}
        except SceneError as error:
            return {"ok": False, "error": str(error)}

    def _run(self, operation: str, args: Args) -> Result:
        handler = self._handlers.get(operation)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise SceneError(f"unknown operation '{operation}', known are: {known}")
        request = _Request(handler, args)
        self._pending.append(request)
        if not request.is_done.wait(_EXECUTION_TIMEOUT_S):
            request.is_abandoned = True
            raise SceneError("the simulation does not step")
        if request.error:
            raise SceneError(request.error)
        result = request.result
        if callable(result):
            return result()
        return result or {}


def _encode(answer: Result) -> bytes:
    return json.dumps(answer, allow_nan=False).encode() + b"\n"


class SceneClient:
    """Talks to the simulated scene; may be shared between threads, one request at a time."""

    def __init__(self, path: Path, timeout_s: float = 6.0) -> None:
        """Remember where the scene is; the connection is made by the first request.

        Args:
            path: Of the socket, usually ``$VLA_RL_RUN_DIR/scene.sock``.
            timeout_s: For each request.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> SceneClient:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        with self._lock:
            self._disconnect()

    def request(self, operation: str, **args: object) -> Result:
        """Have one operation executed between two simulation steps.

        Args:
            operation: Its name.
            **args: JSON values.

        Returns:
            What the operation answers.

        Raises:
            SceneError: If the scene refused, or does not answer in time.
        """
        line = json.dumps({"op": operation, "args": args}, allow_nan=False).encode() + b"\n"
        with self._lock:
            try:
                answer = json.loads(self._exchange(line))
            except (OSError, ValueError) as error:
                self._disconnect()
                raise SceneError(f"no answer from the scene at {self._path}: {error}") from error
        if answer.get("ok"):
            return dict(answer["result"])
        raise SceneError(str(answer.get("error", "refused")))

    def _exchange(self, line: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(str(self._path))
        self._socket.sendall(line)
        while b"\n" not in self._buffer:
            chunk = self._socket.recv(MAX_LINE_BYTES)
            if not chunk:
                raise ConnectionError("the scene closed the connection")
            self._buffer += chunk
        answer, _, self._buffer = self._buffer.partition(b"\n")
        return answer

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""
