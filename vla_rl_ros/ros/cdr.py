# SPDX-License-Identifier: Apache-2.0
"""Values of stamped messages straight from their bytes, without making the messages.

A node that samples proprioception looks at a dozen messages per tick, on the way of an image to
the arm. Making message objects of them costs more than everything else of such a read: measured
in the running graph, 1.2 of 1.7 ms. Used by the readers of `state_reader`; what the functions
accept and refuse is what the decoders of the same name in `codecs` do.

Layout: plain Common Data Representation, version 1 (OMG DDS-XTypes 1.3, 7.4.1): four bytes that
name the encoding, then the fields in order, each aligned to its size as counted from the fifth
byte. A string is its length, which includes the closing zero, and its bytes.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray, GripperState, Pose, finite_array
from vla_rl_ros.ros.channels import NS_PER_S, decode_channels
from vla_rl_ros.ros.codecs import GRIPPER_CHANNELS, NUM_JOINTS, require_frame

_ORIGIN = 4
_BYTE_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}


class _Named(NamedTuple):
    """The part of a JointState that carries named values."""

    name: list[str]
    position: list[float]


def stamp_ns(raw: bytes) -> int:
    """Time of a serialised message that begins with a ``std_msgs/Header``, nanoseconds.

    Raises:
        InvalidCommandError: ``wrong_encoding`` or ``wrong_length``.
    """
    sec, nanosec = _unpack(f"{_byte_order(raw)}iI", raw, _ORIGIN)
    return int(sec) * NS_PER_S + int(nanosec)


def pose(raw: bytes) -> Pose:
    """Pose of a serialised PoseStamped in the base frame; raises as `codecs.decode_pose`."""
    values = _stamped_doubles(raw, 7)
    return Pose(np.array(values[:3]), np.array(values[3:]))


def six(raw: bytes) -> tuple[float, ...]:
    """Six numbers of a serialised TwistStamped or WrenchStamped in the base frame.

    Linear before angular, force before torque. Raises as `codecs.decode_twist`.
    """
    values = _stamped_doubles(raw, 6)
    if not all(map(math.isfinite, values)):
        raise InvalidCommandError("not_finite", f"{values}")
    return values


def joints(raw: bytes) -> FloatArray:
    """Joint positions, shape (7,), rad, of a serialised JointState; as `codecs.decode_joints`."""
    return finite_array(_named(raw).position, (NUM_JOINTS,), "joints")


def gripper(raw: bytes) -> GripperState:
    """Gripper state of a serialised JointState; raises as `codecs.decode_gripper`."""
    channels = decode_channels(_named(raw), GRIPPER_CHANNELS)
    return GripperState(
        stamp_ns=stamp_ns(raw),
        width_m=channels["gripper.width_m"],
        is_moving=channels["gripper.is_moving"] > 0.5,
        is_grasped=channels["gripper.is_grasped"] > 0.5,
    )


def _byte_order(raw: bytes) -> str:
    order = _BYTE_ORDERS.get(raw[:2])
    if order is None:
        raise InvalidCommandError("wrong_encoding", f"0x{raw[:2].hex()} is not plain CDR")
    return order


def _stamped_doubles(raw: bytes, count: int) -> tuple[float, ...]:
    """The numbers behind a header whose frame is the base frame."""
    order = _byte_order(raw)
    frame_id, end = _text(raw, order, _ORIGIN + 8)
    require_frame(frame_id)
    return _unpack(f"{order}{count}d", raw, _aligned(end, 8))


def _named(raw: bytes) -> _Named:
    order = _byte_order(raw)
    _, at = _text(raw, order, _ORIGIN + 8)
    num_names, at = _length(raw, order, at)
    names = []
    for _ in range(num_names):
        name, at = _text(raw, order, at)
        names.append(name)
    num_positions, at = _length(raw, order, at)
    # An empty sequence of doubles is not padded.
    begin = _aligned(at, 8) if num_positions else at
    return _Named(names, list(_unpack(f"{order}{num_positions}d", raw, begin)))


def _text(raw: bytes, order: str, at: int) -> tuple[str, int]:
    """A string, and where the next field may begin."""
    length, begin = _length(raw, order, at)
    end = begin + length
    # What is no text is no name that anybody expects, and is refused as such.
    return raw[begin : end - 1].decode(errors="replace"), end


def _length(raw: bytes, order: str, at: int) -> tuple[int, int]:
    """Length of a string or sequence, and where its first element may begin."""
    begin = _aligned(at, 4)
    return _unpack(f"{order}I", raw, begin)[0], begin + 4


def _unpack(layout: str, raw: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(layout, raw, at)
    except struct.error as error:
        raise InvalidCommandError("wrong_length", f"{len(raw)} bytes: {error}") from error


def _aligned(at: int, size: int) -> int:
    return at + -(at - _ORIGIN) % size
