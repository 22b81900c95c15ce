# SPDX-License-Identifier: Apache-2.0
"""A camera without hardware: numbered test images at a rate, or frame by frame, with faults."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.frame_pattern import draw_pattern
from vla_rl_ros.hardware.protocols import CameraIntrinsics

NS_PER_S = 1_000_000_000
_DEPTH_M = 0.5


class FakeCamera:
    """Answers the `Camera` protocol. Faults may be injected from any thread.

    With a rate, frames become due on an absolute schedule, stamped with their due time; a reader
    that comes late gets the newest due frame and never an old one. With `rate_hz=0` a frame
    exists only after `push`.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        height: int = 128,
        rate_hz: float = 30.0,
        has_depth: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Describe the camera.

        Args:
            width: Image width in pixels.
            height: Image height in pixels.
            rate_hz: Frames per second, 0 for frames on `push` only.
            has_depth: Whether frames carry a depth image (a plane at 0.5 m).
            now_ns: Source of stamps.
        """
        self._intrinsics = CameraIntrinsics(
            width=width,
            height=height,
            fx=float(width),
            fy=float(width),
            cx=(width - 1) / 2,
            cy=(height - 1) / 2,
        )
        self._period_s = 1.0 / rate_hz if rate_hz > 0.0 else None
        self._has_depth = has_depth
        self._now_ns = now_ns
        self._condition = threading.Condition()
        self._pushed: deque[int] = deque()
        self._next_index = 0
        self._opened_s = 0.0
        self._is_open = False
        self._is_plugged = True
        self._is_stalled = False
        self.num_opens = 0

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """A pinhole with 53 degrees horizontal field of view."""
        return self._intrinsics

    def open(self) -> None:
        """Start streaming; a stall ends here, as a restart ends it on real devices."""
        with self._condition:
            if not self._is_plugged:
                raise DeviceError("the fake camera is unplugged: call plug()")
            self.num_opens += 1
            self._is_open, self._is_stalled = True, False
            self._pushed.clear()
            self._opened_s = time.monotonic() - (self._period_s or 0.0) * self._next_index

    def close(self) -> None:
        """Stop streaming."""
        with self._condition:
            self._is_open = False
            self._condition.notify_all()

    def push(self, stamp_ns: int | None = None) -> None:
        """Make one frame available, stamped now unless a stamp is given."""
        with self._condition:
            self._pushed.append(self._now_ns() if stamp_ns is None else stamp_ns)
            self._condition.notify_all()

    def stall(self) -> None:
        """Deliver nothing until the camera is opened again."""
        with self._condition:
            self._is_stalled = True

    def unplug(self) -> None:
        """Fail every `read` and `open` until `plug`."""
        with self._condition:
            self._is_plugged = False
            self._condition.notify_all()

    def plug(self) -> None:
        """Undo `unplug`; the camera must be opened again."""
        with self._condition:
            self._is_plugged, self._is_open = True, False

    def read(self, timeout_s: float) -> Image | None:
        """Wait for the next frame."""
        deadline_s = time.monotonic() + timeout_s
        with self._condition:
            while True:
                self._check()
                stamp_ns = self._take_stamp()
                if stamp_ns is not None:
                    return self._draw(stamp_ns)
                wait_s = deadline_s - time.monotonic()
                if wait_s <= 0.0:
                    return None
                self._condition.wait(min(wait_s, self._until_due_s()))

    def _check(self) -> None:
        if not self._is_plugged:
            raise DeviceError("the fake camera was unplugged")
        if not self._is_open:
            raise DeviceError("the fake camera is not open")

    def _until_due_s(self) -> float:
        if self._period_s is None or self._is_stalled:
            return float(threading.TIMEOUT_MAX)
        due_s = self._opened_s + self._next_index * self._period_s
        return max(due_s - time.monotonic(), 0.0)

    def _take_stamp(self) -> int | None:
        if self._is_stalled:
            return None
        if self._pushed:
            return self._pushed.popleft()
        if self._period_s is None or self._until_due_s() > 0.0:
            return None
        late_s = time.monotonic() - self._opened_s - self._next_index * self._period_s
        num_missed = int(late_s / self._period_s)
        self._next_index += num_missed
        return self._now_ns() - int((late_s - num_missed * self._period_s) * NS_PER_S)

    def _draw(self, stamp_ns: int) -> Image:
        size = self._intrinsics
        rgb = draw_pattern(self._next_index, size.width, size.height)
        self._next_index += 1
        depth_m = None
        if self._has_depth:
            depth_m = np.full((size.height, size.width), _DEPTH_M, dtype=np.float32)
        return Image(stamp_ns=stamp_ns, rgb=rgb, depth_m=depth_m)
