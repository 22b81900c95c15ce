# SPDX-License-Identifier: Apache-2.0
"""A thread that does something at the end of each cycle of the arm's loop: publishing, mostly.

At 200 Hz a hop through the executor costs more than the publishing itself, and the arm's loop
must not wait for middleware. An error of the thread is raised again where a callback asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vla_rl_ros.hardware.control_loop import ControlLoop
from vla_rl_ros.hardware.control_types import LoopSnapshot

POLL_S = 0.1


class CyclePump:
    """Calls a function with the snapshot of each cycle until it is stopped."""

    def __init__(
        self, loop: ControlLoop, on_cycle: Callable[[LoopSnapshot], None], name: str
    ) -> None:
        """Start the thread.

        Args:
            loop: Running loop.
            on_cycle: Called in the thread; cycles that it is too slow for are left out.
            name: Thread name, seen in `top -H`.
        """
        self._loop = loop
        self._on_cycle = on_cycle
        self._error: Exception | None = None
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; idempotent."""
        self._is_stopping.set()
        self._thread.join(2.0)

    def check(self) -> None:
        """Raise what ended this thread or the arm's early, for the process to end with it."""
        error = self._error or self._loop.error
        if error is not None:
            raise error

    def _run(self) -> None:
        cycle = 0
        while not self._is_stopping.is_set():
            snapshot = self._loop.wait_cycle(cycle, POLL_S)
            if snapshot is None:
                continue
            cycle = snapshot.cycle
            try:
                self._on_cycle(snapshot)
            except Exception as error:  # noqa: BLE001 - raised again by `check`
                self._error = error
                return
