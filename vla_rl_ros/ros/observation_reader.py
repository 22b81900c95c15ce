# SPDX-License-Identifier: Apache-2.0
"""What a policy sees at a tick: fresh images, proprioception of the same time, the instruction."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, MultiDOFJointState

from vla_rl_ros.core.alignment import lerp
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation
from vla_rl_ros.ros import cdr
from vla_rl_ros.ros.channels import NS_PER_S, from_stamp
from vla_rl_ros.ros.codecs import decode_image, decode_objects
from vla_rl_ros.ros.sampler import Sampler, Tap
from vla_rl_ros.ros.state_reader import StaleInputError, StampedTopic, StateLimits, StateReader

# The gate repeats its target every 25 ms; an older one is that of another episode.
_MAX_TARGET_AGE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationLimits:
    """How observations are read.

    Attributes:
        state: Proprioception.
        max_image_age_s: Largest age of an image at the tick.
        camera_latency_s: From exposure to an image's stamp.
    """

    state: StateLimits
    max_image_age_s: float
    camera_latency_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """An observation and its time.

    Attributes:
        observation: What the policy gets; its stamp is that of the tick.
        stamp_ns: When it was seen: the exposure of the oldest of its images.
        oldest_ns: The same, with the poses of objects counted among the images.
    """

    observation: PolicyObservation
    stamp_ns: int
    oldest_ns: int


class ObservationReader:
    """Assembles observations for one policy, from exactly the sources it names.

    Each camera gives its newest image. Cameras are not triggered together, so the observation is
    taken to be as old as the oldest of them (at most one frame apart), and proprioception is
    interpolated to that time: where the arm was when it was seen, not where it is at the tick.
    Each device's own latency is subtracted from its stamps, as in UMI (arXiv 2402.10329).
    """

    def __init__(self, sampler: Sampler, policy: ChunkPolicy, limits: ObservationLimits) -> None:
        """Listen.

        Args:
            sampler: Where to listen.
            policy: Names its cameras and whether it needs true object poses.
            limits: Ages and latencies.
        """
        state = limits.state
        self._max_image_age_s = limits.max_image_age_s
        self._camera_latency_ns = round(limits.camera_latency_s * NS_PER_S)
        self._state = StateReader(sampler, state)
        self._joints: StampedTopic[FloatArray] = StampedTopic(
            sampler,
            "arm/joint_state",
            cdr.joints,
            state.max_age_s,
            state.depth,
            state.arm_latency_s,
        )
        self._target: StampedTopic[Pose] = StampedTopic(
            sampler, "arm/target_pose", cdr.pose, _MAX_TARGET_AGE_S, depth=8
        )
        self._images: dict[str, Tap[Image]] = {
            camera: sampler.tap(f"camera/{camera}/image") for camera in policy.cameras
        }
        self._objects: StampedTopic[tuple[int, dict[str, Pose]]] | None = None
        if policy.needs_objects:
            self._objects = StampedTopic(sampler, "sim/objects", _objects, 0.1, depth=8)

    def read(
        self, stamp_ns: int, *, task: str, instruction: str, last_action: FloatArray | None
    ) -> Seen:
        """Observation for the tick at a stamp.

        Raises:
            StaleInputError: Names the first source that has nothing fresh.
            InvalidCommandError: A message is malformed.
        """
        images = {camera: self._image(camera, stamp_ns) for camera in self._images}
        seen_ns = min((exposed_ns for exposed_ns, _ in images.values()), default=stamp_ns)
        posed_ns, objects = stamp_ns, None
        if self._objects is not None:
            posed_ns, objects = self._objects.nearest(stamp_ns)
        observation = PolicyObservation(
            stamp_ns=stamp_ns,
            images={camera: image for camera, (_, image) in images.items()},
            state=self._state.read(seen_ns),
            instruction=instruction,
            task=task,
            last_action=last_action,
            joint_rad=self._joint_positions(seen_ns),
            target=self._target.last_before(stamp_ns),
            objects=objects,
        )
        return Seen(observation=observation, stamp_ns=seen_ns, oldest_ns=min(seen_ns, posed_ns))

    def rehearse(self, stamp_ns: int) -> None:
        """Read and forget, while nobody waits: little is left to take for a read soon after."""
        with suppress(InvalidCommandError):
            self.read(stamp_ns, task="", instruction="", last_action=None)

    def _joint_positions(self, stamp_ns: int) -> FloatArray | None:
        try:
            before, after, fraction = self._joints.around(stamp_ns)
        except StaleInputError:
            # Few policies ask for them, and those say so themselves.
            return None
        return lerp(before, after, fraction)

    def _image(self, camera: str, stamp_ns: int) -> tuple[int, ImageArray]:
        topic = f"camera/{camera}/image"
        message = self._images[camera].newest()
        if message is None:
            raise StaleInputError(topic, float("inf"), self._max_image_age_s)
        exposed_ns = from_stamp(message.header.stamp) - self._camera_latency_ns
        age_s = (stamp_ns - exposed_ns) / NS_PER_S
        # Far in the future is a camera on another clock: as useless as an old image.
        if abs(age_s) > self._max_image_age_s:
            raise StaleInputError(topic, age_s, self._max_image_age_s)
        try:
            return exposed_ns, decode_image(message)
        except InvalidCommandError as error:
            raise InvalidCommandError(error.reason, f"{topic}: {error}") from error


def _objects(raw: bytes) -> tuple[int, dict[str, Pose]]:
    return cdr.stamp_ns(raw), decode_objects(deserialize_message(raw, MultiDOFJointState))
