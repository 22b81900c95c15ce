# SPDX-License-Identifier: Apache-2.0
"""Stamped vectors of named channels on sensor_msgs/JointState, validated in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import InvalidCommandError

NS_PER_S = 1_000_000_000


def to_stamp(stamp_ns: int) -> Time:
    """ROS time message from nanoseconds."""
    return Time(sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)


def from_stamp(stamp: Time) -> int:
    """Nanoseconds from a ROS time message."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def encode_channels(
    channels: Mapping[str, float], stamp_ns: int, frame_id: str = ""
) -> JointState:
    """Pack named values into one stamped message."""
    message = JointState(name=list(channels), position=[float(v) for v in channels.values()])
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    return message


def decode_channels(
    message: JointState, required: Iterable[str], optional: Sequence[str] = ()
) -> dict[str, float]:
    """Unpack a stamped vector of named channels.

    Args:
        message: The message.
        required: Channels that must be present.
        optional: Channels that may be present; any other is refused.

    Returns:
        Channel name to finite value.

    Raises:
        InvalidCommandError: ``wrong_length``, ``duplicate_channel``, ``unknown_channel``,
            ``missing_channel`` or ``not_finite``.
    """
    names, values = list(message.name), list(message.position)
    if len(names) != len(values):
        raise InvalidCommandError("wrong_length", f"{len(names)} names, {len(values)} values")
    if len(set(names)) != len(names):
        raise InvalidCommandError("duplicate_channel", ", ".join(names))
    required = tuple(required)
    unknown = set(names) - set(required) - set(optional)
    if unknown:
        raise InvalidCommandError("unknown_channel", ", ".join(sorted(unknown)))
    missing = set(required) - set(names)
    if missing:
        raise InvalidCommandError("missing_channel", ", ".join(sorted(missing)))
    if not all(math.isfinite(value) for value in values):
        raise InvalidCommandError("not_finite", ", ".join(names))
    return dict(zip(names, values, strict=True))


def check_age(stamp_ns: int, now_ns: int, *, max_age_s: float, max_ahead_s: float) -> None:
    """Refuse a message that is too old or from the future.

    Raises:
        InvalidCommandError: ``stale_stamp`` or ``future_stamp``.
    """
    age_s = (now_ns - stamp_ns) / NS_PER_S
    if age_s > max_age_s:
        raise InvalidCommandError("stale_stamp", f"{age_s:.3f} s old, limit {max_age_s} s")
    if age_s < -max_ahead_s:
        raise InvalidCommandError("future_stamp", f"{-age_s:.3f} s ahead")
