# SPDX-License-Identifier: Apache-2.0
"""An action chunk as one trajectory message and back: what `vla_inference` promises the actor.

Owns the layout of ``policy/chunk``. `vla_inference` encodes, `residual_actor` decodes; a chunk is
valid as a whole or refused.
"""

from __future__ import annotations

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.spec import ACTION_CHANNELS, ACTION_DIM
from vla_rl_ros.core.types import BASE_FRAME, ActionChunk, Mode
from vla_rl_ros.ros.channels import NS_PER_S, from_stamp, to_stamp
from vla_rl_ros.ros.codecs import require_frame

CHUNK_CHANNELS = ("chunk.id", "chunk.epoch", "chunk.delay_ticks", "chunk.mode")
MODES = tuple(Mode)


def encode_chunk(chunk: ActionChunk) -> JointTrajectory:
    """Action chunk; id, epoch, delay and mode (index in `MODES`) are channels of every point."""
    message = JointTrajectory(joint_names=[*ACTION_CHANNELS, *CHUNK_CHANNELS])
    message.header.stamp = to_stamp(chunk.stamp_ns)
    message.header.frame_id = BASE_FRAME
    tail = [
        float(chunk.chunk_id),
        float(chunk.epoch),
        float(chunk.delay_ticks),
        float(MODES.index(chunk.mode)),
    ]
    points = []
    for index, action in enumerate(chunk.actions):
        point = JointTrajectoryPoint(positions=[*action.tolist(), *tail])
        offset_ns = index * chunk.period_ns
        point.time_from_start.sec = offset_ns // NS_PER_S
        point.time_from_start.nanosec = offset_ns % NS_PER_S
        points.append(point)
    message.points = points
    return message


def decode_chunk(message: JointTrajectory, period_ns: int) -> ActionChunk:
    """Inverse of `encode_chunk`.

    Args:
        message: The message.
        period_ns: Control period the receiver runs at; a chunk of another period is refused.

    Raises:
        InvalidCommandError: ``wrong_frame``, ``unknown_channel``, ``wrong_length``,
            ``not_finite``, ``bad_value`` or ``bad_period``.
    """
    require_frame(message.header.frame_id)
    if tuple(message.joint_names) != (*ACTION_CHANNELS, *CHUNK_CHANNELS):
        raise InvalidCommandError("unknown_channel", ", ".join(message.joint_names))
    width = ACTION_DIM + len(CHUNK_CHANNELS)
    if not message.points or any(len(p.positions) != width for p in message.points):
        raise InvalidCommandError("wrong_length", f"{len(message.points)} points")
    for index, point in enumerate(message.points):
        offset_ns = point.time_from_start.sec * NS_PER_S + point.time_from_start.nanosec
        if abs(offset_ns - index * period_ns) > 1_000:
            raise InvalidCommandError("bad_period", f"point {index} at {offset_ns} ns")
    rows = np.array([point.positions for point in message.points], dtype=np.float64)
    tail = rows[0, ACTION_DIM:]
    if not np.isfinite(tail).all():
        raise InvalidCommandError("not_finite", "chunk id, epoch, delay or mode")
    if tail[3] not in range(len(MODES)):
        raise InvalidCommandError("bad_value", f"chunk.mode = {tail[3]}")
    return ActionChunk(
        chunk_id=int(tail[0]),
        epoch=int(tail[1]),
        stamp_ns=from_stamp(message.header.stamp),
        period_ns=period_ns,
        delay_ticks=int(tail[2]),
        actions=rows[:, :ACTION_DIM],
        mode=MODES[int(tail[3])],
    )
