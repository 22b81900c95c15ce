# SPDX-License-Identifier: Apache-2.0
"""What a policy sees at a tick: fresh images, proprioception at the stamp, the instruction."""

from __future__ import annotations

from sensor_msgs.msg import Image

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation
from vla_rl_ros.ros.channels import NS_PER_S, from_stamp
from vla_rl_ros.ros.codecs import decode_image, decode_objects
from vla_rl_ros.ros.sampler import Sampler, Tap
from vla_rl_ros.ros.state_reader import StaleInputError, StampedTopic, StateReader


class ObservationReader:
    """Assembles observations for one policy, from exactly the sources it names."""

    def __init__(
        self, sampler: Sampler, policy: ChunkPolicy, state: StateReader, max_image_age_s: float
    ) -> None:
        """Listen.

        Args:
            sampler: Where to listen.
            policy: Names its cameras and whether it needs true object poses.
            state: Reads the proprioception.
            max_image_age_s: Largest age of an image at the stamp of the observation.
        """
        self._state = state
        self._max_image_age_s = max_image_age_s
        self._images: dict[str, Tap[Image]] = {
            camera: sampler.tap(f"camera/{camera}/image") for camera in policy.cameras
        }
        self._objects: StampedTopic[dict[str, Pose]] | None = None
        if policy.needs_objects:
            self._objects = StampedTopic(sampler, "sim/objects", decode_objects, 0.1, depth=8)

    def read(
        self, stamp_ns: int, *, task: str, instruction: str, last_action: FloatArray | None
    ) -> PolicyObservation:
        """Observation at a stamp.

        Raises:
            StaleInputError: Names the first source that has nothing fresh.
            InvalidCommandError: A message is malformed.
        """
        return PolicyObservation(
            stamp_ns=stamp_ns,
            images={camera: self._image(camera, stamp_ns) for camera in self._images},
            state=self._state.read(stamp_ns),
            instruction=instruction,
            task=task,
            last_action=last_action,
            objects=None if self._objects is None else self._objects.nearest(stamp_ns),
        )

    def _image(self, camera: str, stamp_ns: int) -> ImageArray:
        topic = f"camera/{camera}/image"
        message = self._images[camera].newest()
        if message is None:
            raise StaleInputError(topic, float("inf"), self._max_image_age_s)
        age_s = (stamp_ns - from_stamp(message.header.stamp)) / NS_PER_S
        # Far in the future is a camera on another clock: as useless as an old image.
        if abs(age_s) > self._max_image_age_s:
            raise StaleInputError(topic, age_s, self._max_image_age_s)
        try:
            return decode_image(message)
        except InvalidCommandError as error:
            raise InvalidCommandError(error.reason, f"{topic}: {error}") from error
