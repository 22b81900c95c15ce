# SPDX-License-Identifier: Apache-2.0
"""Topics and CDR messages for tests of bags, made without ROS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags.typesys import Stores, get_typestore

from vla_rl_ros.data.bag_writer import BagSettings, BagWriter
from vla_rl_ros.data.metadata import NS_PER_S, BagTopic, qos_text
from vla_rl_ros.data.schemas import message_schema

STORE = get_typestore(Stores.ROS2_HUMBLE)
START_NS = 1_700_000_000 * NS_PER_S
PERIOD_NS = 5_000_000
POSE, WRENCH, CHANNELS, IMAGE, SILENT = range(5)
KEEP = BagSettings(start_free_bytes=0, stop_free_bytes=0)


def bag_topics() -> list[BagTopic]:
    names = {
        "/arm/tcp_pose": "geometry_msgs/msg/PoseStamped",
        "/arm/tcp_wrench": "geometry_msgs/msg/WrenchStamped",
        "/gripper/state": "sensor_msgs/msg/JointState",
        "/camera/wrist/image": "sensor_msgs/msg/Image",
        "/learner/actor": "std_msgs/msg/UInt8MultiArray",
    }
    return [
        BagTopic(name=name, type=kind, schema=message_schema(kind), qos=qos_text(depth=10))
        for name, kind in names.items()
    ]


def header(stamp_ns: int) -> object:
    time = STORE.types["builtin_interfaces/msg/Time"]
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    make = STORE.types["std_msgs/msg/Header"]
    return make(stamp=time(sec=sec, nanosec=nanosec), frame_id="fr3_link0")


def pose(stamp_ns: int, x_m: float) -> bytes:
    types = STORE.types
    point = types["geometry_msgs/msg/Point"](x=x_m, y=2.0, z=3.0)
    quat = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    inner = types["geometry_msgs/msg/Pose"](position=point, orientation=quat)
    return cdr(types["geometry_msgs/msg/PoseStamped"](header=header(stamp_ns), pose=inner))


def wrench(stamp_ns: int, force_n: float) -> bytes:
    types = STORE.types
    vector = types["geometry_msgs/msg/Vector3"]
    inner = types["geometry_msgs/msg/Wrench"](
        force=vector(x=force_n, y=0.0, z=0.0), torque=vector(x=0.0, y=0.0, z=0.5)
    )
    return cdr(types["geometry_msgs/msg/WrenchStamped"](header=header(stamp_ns), wrench=inner))


def channels(stamp_ns: int, values: dict[str, float]) -> bytes:
    message = STORE.types["sensor_msgs/msg/JointState"](
        header=header(stamp_ns),
        name=list(values),
        position=np.array(list(values.values())),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )
    return cdr(message)


def cdr(message: object) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def write_samples(writer: BagWriter, count: int) -> None:
    """`count` poses, wrenches and channel vectors, 5 ms apart."""
    for index in range(count):
        stamp_ns = START_NS + index * PERIOD_NS
        log_ns = stamp_ns + 1000
        writer.write(POSE, log_ns, stamp_ns, pose(stamp_ns, float(index)), index + 1)
        writer.write(WRENCH, log_ns, stamp_ns, wrench(stamp_ns, -float(index)), index + 1)
        row = {"gripper.width_m": 0.01 * index, "gripper.is_moving": 0.0}
        writer.write(CHANNELS, log_ns, stamp_ns, channels(stamp_ns, row), index + 1)
        writer.flush_if_due(index * PERIOD_NS * 1e-9)


def make_bag(directory: Path, count: int = 100, settings: BagSettings = KEEP) -> Path:
    writer = BagWriter(directory, bag_topics(), {"episode": {"id": directory.name}}, settings)
    write_samples(writer, count)
    return writer.finish()


def make_partial(directory: Path, count: int = 100, settings: BagSettings = KEEP) -> Path:
    """A bag whose writer died after its last flush."""
    writer = BagWriter(directory, bag_topics(), {"episode": {"id": directory.name}}, settings)
    write_samples(writer, count)
    writer.flush()
    writer.abort()
    return writer.path.parent
