# SPDX-License-Identifier: Apache-2.0
"""How long somebody works on labels: the clock, and the way to the ledger of a running graph.

Called by `vla-rl-ros label` around its viewers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from vla_rl_ros.core.errors import VlaRlError

PAUSE_S = 60.0
REPEAT_S = 5.0
"""Who is killed cannot say that he is done, so he says again and again that he is not."""
_POLL_S = 0.2
SERVICE = "supervisor/labelling"
_SUPERVISOR_TIMEOUT_S = 2.0

Report = Callable[[bool], bool]
"""Told in a thread of its own when work begins and when it ends; answers whether it was heard."""


class LabelClock:
    """Runs while somebody works; a pause longer than `PAUSE_S` counts as that much.

    Begins with the first touch, ends with a block: ``with clock: view(clock.touch)``.
    """

    def __init__(
        self,
        report: Report = lambda _: False,
        *,
        pause_s: float = PAUSE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nobody works yet.

        Args:
            report: Told when work begins, every `REPEAT_S` while it goes on, and when it ends.
            pause_s: Longest time between two touches that is work.
            now_s: Monotonic time.
        """
        self._report, self._pause_s, self._now_s = report, pause_s, now_s
        self._lock = threading.Lock()
        self._since_s = self._touched_s = now_s()
        self._is_working = False
        self._done_s = self._ledger_s = 0.0
        self._heard_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="label_clock", daemon=True)

    def __enter__(self) -> LabelClock:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            now_s = self._now_s()
            self._pause(now_s)
            if self._is_working:
                self._is_working = False
                self._done_s += now_s - self._since_s
        self._stopping.set()
        self._thread.join()

    def touch(self) -> None:
        """He did something: a label, a key, a frame that he looks at."""
        with self._lock:
            now_s = self._now_s()
            self._pause(now_s)
            if not self._is_working:
                self._is_working, self._since_s = True, now_s
            self._touched_s = now_s

    @property
    def labelling_s(self) -> float:
        """How long he has worked."""
        with self._lock:
            now_s = self._now_s()
            self._pause(now_s)
            return self._done_s + (now_s - self._since_s if self._is_working else 0.0)

    @property
    def ledger_s(self) -> float:
        """How much of that was reported to somebody who heard; complete after the block."""
        return self._ledger_s

    def _pause(self, now_s: float) -> None:
        end_s = self._touched_s + self._pause_s
        if self._is_working and now_s > end_s:
            self._is_working = False
            self._done_s += end_s - self._since_s

    def _watch(self) -> None:
        was_working, told_s = False, 0.0
        while not self._stopping.wait(_POLL_S):
            with self._lock:
                now_s = self._now_s()
                self._pause(now_s)
                is_working = self._is_working
            is_due = is_working and now_s - told_s >= REPEAT_S
            if is_working is not was_working or is_due:
                self._tell(is_working)
                was_working, told_s = is_working, now_s
        if was_working:
            self._tell(False)

    def _tell(self, is_working: bool) -> None:
        """Report, and count what was heard from one report to the next."""
        is_heard, now_s = self._report(is_working), self._now_s()
        if is_heard and self._heard_s is not None:
            self._ledger_s += now_s - self._heard_s
        self._heard_s = now_s if is_working and is_heard else None


class LedgerReport:
    """Tells the supervisor of a running graph, if there is one; without ROS nobody."""

    def __init__(self) -> None:
        """Join nothing yet: rclpy belongs to the thread that reports."""
        self._observer: Any = None

    def __call__(self, is_working: bool) -> bool:
        """Say that work begins or ends; returns whether it was heard."""
        with suppress(VlaRlError, ModuleNotFoundError):
            self._joined().tell(SERVICE, is_working, timeout_s=_SUPERVISOR_TIMEOUT_S)
            return True
        return False

    def close(self) -> None:
        """Leave the graph; idempotent."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    def _joined(self) -> Any:  # noqa: ANN401 - a GraphObserver, imported where ROS is
        if self._observer is None:
            from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE, graph_environment

            environment = graph_environment(Path())
            del environment[RUN_DIR_VARIABLE]
            os.environ.update(environment)
            # After the environment, which rclpy reads when it is imported.
            from vla_rl_ros.ros.observer import GraphObserver

            self._observer = GraphObserver("label")
        return self._observer
