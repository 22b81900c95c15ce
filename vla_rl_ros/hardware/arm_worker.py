# SPDX-License-Identifier: Apache-2.0
"""Runs the blocking calls of an arm one after the other, and ends them early."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.protocols import Arm, ArmMode

MOVING = (ArmMode.IMPEDANCE, ArmMode.MOVING)
STOP_TRIES, STOP_RETRY_S = 40, 0.25

_logger = logging.getLogger(__name__)


class BrokenJobError(DeviceError):
    """A job ended with an error that no device raises: nobody knows what the arm does now."""


def run_job(job: Callable[[], str]) -> str:
    """Run a job so that only DeviceErrors come out."""
    try:
        return job()
    except DeviceError:
        raise
    except Exception as error:
        _logger.exception("a job of the arm broke down")
        raise BrokenJobError(f"{type(error).__name__}: {error}") from error


class ArmWorker:
    """One thread for jobs; stopping comes from other threads."""

    def __init__(self, arm: Arm, executor: Executor | None = None) -> None:
        """Start without a job.

        Args:
            arm: Stopped from here.
            executor: Runs one job after the other; a thread of its own when None.
        """
        self._arm = arm
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="arm-worker")

    def submit(self, job: Callable[[], str]) -> Future[str]:
        """Run a job after those that wait."""
        return self._executor.submit(job)

    def halt(self) -> None:
        """Bring the arm to rest; an arm that refuses is left to the control box."""
        try:
            self._arm.stop()
        except Exception:
            _logger.exception("the arm could not be stopped; the control box holds it")

    def end_jobs(self) -> None:
        """Bring the arm to rest and wait until no job is left."""
        barrier = self._executor.submit(lambda: None)
        for _ in range(STOP_TRIES):
            # From this thread, not from the worker, and again: it ends a planned motion of the
            # worker, and a job between two motions could start another.
            self.halt()
            if wait((barrier,), STOP_RETRY_S).done:
                return
        _logger.error("a job of the arm does not end")

    def end_jobs_soon(self) -> None:
        """The same without waiting, for callbacks."""
        threading.Thread(target=self.end_jobs, name="arm-stop", daemon=True).start()

    def close(self) -> None:
        """End the thread after the jobs it has."""
        self._executor.shutdown(wait=True)
