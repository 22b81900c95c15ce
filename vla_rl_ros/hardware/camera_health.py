# SPDX-License-Identifier: Apache-2.0
"""When a camera is stalled, when it is restarted, and the figures that diagnostics show.

No threads and no clock of its own: every call brings the monotonic time.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import ConfigError

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
_WINDOW = 90


class CameraStatus(enum.Enum):
    """What a camera is doing."""

    CLOSED = "closed"
    STREAMING = "streaming"
    STALLED = "stalled"
    """Open, but silent."""
    LOST = "lost"
    """Gone; opened again and again, with growing pauses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """When to worry.

    Attributes:
        rate_hz: Nominal frame rate, for counting missing frames.
        stall_after_s: Silence after which the camera counts as stalled.
        restart_after_s: Silence after which it is closed and opened again; 0 for never. A device
            that is gone is looked for again in any case.
        first_backoff_s: Pause after the first failed or fruitless restart; doubles each time.
        max_backoff_s: Longest pause.
    """

    rate_hz: float = 30.0
    stall_after_s: float = 0.5
    restart_after_s: float = 2.0
    first_backoff_s: float = 1.0
    max_backoff_s: float = 10.0

    def __post_init__(self) -> None:
        """Check what the policy relies on."""
        if self.rate_hz <= 0.0 or self.stall_after_s <= 0.0 or self.restart_after_s < 0.0:
            raise ConfigError(f"camera health: rate and times must be positive: {self}")
        if not 0.0 < self.first_backoff_s <= self.max_backoff_s:
            raise ConfigError(f"camera health: need 0 < first_backoff_s <= max_backoff_s: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraReport:
    """Health of a camera at one moment.

    Attributes:
        status: What it is doing.
        sentence: Why it was lost last, empty if it never was.
        rate_hz: Frames per second over the last frames.
        silence_s: Time since the last frame, or since opening.
        stamp_age_p50_ms: Median time from exposure to delivery.
        stamp_age_p99_ms: The same, 99th percentile.
        num_frames: Frames delivered.
        num_missing: Frames that the gaps between stamps say are missing.
        num_repeated: Frames dropped because their stamp was not newer.
        num_stalls: Times the camera fell silent.
        num_restarts: Times it was opened again.
    """

    status: CameraStatus
    sentence: str
    rate_hz: float
    silence_s: float
    stamp_age_p50_ms: float
    stamp_age_p99_ms: float
    num_frames: int
    num_missing: int
    num_repeated: int
    num_stalls: int
    num_restarts: int


class RestartPolicy:
    """Decides when to close and open the camera again. Used from one thread.

    The pause before each further try doubles, and only a frame resets it: a camera that opens but
    stays silent must not be restarted for ever at full speed.
    """

    def __init__(self, settings: HealthSettings) -> None:
        """Start without a deadline: nothing is due before `opened` or `lost`."""
        self._settings = settings
        self._num_tries = 0
        self._due_s = float("inf")
        self.is_lost = False

    def opened(self, now_s: float) -> None:
        """Note that the camera is open; it now has time to deliver a frame."""
        self.is_lost = False
        self._due_s = now_s + max(self._settings.restart_after_s, self._pause_s())
        if self._settings.restart_after_s == 0.0:
            self._due_s = float("inf")

    def delivered(self, now_s: float) -> None:
        """Note that a frame came."""
        self._num_tries = 0
        if self._settings.restart_after_s > 0.0:
            self._due_s = now_s + self._settings.restart_after_s

    def lost(self, now_s: float) -> None:
        """Note that the device is gone, or could not be opened again."""
        if not self.is_lost and self._num_tries == 0:
            # A loose plug is often back at once: the first try comes after the first pause.
            self._num_tries = 1
        self.is_lost = True
        self._due_s = now_s + self._pause_s()

    def must_restart(self, now_s: float) -> bool:
        """Whether to restart now; a True counts as a try."""
        if now_s < self._due_s:
            return False
        self._num_tries += 1
        return True

    def until_due_s(self, now_s: float) -> float:
        """Time until the next restart is due."""
        return max(self._due_s - now_s, 0.0)

    def _pause_s(self) -> float:
        if self._num_tries == 0:
            return 0.0
        # The exponent is bounded as well: a camera may be away for days.
        pause_s: float = self._settings.first_backoff_s * 2.0 ** min(self._num_tries - 1, 30)
        return min(pause_s, self._settings.max_backoff_s)


class CameraHealth:
    """Counts and times. Written by the reader's thread, reported to any thread."""

    def __init__(self, settings: HealthSettings) -> None:
        """Start closed, with zero counts."""
        self._settings = settings
        self._lock = threading.Lock()
        self._status = CameraStatus.CLOSED
        self._sentence = ""
        self._since_s = 0.0
        self._arrivals_s: deque[float] = deque(maxlen=_WINDOW)
        self._ages_ms: deque[float] = deque(maxlen=_WINDOW)
        self._last_stamp_ns: int | None = None
        self._num_frames = 0
        self._num_missing = 0
        self._num_repeated = 0
        self._num_stalls = 0
        self._num_restarts = 0

    def opened(self, now_s: float) -> None:
        """Note that the camera is open."""
        with self._lock:
            self._status, self._since_s = CameraStatus.STREAMING, now_s

    def restarted(self, now_s: float) -> None:
        """Note that the camera was closed and opened again; it counts as stalled until a frame."""
        with self._lock:
            self._num_restarts += 1
            self._status = CameraStatus.STALLED
            # Frames lost while restarting are a restart, not missing frames.
            self._last_stamp_ns = None
            self._arrivals_s.clear()

    def delivered(self, now_s: float, stamp_ns: int, wall_ns: int) -> None:
        """Note a frame.

        Args:
            now_s: Monotonic time of delivery.
            stamp_ns: Time of exposure, system time.
            wall_ns: System time of delivery.
        """
        with self._lock:
            self._status, self._since_s = CameraStatus.STREAMING, now_s
            self._num_frames += 1
            self._arrivals_s.append(now_s)
            self._ages_ms.append((wall_ns - stamp_ns) / NS_PER_MS)
            if self._last_stamp_ns is not None:
                periods = (stamp_ns - self._last_stamp_ns) / NS_PER_S * self._settings.rate_hz
                self._num_missing += max(0, round(periods) - 1)
            self._last_stamp_ns = stamp_ns

    def repeated(self, now_s: float) -> None:
        """Note a frame whose stamp was not newer than the last one's; it is no sign of life."""
        with self._lock:
            self._num_repeated += 1
        self.silent(now_s)

    def silent(self, now_s: float) -> None:
        """Note that no frame came; long enough silence is a stall."""
        with self._lock:
            is_streaming = self._status is CameraStatus.STREAMING
            if is_streaming and now_s - self._since_s >= self._settings.stall_after_s:
                self._status = CameraStatus.STALLED
                self._num_stalls += 1

    def lost(self, now_s: float, sentence: str) -> None:
        """Note that the device is gone, with the vendor's words."""
        with self._lock:
            if self._status is CameraStatus.STREAMING:
                self._num_stalls += 1
            self._status, self._sentence = CameraStatus.LOST, sentence

    def report(self, now_s: float) -> CameraReport:
        """Health now."""
        with self._lock:
            silence_s = now_s - self._since_s
            status = self._status
            if status is CameraStatus.STREAMING and silence_s >= self._settings.stall_after_s:
                status = CameraStatus.STALLED
            ages_ms = np.asarray(self._ages_ms if self._ages_ms else [0.0])
            p50_ms, p99_ms = np.percentile(ages_ms, [50, 99])
            return CameraReport(
                status=status,
                sentence=self._sentence,
                rate_hz=self._rate_hz() if status is CameraStatus.STREAMING else 0.0,
                silence_s=silence_s,
                stamp_age_p50_ms=float(p50_ms),
                stamp_age_p99_ms=float(p99_ms),
                num_frames=self._num_frames,
                num_missing=self._num_missing,
                num_repeated=self._num_repeated,
                num_stalls=self._num_stalls,
                num_restarts=self._num_restarts,
            )

    def _rate_hz(self) -> float:
        if len(self._arrivals_s) < 2:
            return 0.0
        return (len(self._arrivals_s) - 1) / (self._arrivals_s[-1] - self._arrivals_s[0])
