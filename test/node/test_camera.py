# SPDX-License-Identifier: Apache-2.0
"""The camera node on a real graph: what it publishes, when it keeps silent, what it reports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from vla_rl_ros.hardware.fake_camera import FakeCamera
from vla_rl_ros.hardware.frame_pattern import read_pattern
from vla_rl_ros.hardware.realsense_recording import RecordingSpec, write_recording
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.codecs import decode_image
from vla_rl_ros.ros.nodes.camera import CameraNode
from vla_rl_ros.ros.qos import EVENT, LATCHED, SENSOR
from vla_rl_ros.ros.testing import spin_until

pytestmark = pytest.mark.ros

SUCCESS = TransitionCallbackReturn.SUCCESS
FRAME = "camera_wrist_optical_frame"


class Probe:
    """A node that keeps what a camera publishes."""

    def __init__(self, executor) -> None:
        import rclpy

        self.executor = executor
        self.node = rclpy.create_node("probe")
        self.images, self.infos, self.depths, self.statuses = [], [], [], []
        for kind, topic, sink, qos in (
            (ImageMessage, "camera/wrist/image", self.images, SENSOR),
            (ImageMessage, "camera/wrist/depth", self.depths, SENSOR),
            (CameraInfo, "camera/wrist/camera_info", self.infos, LATCHED),
            (DiagnosticArray, "/diagnostics", self.statuses, EVENT),
        ):
            self.node.create_subscription(kind, topic, sink.append, qos)
        executor.add_node(self.node)

    def until(self, predicate) -> None:
        assert spin_until(self.executor, predicate)

    def until_connected(self) -> None:
        self.until(lambda: self.node.count_publishers("camera/wrist/image") == 1)
        self.until(lambda: self.node.count_publishers("/diagnostics") == 1)

    def last(self, key: str) -> str:
        """Newest value of a diagnostics key."""
        for array in reversed(self.statuses):
            values = {pair.key: pair.value for pair in array.status[0].values}
            if key in values:
                return values[key]
        return ""

    def level(self) -> tuple[bytes, str]:
        status = self.statuses[-1].status[0] if self.statuses else DiagnosticStatus()
        return status.level, status.message


@pytest.fixture
def probe(executor):
    return Probe(executor)


@pytest.fixture
def made(executor):
    """Make a node; the shutdown hooks run before the executor goes."""
    nodes = []

    def make(source: FakeCamera | None = None, **overrides: object) -> CameraNode:
        values = {
            "autostart": False,
            "camera": "wrist",
            "driver": "fake",
            "width_px": 32,
            "height_px": 32,
            **overrides,
        }
        node = CameraNode(values) if source is None else CameraNode(values, lambda *_: source)
        executor.add_node(node)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.trigger_shutdown()


def manual(**changes) -> FakeCamera:
    return FakeCamera(**{"width": 32, "height": 32, "rate_hz": 0.0, **changes})


def subscribed(node: CameraNode, topic: str = "camera/wrist/image") -> bool:
    return any(
        publisher.get_subscription_count() > 0
        for publisher in node.publishers
        if publisher.topic_name == f"/{topic}"
    )


def active(probe: Probe, node: CameraNode) -> CameraNode:
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    probe.until(lambda: subscribed(node))
    return node


def test_an_image_carries_its_exposure_time_and_frame(probe, made) -> None:
    camera = manual()
    active(probe, made(camera))
    camera.push(1_234_567_890)
    probe.until(lambda: probe.images)
    image = probe.images[0]
    assert from_stamp(image.header.stamp) == 1_234_567_890
    assert image.header.frame_id == FRAME
    assert image.encoding == "rgb8"
    assert decode_image(image).shape == (32, 32, 3)
    assert read_pattern(decode_image(image)) == 0


def test_a_late_reader_still_gets_the_intrinsics(executor, made) -> None:
    node = made(manual())
    node.trigger_configure()
    node.trigger_activate()
    late = Probe(executor)
    late.until(lambda: late.infos)
    info = late.infos[0]
    assert (info.width, info.height) == (32, 32)
    assert info.distortion_model == "plumb_bob"
    assert info.header.frame_id == FRAME
    assert info.k[0] == info.p[0] == 32.0


def test_only_an_active_node_publishes(probe, made) -> None:
    camera = manual()
    node = made(camera)
    assert node.trigger_configure() == SUCCESS
    probe.until(lambda: subscribed(node))
    # The camera streams, but nothing may leave; frame 3 is the sentinel that proves it.
    camera.push(1)
    assert wait_frames(probe, node, 1)
    assert node.trigger_activate() == SUCCESS
    assert node.trigger_deactivate() == SUCCESS
    camera.push(2)
    assert wait_frames(probe, node, 2)
    assert node.trigger_activate() == SUCCESS
    camera.push(3)
    probe.until(lambda: probe.images)
    assert [from_stamp(image.header.stamp) for image in probe.images] == [3]


def wait_frames(probe: Probe, node: CameraNode, num_frames: int) -> bool:
    """Wait until the reader has delivered frames, published or not."""

    def has_read() -> bool:
        node.show_health()
        node.diag.publish()
        return int(float(probe.last("frames") or 0)) >= num_frames

    return spin_until(probe.executor, has_read)


def test_a_stalled_camera_publishes_nothing_and_says_so(probe, made) -> None:
    camera = manual()
    node = active(probe, made(camera, stall_after_s=0.05, restart_after_s=0.0))
    camera.push(1)
    probe.until(lambda: probe.images)

    def is_warned() -> bool:
        node.show_health()
        node.diag.publish()
        return probe.level()[0] == DiagnosticStatus.WARN

    probe.until(is_warned)
    assert "stalled" in probe.level()[1]
    camera.push(2)
    probe.until(lambda: len(probe.images) > 1)
    assert [from_stamp(image.header.stamp) for image in probe.images] == [1, 2]


def test_a_lost_camera_is_an_error_and_comes_back(probe, made) -> None:
    camera = FakeCamera(width=32, height=32, rate_hz=100.0)
    node = active(probe, made(camera))
    probe.until(lambda: probe.images)
    camera.unplug()

    def is_level(level: bytes) -> bool:
        node.show_health()
        node.diag.publish()
        return probe.level()[0] == level

    probe.until(lambda: is_level(DiagnosticStatus.ERROR))
    assert "lost: the fake camera" in probe.level()[1]
    camera.plug()
    probe.until(lambda: is_level(DiagnosticStatus.OK))
    probe.until(lambda: probe.last("restarts") == "1")
    num_images = len(probe.images)
    probe.until(lambda: len(probe.images) > num_images)


def test_depth_is_metres_with_nan_for_nothing(probe, made) -> None:
    class Holed(FakeCamera):
        def read(self, timeout_s):
            image = super().read(timeout_s)
            if image is not None:
                image.depth_m[0, 0] = 0.0
            return image

    camera = Holed(width=32, height=32, rate_hz=0.0, has_depth=True)
    node = active(probe, made(camera, depth=True))
    probe.until(lambda: subscribed(node, "camera/wrist/depth"))
    camera.push(7)
    probe.until(lambda: probe.depths)
    message = probe.depths[0]
    depth_m = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
    assert message.encoding == "32FC1"
    assert from_stamp(message.header.stamp) == 7
    assert np.isnan(depth_m[0, 0])
    assert depth_m[5, 5] == 0.5


def test_images_and_intrinsics_are_cropped_alike(probe, made) -> None:
    camera = manual(width=64, height=48)
    active(probe, made(camera, crop_px=[16, 8, 32, 32]))
    camera.push(1)
    probe.until(lambda: probe.images and probe.infos)
    assert (probe.images[0].width, probe.images[0].height) == (32, 32)
    assert probe.infos[0].k[2] == 31.5 - 16.0


def test_a_recording_plays_through_the_node(probe, made, tmp_path) -> None:
    spec = RecordingSpec(width=64, height=64, rate_hz=60, num_frames=30, has_depth=False)
    path = write_recording(tmp_path / "r.db3", spec)
    node = made(
        driver="realsense",
        file=str(path),
        loop=True,
        sensor_width_px=64,
        sensor_height_px=64,
        rate_hz=60,
    )
    active(probe, node)
    probe.until(lambda: len(probe.images) >= 3)
    image = probe.images[-1]
    assert abs(time.time_ns() - from_stamp(image.header.stamp)) < 5_000_000_000
    assert 0 <= read_pattern(decode_image(image)) < spec.num_frames
    node.show_health()
    node.diag.publish()
    probe.until(lambda: probe.last("stamp_source") == "mid_exposure")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"driver": "realsense", "file": "/nowhere.db3"}, "there is no recording"),
        ({"driver": "sim"}, "VLA_RL_RUN_DIR"),
        ({"camera": "side"}, "camera/side/image"),
        ({"crop_px": [0, 0, 900, 900]}, "does not fit"),
    ],
)
def test_a_source_that_cannot_be_opened_fails_the_configuration(
    probe, made, monkeypatch, overrides, said: str
) -> None:
    monkeypatch.delenv("VLA_RL_RUN_DIR", raising=False)
    node = made(**overrides)
    assert node.trigger_configure() != SUCCESS
    probe.until(lambda: probe.statuses and said in probe.level()[1])


@pytest.mark.graph
def test_the_process_takes_its_name_from_its_node_and_ends_on_a_signal(probe) -> None:
    command = [sys.executable, "-m", "vla_rl_ros.ros.nodes.camera", "--ros-args"]
    command += ["-r", "__node:=camera_wrist", "-p", "driver:=fake"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        probe.until(lambda: probe.images and probe.infos)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert probe.images[0].header.frame_id == FRAME
