# SPDX-License-Identifier: Apache-2.0
"""One thread per camera: reads, hands over the newest frame, notices stalls, restarts.

The camera is opened, read, restarted and closed in this one thread, because some sources (an
OpenGL renderer) work only in the thread that made them. An old frame is never delivered twice and
never under a new stamp: a stalled camera delivers nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.camera_health import (
    CameraHealth,
    CameraReport,
    HealthSettings,
    RestartPolicy,
)
from vla_rl_ros.hardware.protocols import Camera, CameraIntrinsics

_MIN_READ_TIMEOUT_S = 0.1
_CLOCK_STEP_NS = 1_000_000_000


@runtime_checkable
class DescribesItself(Protocol):
    """A camera that has something to show in diagnostics."""

    def details(self) -> Mapping[str, str]:
        """Short facts, e.g. device name and source of stamps; callable from any thread."""


class CameraReader:
    """Keeps one camera streaming."""

    def __init__(
        self,
        camera: Camera,
        settings: HealthSettings,
        *,
        on_frame: Callable[[Image], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        name: str = "camera",
    ) -> None:
        """Prepare; nothing is opened before `start`.

        Args:
            camera: The source; this reader is its only user from now on.
            settings: When a camera counts as stalled and when it is restarted.
            on_frame: Called with every new frame in the reader's thread; must be short.
            on_error: Called in the reader's thread with an exception that `on_frame` let out.
            name: Thread name, seen in `top -H`.
        """
        self._camera = camera
        self._health = CameraHealth(settings)
        self._policy = RestartPolicy(settings)
        self._read_timeout_s = max(_MIN_READ_TIMEOUT_S, 2.0 / settings.rate_hz)
        self._on_frame = on_frame
        self._on_error = on_error
        self._condition = threading.Condition()
        self._latest: Image | None = None
        self._last_stamp_ns = 0
        self._open_error: Exception | None = None
        self._opened = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, timeout_s: float = 30.0) -> CameraIntrinsics:
        """Open the camera and start reading.

        Returns:
            Intrinsics of the frames.

        Raises:
            DeviceError: The camera cannot be opened; the reader has ended.
        """
        self._thread.start()
        if not self._opened.wait(timeout_s):
            self._stopping.set()
            raise DeviceError(f"the camera did not open within {timeout_s:.0f} s")
        if self._open_error is not None:
            self._thread.join()
            raise self._open_error
        return self._camera.intrinsics

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End reading and close the camera; idempotent.

        Returns:
            Whether the thread ended in time; a hung SDK call can prevent it.
        """
        self._stopping.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wait_newer(self, stamp_ns: int, timeout_s: float) -> Image | None:
        """Wait for a frame newer than a known one; skipped frames are gone, the newest wins.

        Args:
            stamp_ns: Stamp of the frame the caller has, 0 for none.
            timeout_s: Longest wait.

        Returns:
            The newest frame, or None when none came in time.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._last_stamp_ns != stamp_ns, timeout_s)
            return self._latest if self._last_stamp_ns != stamp_ns else None

    def report(self) -> CameraReport:
        """Health now; a reader hung inside the SDK shows as stalled."""
        return self._health.report(time.monotonic())

    def details(self) -> Mapping[str, str]:
        """What the camera says about itself, empty when it says nothing."""
        return self._camera.details() if isinstance(self._camera, DescribesItself) else {}

    def _run(self) -> None:
        try:
            self._camera.open()
        except Exception as error:  # noqa: BLE001 - raised again by start()
            self._open_error = error
            return
        finally:
            self._opened.set()
        self._policy.opened(time.monotonic())
        self._health.opened(time.monotonic())
        while not self._stopping.is_set():
            self._read_once()
            if self._policy.must_restart(time.monotonic()):
                self._restart()
        self._close()

    def _read_once(self) -> None:
        if self._policy.is_lost:
            self._stopping.wait(self._policy.until_due_s(time.monotonic()))
            return
        try:
            image = self._camera.read(self._read_timeout_s)
        except Exception as error:  # noqa: BLE001 - vendors raise anything; shown in the report
            self._lose(error)
            return
        now_s = time.monotonic()
        if image is None:
            self._health.silent(now_s)
        elif 0 <= self._last_stamp_ns - image.stamp_ns < _CLOCK_STEP_NS:
            # A frame the SDK hands out twice; a larger step back is system time being set.
            self._health.repeated(now_s)
        else:
            self._policy.delivered(now_s)
            self._health.delivered(now_s, image.stamp_ns, time.time_ns())
            self._deliver(image)

    def _deliver(self, image: Image) -> None:
        with self._condition:
            self._latest, self._last_stamp_ns = image, image.stamp_ns
            self._condition.notify_all()
        if self._on_frame is None:
            return
        try:
            self._on_frame(image)
        except Exception as error:  # noqa: BLE001 - the consumer's fault must not stop the camera
            if self._on_error is not None:
                self._on_error(error)

    def _restart(self) -> None:
        self._close()
        try:
            self._camera.open()
        except Exception as error:  # noqa: BLE001 - vendors raise anything; shown in the report
            self._lose(error)
            return
        now_s = time.monotonic()
        self._policy.opened(now_s)
        self._health.restarted(now_s)

    def _lose(self, error: Exception) -> None:
        sentence = str(error) if isinstance(error, DeviceError) else repr(error)
        now_s = time.monotonic()
        self._policy.lost(now_s)
        self._health.lost(now_s, sentence)

    def _close(self) -> None:
        try:
            self._camera.close()
        except Exception as error:  # noqa: BLE001 - a dead device may not even close
            self._health.lost(time.monotonic(), f"close: {error!r}")
