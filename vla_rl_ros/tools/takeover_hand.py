# SPDX-License-Identifier: Apache-2.0
"""A hand on a simulated SpaceMouse, for `bench takeover`; it does what it is told, at once."""

from __future__ import annotations

import threading
import time

from vla_rl_ros.core.teleop_axes import with_dead_zone
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.hid_mouse import HidMouse

REPORT_S = 0.016
_AT_REST: tuple[float, ...] = (0.0,) * 6


class Hand:
    """Reports the mouse as a real one does, every 16 ms while it is pushed.

    Attributes:
        changes: Time and axes of the first report of each deflection.
    """

    def __init__(self, mouse: HidMouse, dead_zone: float) -> None:
        """Start with a hand off the mouse.

        Args:
            mouse: Plugged in.
            dead_zone: Of the gate that reads it.
        """
        self._dead_zone = dead_zone
        self.changes: list[tuple[int, tuple[float, ...]]] = []
        self._mouse = mouse
        self._axes: tuple[float, ...] = _AT_REST
        self._sent: tuple[float, ...] = _AT_REST
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hand", daemon=True)
        self._thread.start()

    def push(self, axes: FloatArray) -> None:
        """Deflect from the next report on, axes behind the dead zone."""
        self._axes = tuple(with_dead_zone(axes, self._dead_zone).tolist())

    def let_go(self) -> None:
        """Take the hand off."""
        self._axes = _AT_REST

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(REPORT_S):
            axes = self._axes
            if axes != self._sent:
                self.changes.append((time.time_ns(), axes))
            if any(axes) or any(self._sent):
                self._mouse.push(axes)
            self._sent = axes
