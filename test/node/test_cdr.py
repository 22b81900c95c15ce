# SPDX-License-Identifier: Apache-2.0
"""Values read from bytes are those that the middleware's own deserialisation gives."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import GripperState, Pose, Twist, Wrench
from vla_rl_ros.ros import cdr, codecs

pytestmark = pytest.mark.ros

STAMP_NS = 1_795_000_000_999_999_999
number = st.floats(-1e3, 1e3)
triples = st.tuples(number, number, number)


@given(position=triples, quat=st.tuples(number, number, number, st.floats(1.0, 2.0)))
@settings(max_examples=50, deadline=None)
def test_pose(position, quat) -> None:
    pose = Pose(np.array(position), np.array(quat) / np.linalg.norm(quat))
    message = codecs.encode_pose(pose, STAMP_NS)
    raw = serialize_message(message)
    read, decoded = cdr.pose(raw), codecs.decode_pose(message)
    np.testing.assert_array_equal(read.position_m, decoded.position_m)
    np.testing.assert_array_equal(read.quat_xyzw, decoded.quat_xyzw)
    assert cdr.stamp_ns(raw) == STAMP_NS


@given(first=triples, second=triples)
@settings(max_examples=50, deadline=None)
def test_twist_and_wrench(first, second) -> None:
    twist, wrench = (
        Twist(np.array(first), np.array(second)),
        Wrench(*map(np.array, (first, second))),
    )
    for message in (codecs.encode_twist(twist, STAMP_NS), codecs.encode_wrench(wrench, STAMP_NS)):
        assert cdr.six(serialize_message(message)) == (*first, *second)


@given(width_m=st.floats(0.0, 0.1), is_moving=st.booleans(), is_grasped=st.booleans())
@settings(max_examples=20, deadline=None)
def test_gripper(width_m, is_moving, is_grasped) -> None:
    state = GripperState(
        stamp_ns=STAMP_NS, width_m=width_m, is_moving=is_moving, is_grasped=is_grasped
    )
    assert cdr.gripper(serialize_message(codecs.encode_gripper(state))) == state


@pytest.mark.parametrize("frame_id", ["", "f", "fr3_link0", "frame of nineteen chars"])
@pytest.mark.parametrize("names", [[], ["a"], [f"fr3_joint{i}" for i in range(1, 8)]])
def test_joints_behind_strings_of_any_length(frame_id: str, names: list[str]) -> None:
    message = JointState(name=names, position=[0.1 * i for i in range(7)], velocity=[1.0] * 7)
    message.header.frame_id = frame_id
    assert cdr.joints(serialize_message(message)).tolist() == [0.1 * i for i in range(7)]


def test_the_other_byte_order() -> None:
    header = struct.pack(">2s2xiII", b"\x00\x00", 5, 7, 10) + b"fr3_link0\0"
    raw = header + bytes(-(len(header) - 4) % 8) + struct.pack(">7d", 1, 2, 3, 0, 0, 0, 1)
    assert cdr.stamp_ns(raw) == 5_000_000_007
    assert cdr.pose(raw).position_m.tolist() == [1.0, 2.0, 3.0]


def _pose(**changes: object) -> PoseStamped:
    message = codecs.encode_pose(Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])), STAMP_NS)
    message.header.frame_id = changes.get("frame_id", message.header.frame_id)
    message.pose.orientation.w = changes.get("w", 1.0)
    return message


@pytest.mark.parametrize(
    ("reason", "raw"),
    [
        ("wrong_frame", serialize_message(_pose(frame_id="world"))),
        ("not_unit_quaternion", serialize_message(_pose(w=2.0))),
        ("not_finite", serialize_message(_pose(w=float("nan")))),
        ("wrong_encoding", b"\x00\x07" + serialize_message(_pose())[2:]),
        ("wrong_length", serialize_message(_pose())[:40]),
    ],
)
def test_what_the_decoders_refuse_is_refused(reason: str, raw: bytes) -> None:
    with pytest.raises(InvalidCommandError) as refused:
        cdr.pose(raw)
    assert refused.value.reason == reason


def test_a_gripper_with_another_channel_is_refused() -> None:
    message = JointState(name=["gripper.width_m"], position=[0.1])
    with pytest.raises(InvalidCommandError) as refused:
        cdr.gripper(serialize_message(message))
    assert refused.value.reason == "missing_channel"


def test_joints_of_another_arm_are_refused() -> None:
    with pytest.raises(InvalidCommandError) as refused:
        cdr.joints(serialize_message(JointState(position=[0.0] * 6)))
    assert refused.value.reason == "wrong_length"
