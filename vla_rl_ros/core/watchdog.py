# SPDX-License-Identifier: Apache-2.0
"""Age of the newest command -> run, hold or stop. Silence is enough to become safe."""

from __future__ import annotations

import enum

from vla_rl_ros.core.errors import ConfigError


class WatchdogState(enum.Enum):
    """What the age of the newest accepted command allows."""

    NEVER = "never"
    """No command since the last reset."""
    RUN = "run"
    HOLD = "hold"
    STOP = "stop"
    """Latched: a late command does not lead back to RUN, only `reset` does."""


class CommandWatchdog:
    """Tells from the time of the last command whether to follow, hold or stop."""

    def __init__(self, *, hold_after_s: float, stop_after_s: float) -> None:
        """Set the two ages.

        Args:
            hold_after_s: Age at which the reference is frozen.
            stop_after_s: Age at which the arm leaves impedance control.

        Raises:
            ConfigError: Unless ``0 < hold_after_s < stop_after_s``.
        """
        if not 0.0 < hold_after_s < stop_after_s:
            raise ConfigError(
                f"need 0 < hold_after_s={hold_after_s} < stop_after_s={stop_after_s}"
            )
        self._hold_after_s = hold_after_s
        self._stop_after_s = stop_after_s
        self.reset()

    def reset(self) -> None:
        """Forget every command, unlatching STOP."""
        self._last_s: float | None = None
        self._is_stopped = False

    def feed(self, now_s: float) -> None:
        """Note that an acceptable command arrived."""
        if not self._is_stopped:
            self._last_s = now_s

    def age_s(self, now_s: float) -> float:
        """Age of the newest command, infinite before the first."""
        return float("inf") if self._last_s is None else now_s - self._last_s

    def state(self, now_s: float) -> WatchdogState:
        """Present state; passing the stop age latches STOP."""
        if self._last_s is None:
            return WatchdogState.NEVER
        age_s = self.age_s(now_s)
        if self._is_stopped or age_s >= self._stop_after_s:
            self._is_stopped = True
            return WatchdogState.STOP
        return WatchdogState.HOLD if age_s >= self._hold_after_s else WatchdogState.RUN
