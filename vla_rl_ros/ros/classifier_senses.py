# SPDX-License-Identifier: Apache-2.0
"""What the success classifier looks at: fresh images of one time, and measured channels.

Nothing here has a callback: messages wait until they are asked for. Used from one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sensor_msgs.msg import Image

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import GripperState, ImageArray, Pose
from vla_rl_ros.ros import cdr
from vla_rl_ros.ros.channels import NS_PER_S, from_stamp
from vla_rl_ros.ros.classifier_config import SuccessClassifierConfig
from vla_rl_ros.ros.codecs import decode_image
from vla_rl_ros.ros.sampler import Sampler, Tap
from vla_rl_ros.ros.state_reader import StaleInputError, StampedTopic

_DEPTH = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glance:
    """What is seen at one time.

    Attributes:
        stamp_ns: Of the oldest image.
        images: RGB by camera.
        measured: Channels by name; those that nothing fresh tells are missing.
    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    measured: Mapping[str, float]


class ClassifierSenses:
    """Subscriptions of the classifier."""

    def __init__(
        self, sampler: Sampler, cameras: Sequence[str], config: SuccessClassifierConfig
    ) -> None:
        """Listen.

        Args:
            sampler: Where to listen.
            cameras: All that any classifier looks at.
            config: What is too old.
        """
        self._config = config
        self._images: dict[str, Tap[Image]] = {
            camera: sampler.tap(f"camera/{camera}/image") for camera in cameras
        }
        age_s = config.max_state_age_s
        self._pose: StampedTopic[Pose] = StampedTopic(
            sampler, "arm/tcp_pose", cdr.pose, age_s, _DEPTH
        )
        self._gripper: StampedTopic[GripperState] = StampedTopic(
            sampler, "gripper/state", cdr.gripper, age_s, _DEPTH
        )

    def look(self, cameras: Sequence[str], now_ns: int) -> Glance:
        """The newest images of some cameras, and what was measured with them.

        Raises:
            StaleInputError: Names the camera that has nothing fresh, or the one whose image is of
                another time than the others'.
            InvalidCommandError: A message is malformed.
        """
        stamps, images = {}, {}
        for camera in cameras:
            stamps[camera], images[camera] = self._image(camera, now_ns)
        oldest = min(stamps, key=lambda camera: stamps[camera])
        skew_s = (max(stamps.values()) - stamps[oldest]) / NS_PER_S
        if skew_s > self._config.max_skew_s:
            topic = f"camera/{oldest}/image"
            raise StaleInputError(topic, skew_s, self._config.max_skew_s)
        stamp_ns = stamps[oldest]
        return Glance(stamp_ns=stamp_ns, images=images, measured=self._measured(stamp_ns))

    def _image(self, camera: str, now_ns: int) -> tuple[int, ImageArray]:
        topic, limit_s = f"camera/{camera}/image", self._config.max_image_age_s
        message = self._images[camera].newest()
        if message is None:
            raise StaleInputError(topic, float("inf"), limit_s)
        stamp_ns = from_stamp(message.header.stamp)
        age_s = (now_ns - stamp_ns) / NS_PER_S
        # Far in the future is a camera on another clock.
        if abs(age_s) > limit_s:
            raise StaleInputError(topic, age_s, limit_s)
        return stamp_ns, decode_image(message)

    def _measured(self, stamp_ns: int) -> dict[str, float]:
        found: dict[str, float] = {}
        with suppress(InvalidCommandError):
            x_m, y_m, z_m = self._pose.nearest(stamp_ns).position_m.tolist()
            found.update({"tcp.x_m": x_m, "tcp.y_m": y_m, "tcp.z_m": z_m})
        with suppress(InvalidCommandError):
            found["gripper.width_m"] = self._gripper.nearest(stamp_ns).width_m
        return found
