# SPDX-License-Identifier: Apache-2.0
"""One process of the graph as seen by the runner: start, log, signals, how often it died."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the runner has to know of a process.

    Attributes:
        name: Process name, also of its log.
        argv: Full command line.
        respawn: Whether it may be started again after it died.
        critical: Whether its death ends everything; neither means that it may just end.
        stop_stage: Lower numbers stop earlier.
        save_s: How much longer than others it may take to stop.
        ready_path: File whose appearance says that it serves; empty for none.
        nice: Niceness added.
        echo: Whether what it logs is also shown to the operator.
    """

    name: str
    argv: tuple[str, ...]
    respawn: bool = False
    critical: bool = False
    stop_stage: int = 0
    save_s: float = 0.0
    ready_path: str = ""
    nice: int = 0
    echo: bool = False


class RespawnBudget:
    """How often a process may die: `limit` times within `window_s`."""

    def __init__(self, limit: int = 3, window_s: float = 30.0) -> None:
        """Set the bound."""
        self._limit = limit
        self._window_s = window_s
        self._deaths_s: deque[float] = deque()

    def allows(self, now_s: float) -> bool:
        """Note a death; whether one more start is allowed."""
        while self._deaths_s and now_s - self._deaths_s[0] > self._window_s:
            self._deaths_s.popleft()
        self._deaths_s.append(now_s)
        return len(self._deaths_s) <= self._limit


class Child:
    """Owns one process and its log file."""

    def __init__(self, command: Command, log_path: Path, environment: Mapping[str, str]) -> None:
        """Prepare, but do not start.

        Args:
            command: What to run.
            log_path: Where standard output and error go; starts append.
            environment: Environment of the process.
        """
        self.command = command
        self.log_path = log_path
        self.budget = RespawnBudget()
        self.started_s = 0.0
        self.was_asked_to_stop = False
        self._num_shown_bytes = 0
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the present or last process, 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs or was never started."""
        return self._process.poll() if self._process else None

    def start(self, now_s: float) -> None:
        """Start the process in a session of its own, so that Ctrl-C reaches only the runner."""
        self.started_s = now_s
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_child_setup(os.getpid(), self.command.nice),
            )

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the process if it lives."""
        if self.is_alive and self._process is not None:
            self.was_asked_to_stop = True
            self._process.send_signal(signum)

    def last_lines(self, count: int = 8) -> list[str]:
        """Last lines of its log."""
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]

    def new_lines(self) -> list[str]:
        """Complete lines logged since the last call; none where the log was removed."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._num_shown_bytes)
                complete, newline, _ = log.read().rpartition(b"\n")
        except FileNotFoundError:
            self._num_shown_bytes = 0
            return []
        self._num_shown_bytes += len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()

    @property
    def ended_cleanly(self) -> bool:
        """Whether the end is none to worry about.

        A process that was asked to stop before it had installed its signal handlers dies of the
        signal; nothing was running in it yet. One whose nodes have stopped, but whose middleware
        hangs, dies of its own alarm (`ros.run`).
        """
        ends = (-signal.SIGINT, -signal.SIGTERM, -signal.SIGALRM)
        asked = ends if self.was_asked_to_stop else ()
        return self.returncode in (0, None, *asked)


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _child_setup(runner_pid: int, nice: int) -> Callable[[], None]:
    """What the child does to itself between fork and exec; the runner has one thread only."""

    def setup() -> None:
        # The runner may be killed without a chance to stop anybody.
        die_with_parent()
        if os.getppid() != runner_pid:
            os._exit(1)
        # Shells start background jobs with SIGINT ignored, and the runner blocks its signals.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # A negative niceness is for those who may; the others run at the normal one.
        with contextlib.suppress(PermissionError):
            os.nice(nice)
        # Where the kernel groups tasks by session (autogroup), the niceness between two sessions
        # is that of the groups, and each child is a session of its own.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")

    return setup
