# SPDX-License-Identifier: Apache-2.0
"""One thread per hand device: waits for reports, notices silence, unplugging and plugging in.

A report is read the moment it comes, so a device that sends fast is never behind. What a wireless
device said before its link broke holds for `STALE_S` only; an unplugged one is let go at once.
Both are told as a loss.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.hardware.protocols import SixDofDevice, SixDofReport

STALE_S = 0.2
"""Silence of a pushed device after which its link counts as lost. It sends every 16 ms."""
REOPEN_S = 0.5
_READ_S = 0.05
# Newest reports that wait to be taken; nobody pushes buttons that fast.
_MAX_WAITING = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandSample:
    """A report with its time.

    Attributes:
        stamp_ns: ROS time at which it was read.
        axes: As `SixDofReport.axes`.
        pressed: As `SixDofReport.pressed`.
        is_lost: Whether the device is gone, instead of a report.
    """

    stamp_ns: int
    axes: FloatArray
    pressed: frozenset[str] = frozenset()
    is_lost: bool = False


class SixDofReader:
    """Keeps one hand device connected."""

    def __init__(
        self,
        device: SixDofDevice,
        on_sample: Callable[[], None] | None = None,
        *,
        stale_s: float = STALE_S,
        reopen_s: float = REOPEN_S,
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            device: Used by this reader only from now on.
            on_sample: Called in the reader's thread whenever there is something to take.
            stale_s: Silence of a pushed device after which it is let go.
            reopen_s: Time between two looks for a device that is not there.
        """
        self._device = device
        self._on_sample = on_sample
        self._stale_s, self._reopen_s = stale_s, reopen_s
        self._samples: deque[HandSample] = deque(maxlen=_MAX_WAITING)
        self._stopping = threading.Event()
        self._is_open = False
        self._is_pushed = False
        self._heard_s = 0.0
        self._thread = threading.Thread(target=self._run, name="hand", daemon=True)
        self.problem = "not opened yet"
        """Why there is no device, empty while there is one."""
        self.num_losses = 0
        """Times a device that was there went away, or its link did."""

    @property
    def name(self) -> str:
        """Of the device, empty while there is none."""
        return self._device.name if self._is_open else ""

    def start(self) -> None:
        """Begin to look for the device, and to read it once it is there."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End and close the device; idempotent. Returns whether the thread ended in time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take(self) -> list[HandSample]:
        """What came since the last call, oldest first."""
        samples = []
        while self._samples:
            samples.append(self._samples.popleft())
        return samples

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._is_open and not self._open():
                self._stopping.wait(self._reopen_s)
                continue
            try:
                self._read()
            # The last line of defence: whatever a driver raises, a thread that ended here would
            # leave the arm with what the hand said last.
            except Exception as error:  # noqa: BLE001
                self._lose(str(error) or repr(error))
                self._stopping.wait(self._reopen_s)
        self._close()

    def _open(self) -> bool:
        try:
            self._device.open()
        # Not only a DeviceError: who stops looking never finds it again.
        except Exception as error:  # noqa: BLE001
            self.problem = str(error) or repr(error)
            return False
        self._is_open, self.problem = True, ""
        return True

    def _read(self) -> None:
        report = self._device.read(_READ_S)
        now_s = time.monotonic()
        if report is not None:
            self._heard_s = now_s
            self._is_pushed = bool(report.axes.any())
            self._say(report)
        elif self._is_pushed and now_s - self._heard_s > self._stale_s:
            self._is_pushed = False
            self.num_losses += 1
            self._say(SixDofReport(axes=np.zeros(6)), is_lost=True)
            self._device.forget()

    def _lose(self, problem: str) -> None:
        self._is_open = self._is_pushed = False
        self.problem = problem
        self.num_losses += 1
        # Told first: closing a device that is gone may take long, or fail.
        self._say(SixDofReport(axes=np.zeros(6)), is_lost=True)
        self._close()

    def _close(self) -> None:
        try:
            self._device.close()
        # A device that is gone may refuse in any way, and nothing more can be done about it.
        except Exception as error:  # noqa: BLE001
            self.problem = str(error) or repr(error)

    def _say(self, report: SixDofReport, *, is_lost: bool = False) -> None:
        sample = HandSample(
            stamp_ns=time.time_ns(), axes=report.axes, pressed=report.pressed, is_lost=is_lost
        )
        self._samples.append(sample)
        if self._on_sample is not None:
            self._on_sample()
