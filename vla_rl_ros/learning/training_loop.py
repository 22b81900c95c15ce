# SPDX-License-Identifier: Apache-2.0
"""Takes a trainer to its last step, so that it can be stopped anywhere and goes on.

Called by `classifier_training` and `eyes_training`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

_SAVE_PERIOD_S = 20.0

Tell = Callable[[int, float], object]


class Trainer(Protocol):
    """What makes gradient steps."""

    @property
    def step_number(self) -> int:
        """Steps done."""

    def step(self) -> float:
        """One gradient step; returns the loss before it."""

    def save(self, path: Path, data: str) -> None:
        """Write everything needed to go on with the data of this digest."""

    def load(self, path: Path, data: str) -> None:
        """Go on where `save` was called."""


def falling_rate(
    step: int, num_steps: int, peak: float, *, rise_steps: int, floor: float
) -> float:
    """Learning rate that rises along a line and falls along half a cosine.

    Args:
        step: Steps done.
        num_steps: Of the run.
        peak: At its highest.
        rise_steps: Until it may be that high.
        floor: What is left at the end, as a part of `peak`.
    """
    rise = min(1.0, (step + 1) / rise_steps)
    fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / num_steps)))
    return peak * rise * (floor + (1.0 - floor) * fall)


def learn(trainer: Trainer, path: Path, data: str, num_steps: int, tell: Tell) -> float:
    """Go on to the last step; a run that is stopped is saved after the step it is in.

    Args:
        trainer: Begins anew, or where the file says.
        path: Of the file that continues it.
        data: Digest of what is learned from.
        num_steps: When to stop.
        tell: Called with step and loss.

    Returns:
        How long it took this time, s.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came.
    """
    if path.exists():
        trainer.load(path, data)
    begin_s = saved_s = time.monotonic()
    with _asked_to_stop() as asked:
        while trainer.step_number < num_steps and not asked.is_set():
            tell(trainer.step_number + 1, trainer.step())
            if time.monotonic() - saved_s > _SAVE_PERIOD_S:
                trainer.save(path, data)
                saved_s = time.monotonic()
        trainer.save(path, data)
    if asked.is_set():
        raise KeyboardInterrupt
    return time.monotonic() - begin_s


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM inside; the second one interrupts as outside.

    Weights that were saved in the middle of a step would not go on as if nothing had happened.
    """
    asked = threading.Event()
    before: dict[int, Any] = {}

    def note(signum: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signum, before[signum])

    # Python lets no other thread choose handlers, and calls them in this one only.
    is_main = threading.current_thread() is threading.main_thread()
    try:
        for signum in (signal.SIGINT, signal.SIGTERM) if is_main else ():
            before[signum] = signal.getsignal(signum)
            signal.signal(signum, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
