# SPDX-License-Identifier: Apache-2.0
"""Bags are read by rosbags and mcap, hold the bytes as received, and survive a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.typesys import get_types_from_msg
from unit.bag_samples import (
    IMAGE,
    KEEP,
    PERIOD_NS,
    POSE,
    START_NS,
    STORE,
    bag_topics,
    make_bag,
    pose,
    write_samples,
)

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_check import check
from vla_rl_ros.data.bag_reader import Bag
from vla_rl_ros.data.bag_writer import BagSettings, BagWriter
from vla_rl_ros.data.metadata import BagTopic, qos_text
from vla_rl_ros.data.provenance import git_hash, provenance
from vla_rl_ros.data.record_file import DiskFullError
from vla_rl_ros.data.recover import recover
from vla_rl_ros.data.schemas import has_header, message_schema, nested_types
from vla_rl_ros.ros.graph import TOPICS

TYPES = sorted({topic.type for topic in TOPICS})


@pytest.mark.parametrize("type_name", TYPES)
def test_schema_of_every_topic_is_complete_and_equals_the_known_definition(type_name: str) -> None:
    parsed = get_types_from_msg(message_schema(type_name), type_name)
    for name, definition in parsed.items():
        assert definition[1] == STORE.fielddefs[name][1]


def test_schema_without_installed_packages_comes_from_rosbags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    schema = message_schema("geometry_msgs/msg/PoseStamped")
    assert "geometry_msgs/msg/Pose" in get_types_from_msg(schema, "geometry_msgs/msg/PoseStamped")
    assert has_header(schema)
    with pytest.raises(BagError, match="no definition"):
        message_schema("nobody_msgs/msg/Nothing")


def test_nested_types_are_found_in_every_form_of_field() -> None:
    text = """
    # Comment with Words like This
    uint8 A=1
    string<=10 name  # string
    float64[<=3] xs
    Point[] points
    geometry_msgs/Pose[2] poses
    std_msgs/Header header
    Point again
    """
    assert nested_types("my_msgs/msg/Thing", text) == [
        "my_msgs/msg/Point",
        "geometry_msgs/msg/Pose",
        "std_msgs/msg/Header",
    ]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_rosbags_and_mcap_read_the_same_messages(tmp_path: Path, compression: str) -> None:
    settings = BagSettings(compression=compression, start_free_bytes=0, chunk_bytes=5000)
    bag = make_bag(tmp_path / "episode", 100, settings)
    with AnyReader([bag]) as reader:
        assert reader.message_count == 300
        assert {c.topic for c in reader.connections} == {topic.name for topic in bag_topics()}
        connections = [c for c in reader.connections if c.topic == "/arm/tcp_pose"]
        xs = [
            reader.deserialize(raw, c.msgtype).pose.position.x
            for c, _, raw in reader.messages(connections)
        ]
    assert xs == list(range(100))
    with (bag / "episode_0.mcap").open("rb") as file:
        decoded = make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        rows = [(channel.topic, message.log_time, data) for _, channel, message, data in decoded]
    assert len(rows) == 300
    topic, log_time_ns, message = rows[-1]
    assert topic == "/gripper/state"
    assert log_time_ns == START_NS + 99 * PERIOD_NS + 1000
    assert message.position == pytest.approx([0.99, 0.0])


def test_bytes_are_stored_as_given(tmp_path: Path) -> None:
    data = pose(START_NS, 1.5) + b"\x00\x00\x00junk"
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)
    writer.write(POSE, START_NS, START_NS, data, 77)
    (message,) = Bag(writer.finish()).messages()
    assert message.raw == data
    assert message.sequence == 77


def test_metadata_yaml_is_what_every_distribution_reads(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "e", 10)
    document = yaml.safe_load((bag / "metadata.yaml").read_text())
    info = document["rosbag2_bagfile_information"]
    assert info["version"] == 5
    assert info["storage_identifier"] == "mcap"
    assert info["relative_file_paths"] == ["e_0.mcap"]
    assert info["files"][0]["path"] == "e_0.mcap"
    assert info["message_count"] == info["files"][0]["message_count"] == 30
    assert info["starting_time"]["nanoseconds_since_epoch"] == START_NS + 1000
    assert info["duration"]["nanoseconds"] == 9 * PERIOD_NS
    counts = {
        entry["topic_metadata"]["name"]: entry["message_count"]
        for entry in info["topics_with_message_count"]
    }
    assert counts["/arm/tcp_pose"] == 10
    assert counts["/learner/actor"] == 0
    profiles = info["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"]
    assert isinstance(profiles, str)
    assert yaml.safe_load(profiles)[0]["depth"] == 10


def test_offered_qos_comes_back(tmp_path: Path) -> None:
    qos = qos_text(depth=3, is_reliable=False, is_transient_local=True, lifespan_ns=100_000_000)
    kind = "std_msgs/msg/UInt8MultiArray"
    topic = BagTopic(name="/x", type=kind, schema=message_schema(kind), qos=qos)
    bag = BagWriter(tmp_path / "e", [topic], {}, KEEP).finish()
    with AnyReader([bag]) as reader:
        (profile,) = reader.connections[0].ext.offered_qos_profiles
    assert profile.depth == 3
    assert profile.reliability == QosReliability.BEST_EFFORT
    assert profile.durability == QosDurability.TRANSIENT_LOCAL
    assert (profile.lifespan.sec, profile.lifespan.nsec) == (0, 100_000_000)


def test_images_come_back_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, 12 * 16 * 3, dtype=np.uint8)
    header = STORE.types["std_msgs/msg/Header"]
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    image = STORE.types["sensor_msgs/msg/Image"](
        header=header(stamp=stamp, frame_id="camera"),
        height=12,
        width=16,
        encoding="rgb8",
        is_bigendian=0,
        step=48,
        data=pixels,
    )
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)
    writer.write(IMAGE, START_NS, START_NS, bytes(STORE.serialize_cdr(image, image.__msgtype__)))
    (message,) = Bag(writer.finish()).messages(["camera/wrist/image"])
    assert message.stamp_ns == 1_000_000_002
    assert np.frombuffer(message.decode().data, np.uint8).tolist() == pixels.tolist()


def test_small_topics_reach_the_disk_within_the_flush_period(tmp_path: Path) -> None:
    settings = BagSettings(flush_period_s=0.25, start_free_bytes=0, stop_free_bytes=0)
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, settings)
    write_samples(writer, 101)  # the last sample comes at 0.5 s
    on_disk = [m for m in Bag(writer.path).messages(["arm/tcp_pose"])]
    assert len(on_disk) == 101
    writer.write(POSE, START_NS, START_NS, pose(START_NS, 0.0))
    assert not writer.flush_if_due(0.74)
    assert writer.flush_if_due(0.76)
    assert len(list(Bag(writer.path).messages(["arm/tcp_pose"]))) == 102
    writer.abort()


def test_a_bag_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)
    assert (tmp_path / "e.partial").is_dir()
    assert not (tmp_path / "e").exists()
    assert writer.finish() == tmp_path / "e"
    assert not (tmp_path / "e.partial").exists()
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)


def test_no_bag_is_begun_on_a_nearly_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="required"):
        BagWriter(tmp_path / "e", bag_topics(), {}, BagSettings(start_free_bytes=2**62))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_ends_the_bag_with_everything_so_far(tmp_path: Path) -> None:
    settings = BagSettings(start_free_bytes=0, stop_free_bytes=2**62)
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, settings)
    with pytest.raises(DiskFullError):
        write_samples(writer, 10)
    assert check(writer.finish()).num_messages == writer.num_messages > 0


def test_a_refused_write_leaves_a_readable_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BagSettings(
        compression="none", chunk_bytes=2000, start_free_bytes=0, stop_free_bytes=0
    )
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, settings)
    write_samples(writer, 50)
    writer.flush()
    real, budget = os.write, [3000]

    def nearly_full(fd: int, data: bytes) -> int:
        if budget[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, data[: budget[0]])
        budget[0] -= written
        return written

    monkeypatch.setattr("os.write", nearly_full)
    with pytest.raises(BagError, match="No space left"):
        write_samples(writer, 50)
    with pytest.raises(BagError, match="No space left"):
        writer.finish()
    writer.abort()
    monkeypatch.undo()
    assert len(list(Bag(writer.path).messages())) >= 150
    result = recover(writer.path.parent)
    assert result.num_cut_bytes == 0  # the failed write left no half record behind
    assert check(result.directory).problems == ()


def test_provenance_names_commit_and_version_but_no_host() -> None:
    values = provenance()
    assert set(values) == {"git_hash", "package_version", "python", "machine", "ros_distro"}
    assert os.uname().nodename not in " ".join(values.values())
    assert str(Path.home()) not in " ".join(values.values())


def test_a_foreign_repository_is_not_taken_for_ours(tmp_path: Path) -> None:
    import subprocess

    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    assert git_hash(tmp_path) == "unknown"
    (tmp_path / "package.xml").write_text("<name>vla_rl_ros</name>")
    subprocess.run([*git, "add", "package.xml"], check=True)
    assert git_hash(tmp_path).endswith("-dirty")
    subprocess.run([*git, "commit", "-q", "-m", "second"], check=True)
    assert len(git_hash(tmp_path)) == 40
