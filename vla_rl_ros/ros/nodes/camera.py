# SPDX-License-Identifier: Apache-2.0
"""One camera -> camera/<name>/image and camera_info, stamped at exposure.

Images are published from the reader's thread, which spares them a hop through the executor. A
stalled or lost camera publishes nothing and says so in diagnostics; it comes back by itself.
"""

from __future__ import annotations

import array
import sys
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.timer import Timer
from sensor_msgs.msg import Image as ImageMessage

from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.camera_health import CameraReport, CameraStatus
from vla_rl_ros.hardware.camera_reader import CameraReader
from vla_rl_ros.hardware.image_fit import ImageFit
from vla_rl_ros.hardware.protocols import Camera
from vla_rl_ros.ros.camera_source import CameraConfig, make_camera
from vla_rl_ros.ros.channels import to_stamp
from vla_rl_ros.ros.codecs import encode_camera_info, encode_image
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.urgency import Urgency, hurry_along

NODE_PREFIX = "camera_"


class CameraNode(ManagedNode[CameraConfig]):
    """Publishes one camera."""

    def __init__(
        self,
        overrides: dict[str, object] | None = None,
        make: Callable[[CameraConfig, str], Camera] = make_camera,
    ) -> None:
        """Declare parameters.

        Args:
            overrides: Parameter values that win over files.
            make: Makes the source; tests put their own here.
        """
        super().__init__("camera", CameraConfig, overrides)
        self._name = self.config.camera or self.get_name().removeprefix(NODE_PREFIX)
        self._frame_id = f"{NODE_PREFIX}{self._name}_optical_frame"
        self._make = make
        self._endpoints = Endpoints(self)
        self._gate = threading.Lock()
        self._is_publishing = False
        self._reader: CameraReader | None = None
        self._depths: Sender | None = None
        self._health_timer: Timer | None = None
        self._status = CameraStatus.CLOSED

    def setup(self) -> None:
        """Open the camera; it streams from now on, so that exposure settles before `start`."""
        config, topic = self.config, f"camera/{self._name}"
        self._images = self._endpoints.publisher(f"{topic}/image")
        self._infos = self._endpoints.publisher(f"{topic}/camera_info")
        if config.depth:
            self._depths = self._endpoints.publisher(f"{topic}/depth")
        self._reader = CameraReader(
            self._make(config, self._name),
            config.health(),
            on_frame=self._on_frame,
            on_error=self._on_error,
            name=f"{NODE_PREFIX}{self._name}",
        )
        intrinsics = self._reader.start()
        self._fit = ImageFit(intrinsics, config.width_px, config.height_px, config.crop_box())
        self._health_timer = self.create_timer(1.0, self.show_health)

    def start(self) -> None:
        """Publish the intrinsics and let images through."""
        # The threads of the reader and its source: they publish.
        hurry_along()
        now_ns = self.get_clock().now().nanoseconds
        self._infos.publish(encode_camera_info(self._fit.intrinsics, now_ns, self._frame_id))
        with self._gate:
            self._is_publishing = True

    def stop(self, reason: str) -> None:
        """Let no further image through; one that is being published is waited for."""
        with self._gate:
            self._is_publishing = False

    def teardown(self) -> None:
        """Close the camera."""
        reader, self._reader = self._reader, None
        if reader is not None and not reader.stop():
            self.get_logger().warning("the camera's driver hangs; its thread is left behind")
        if self._health_timer is not None:
            self.destroy_timer(self._health_timer)
            self._health_timer = None
        self._depths = None
        self._endpoints.destroy()

    def _on_frame(self, image: Image) -> None:
        with self._gate:
            if not self._is_publishing:
                return
            fitted = self._fit.apply(image)
            self._images.publish(encode_image(fitted.rgb, fitted.stamp_ns, self._frame_id))
            if self._depths is not None and fitted.depth_m is not None:
                self._depths.publish(encode_depth(fitted.depth_m, fitted.stamp_ns, self._frame_id))

    def _on_error(self, error: Exception) -> None:
        self.diag.count("publish_errors")
        self.get_logger().error(f"image not published: {error!r}", throttle_duration_sec=1.0)

    def show_health(self) -> None:
        """Bring the diagnostics up to date; called once per second."""
        if self._reader is None:
            return
        report = self._reader.report()
        for key, value in self._reader.details().items():
            self.diag.set(key, value)
        for key, number in _gauges(report).items():
            self.diag.set(key, number)
        self._show_status(report)

    def _show_status(self, report: CameraReport) -> None:
        level, sentence = _judge(report)
        if level is not Level.OK or self.is_running:
            self.diag.level(level, sentence)
        if report.status is not self._status:
            self._status = report.status
            # rclpy ties a line of code to one severity.
            if level is Level.OK:
                self.get_logger().info(sentence)
            else:
                self.get_logger().warning(sentence)


def encode_depth(depth_m: NDArray[np.float32], stamp_ns: int, frame_id: str) -> ImageMessage:
    """Depth image (height, width) as 32FC1; no measurement is NaN, as REP-118 asks."""
    height, width = depth_m.shape
    message = ImageMessage(height=height, width=width, encoding="32FC1", step=4 * width)
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    message.is_bigendian = int(sys.byteorder == "big")
    values = np.array(depth_m, dtype=np.float32)
    values[values <= 0.0] = np.nan
    data = array.array("B")
    data.frombytes(values.tobytes())
    message.data = data
    return message


def _gauges(report: CameraReport) -> dict[str, float]:
    return {
        "rate_hz": report.rate_hz,
        "silence_s": report.silence_s,
        "stamp_age_p50_ms": report.stamp_age_p50_ms,
        "stamp_age_p99_ms": report.stamp_age_p99_ms,
        "frames": report.num_frames,
        "missing": report.num_missing,
        "repeated": report.num_repeated,
        "stalls": report.num_stalls,
        "restarts": report.num_restarts,
    }


def _judge(report: CameraReport) -> tuple[Level, str]:
    if report.status is CameraStatus.LOST:
        return Level.ERROR, f"lost: {report.sentence}"
    if report.status is CameraStatus.STALLED:
        return Level.WARN, f"stalled, no frame for {report.silence_s:.1f} s"
    return Level.OK, f"streaming {report.rate_hz:.1f} Hz"


def main() -> int:
    """Run one camera node until a signal; its name is given by remapping ``__node``."""
    return run(CameraNode, urgency=Urgency.IMAGES)


if __name__ == "__main__":
    sys.exit(main())
