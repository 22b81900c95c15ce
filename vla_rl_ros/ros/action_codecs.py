# SPDX-License-Identifier: Apache-2.0
"""Messages of a tick: `policy/observation`, `policy/action`, `action/executed`, `policy/path`."""

from __future__ import annotations

import math

from nav_msgs.msg import Path
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction, PolicyAction, Source
from vla_rl_ros.core.spec import ACTION_CHANNELS, STATE_CHANNELS
from vla_rl_ros.core.types import BASE_FRAME, ActionChunk, FloatArray, Pose, finite_array
from vla_rl_ros.ros.channels import decode_channels, encode_channels, from_stamp, to_stamp
from vla_rl_ros.ros.codecs import (
    action_channels,
    action_from_channels,
    encode_pose,
    require_frame,
)

SOURCE_CHANNELS = tuple(f"source.{source.value}" for source in Source)
_CHUNK = ("chunk.id", "chunk.step", "chunk.epoch")
POLICY_ACTION_CHANNELS = (
    *(f"base.{channel}" for channel in ACTION_CHANNELS),
    *(f"residual.{channel}" for channel in ACTION_CHANNELS),
    *_CHUNK,
    "chunk.delay_ticks",
)
EXECUTED_CHANNELS = (
    *(f"executed.{channel}" for channel in ACTION_CHANNELS),
    *(f"base.{channel}" for channel in ACTION_CHANNELS),
    *(f"residual.{channel}" for channel in ACTION_CHANNELS),
    *SOURCE_CHANNELS,
    *_CHUNK,
)
_MAX_INTEGER = 2.0**53


def encode_observation(state: FloatArray, stamp_ns: int) -> JointState:
    """State the actor saw, shape (20,), in the order of `STATE_CHANNELS`."""
    channels = dict(zip(STATE_CHANNELS, state.tolist(), strict=True))
    return encode_channels(channels, stamp_ns, BASE_FRAME)


def decode_observation(message: JointState) -> FloatArray:
    """Inverse of `encode_observation`."""
    channels = decode_channels(message, STATE_CHANNELS)
    values = [channels[name] for name in STATE_CHANNELS]
    return finite_array(values, (len(STATE_CHANNELS),), "state")


def encode_policy_action(action: PolicyAction) -> JointState:
    """Proposal of the actor for one tick; the stamp is that of the tick."""
    channels = {
        **action_channels("base", action.base),
        **action_channels("residual", action.residual),
        "chunk.id": float(action.chunk_id),
        "chunk.step": float(action.chunk_step),
        "chunk.epoch": float(action.epoch),
        "chunk.delay_ticks": float(action.delay_ticks),
    }
    return encode_channels(channels, action.stamp_ns, BASE_FRAME)


def decode_policy_action(message: JointState) -> PolicyAction:
    """Inverse of `encode_policy_action`.

    Raises:
        InvalidCommandError: ``wrong_frame``, ``wrong_length``, ``duplicate_channel``,
            ``unknown_channel``, ``missing_channel``, ``not_finite`` or ``bad_value``.
    """
    require_frame(message.header.frame_id)
    channels = decode_channels(message, POLICY_ACTION_CHANNELS)
    return PolicyAction(
        stamp_ns=from_stamp(message.header.stamp),
        epoch=_whole(channels, "chunk.epoch"),
        chunk_id=_whole(channels, "chunk.id"),
        chunk_step=_whole(channels, "chunk.step"),
        delay_ticks=_whole(channels, "chunk.delay_ticks"),
        base=action_from_channels("base", channels),
        residual=action_from_channels("residual", channels),
    )


def encode_executed(executed: ExecutedAction) -> JointState:
    """What was done in one tick; the stamp is that of the tick."""
    channels = {
        **action_channels("executed", executed.executed),
        **action_channels("base", executed.base),
        **action_channels("residual", executed.residual),
        **{f"source.{source.value}": float(source is executed.source) for source in Source},
        "chunk.id": float(executed.chunk_id),
        "chunk.step": float(executed.chunk_step),
        "chunk.epoch": float(executed.epoch),
    }
    return encode_channels(channels, executed.stamp_ns, BASE_FRAME)


def decode_executed(message: JointState) -> ExecutedAction:
    """Inverse of `encode_executed`, without the names of limits.

    Raises:
        InvalidCommandError: As `decode_policy_action`; ``bad_value`` unless exactly one source
            is set.
    """
    require_frame(message.header.frame_id)
    channels = decode_channels(message, EXECUTED_CHANNELS)
    sources = [source for source in Source if channels[f"source.{source.value}"] > 0.5]
    if len(sources) != 1:
        raise InvalidCommandError("bad_value", f"{len(sources)} sources")
    return ExecutedAction(
        stamp_ns=from_stamp(message.header.stamp),
        epoch=_whole(channels, "chunk.epoch"),
        source=sources[0],
        executed=action_from_channels("executed", channels),
        base=action_from_channels("base", channels),
        residual=action_from_channels("residual", channels),
        chunk_id=_whole(channels, "chunk.id"),
        chunk_step=_whole(channels, "chunk.step"),
    )


def encode_path(chunk: ActionChunk, poses: list[Pose]) -> Path:
    """Poses of a chunk as a path, one period apart from the chunk's stamp on."""
    stamps = (chunk.stamp_ns + index * chunk.period_ns for index in range(len(poses)))
    path = Path(
        poses=[encode_pose(p, stamp_ns) for p, stamp_ns in zip(poses, stamps, strict=True)]
    )
    path.header.stamp = to_stamp(chunk.stamp_ns)
    path.header.frame_id = BASE_FRAME
    return path


def _whole(channels: dict[str, float], name: str) -> int:
    value = channels[name]
    if not math.isfinite(value) or value != math.floor(value) or abs(value) > _MAX_INTEGER:
        raise InvalidCommandError("bad_value", f"{name} = {value}")
    return int(value)
