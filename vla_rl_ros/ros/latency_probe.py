# SPDX-License-Identifier: Apache-2.0
"""Notes when images, chunks and executed ticks pass, by the stamps of the middleware itself.

Its own callbacks may lag: the times are those at which the middleware sent and delivered. Used by
`vla-rl-ros bench latency`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.intervention import NO_STEP
from vla_rl_ros.hardware.frame_pattern import NUM_BITS, read_pattern
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.codecs import decode_image
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.latency_events import Frame, Played
from vla_rl_ros.ros.observer import GraphObserver

MessageInfo = Mapping[str, int]


class LatencyProbe:
    """Listens through an observer; filled while it spins.

    Attributes:
        frames: Delivered images by camera.
        missed: Numbered frames that never came, by camera.
        chunks: Stamp of each chunk's observation to the time of its delivery.
        reports: Stamp of each tick to the time at which the gate reported it.
        played: Stamp of each chunk's observation to the first tick that played it.
    """

    def __init__(
        self, observer: GraphObserver, *, fingerprint: Callable[[Any], int], numbered: bool
    ) -> None:
        """Join the topics.

        Args:
            observer: Where to listen.
            fingerprint: Checksum of the bytes of an image.
            numbered: Whether images carry their number, see `hardware.frame_pattern`.
        """
        self.frames: dict[str, list[Frame]] = defaultdict(list)
        self.missed: dict[str, int] = defaultdict(int)
        self.chunks: dict[int, int] = {}
        self.reports: dict[int, int] = {}
        self.played: dict[int, Played] = {}
        self._fingerprint = fingerprint
        self._numbered = numbered
        self._numbers: dict[str, int] = {}
        # Stamps of the chunks by their number; the rows of the gate know the number only.
        self._stamps: dict[int, int] = {}
        for camera in CAMERAS:
            _subscribe(observer, Image, f"camera/{camera}/image", partial(self._on_image, camera))
        _subscribe(observer, JointTrajectory, "policy/chunk", self._on_chunk)
        _subscribe(observer, JointState, "action/executed", self._on_executed)

    def _on_image(self, camera: str, message: Image, info: MessageInfo) -> None:
        frame = Frame(
            stamp_ns=from_stamp(message.header.stamp),
            received_ns=info["received_timestamp"],
            fingerprint=self._fingerprint(message.data),
        )
        self.frames[camera].append(frame)
        if self._numbered:
            self._note_number(camera, read_pattern(decode_image(message)))

    def _note_number(self, camera: str, number: int) -> None:
        last = self._numbers.get(camera)
        # A recording that starts over jumps back.
        if last is not None and number > last:
            self.missed[camera] += (number - last - 1) % (1 << NUM_BITS)
        self._numbers[camera] = number

    def _on_chunk(self, message: JointTrajectory, info: MessageInfo) -> None:
        stamp_ns = from_stamp(message.header.stamp)
        self.chunks.setdefault(stamp_ns, info["received_timestamp"])
        id_index = message.joint_names.index("chunk.id")
        self._stamps[int(message.points[0].positions[id_index])] = stamp_ns

    def _on_executed(self, message: JointState, info: MessageInfo) -> None:
        row = decode_executed(message)
        self.reports[row.stamp_ns] = info["source_timestamp"]
        stamp_ns = self._stamps.get(row.chunk_id)
        if row.chunk_step == NO_STEP or stamp_ns is None:
            return
        played = Played(tick_ns=row.stamp_ns, sent_ns=info["source_timestamp"])
        self.played.setdefault(stamp_ns, played)


def _subscribe(
    observer: GraphObserver, kind: type, topic: str, callback: Callable[..., None]
) -> None:
    # Reliable and deep: every message counts, whenever this process gets to it.
    observer.node.create_subscription(kind, topic, callback, QoSProfile(depth=500))


def end_episode(observer: GraphObserver, timeout_s: float) -> None:
    """End the running episode as a failure.

    Raises:
        GraphTimeoutError: The supervisor did not answer.
    """
    service = "supervisor/end_episode"
    client: Any = observer.node.create_client(SetBool, service)
    try:
        observer.wait_until(client.service_is_ready, timeout_s, f"service {service}")
        answer = client.call_async(SetBool.Request(data=False))
        observer.wait_until(answer.done, timeout_s, f"an answer of {service}")
    finally:
        observer.node.destroy_client(client)
