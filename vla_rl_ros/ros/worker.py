# SPDX-License-Identifier: Apache-2.0
"""One thread for work that may wait, fed by a mailbox of size one: the newest job wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

J = TypeVar("J")


class Worker(Generic[J]):
    """Runs `function(job)` in its own thread; a job that arrives meanwhile replaces a waiting one.

    Results and errors travel inside `function` (it publishes, or completes a future); an exception
    that escapes is handed to `on_error`, and the worker goes on with the next job.
    """

    def __init__(
        self, function: Callable[[J], None], on_error: Callable[[Exception], None], name: str
    ) -> None:
        """Start the thread.

        Args:
            function: The work.
            on_error: Called in the worker thread with an exception that `function` let out.
            name: Thread name, seen in `top -H`.
        """
        self._function = function
        self._on_error = on_error
        self._condition = threading.Condition()
        self._job: J | None = None
        self._is_stopping = False
        self._is_busy = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: J) -> bool:
        """Leave a job in the mailbox.

        Returns:
            False when it replaced a job that had not been started.
        """
        with self._condition:
            was_empty = self._job is None
            self._job = job
            self._condition.notify()
        return was_empty

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._condition:
            return self._job is None and not self._is_busy

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Drop the waiting job, let the running one end, join.

        Returns:
            Whether the thread ended in time.
        """
        with self._condition:
            self._is_stopping = True
            self._job = None
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._is_busy = False
                self._condition.wait_for(lambda: self._job is not None or self._is_stopping)
                if self._is_stopping:
                    return
                job, self._job = self._job, None
                self._is_busy = True
            assert job is not None
            try:
                self._function(job)
            except Exception as error:  # noqa: BLE001 - reported, and the worker must survive
                self._on_error(error)
