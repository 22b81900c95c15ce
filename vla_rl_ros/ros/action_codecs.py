# SPDX-License-Identifier: Apache-2.0
"""Messages of a tick: features, observation, action, what was executed, and the path for rviz."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction, PolicyAction, Source
from vla_rl_ros.core.spec import ACTION_CHANNELS
from vla_rl_ros.core.types import BASE_FRAME, ActionChunk, FloatArray, Pose
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.ros.channels import decode_channels, encode_channels, from_stamp, to_stamp
from vla_rl_ros.ros.codecs import encode_pose, require_frame

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What the actor saw at one tick.

    Attributes:
        stamp_ns: Stamp of the tick.
        names: Of the channels, length O.
        version: `ActorObservationSpec.version` of what made it.
        vector: float32, shape (O,).
    """

    stamp_ns: int
    names: tuple[str, ...]
    version: str
    vector: Float32Array


def encode_observation(
    spec: ActorObservationSpec, vector: Float32Array, stamp_ns: int
) -> JointState:
    """Observation of a tick, shape (O,); the frame is the version of the channels' meaning."""
    channels = dict(zip(spec.names, vector.tolist(), strict=True))
    return encode_channels(channels, stamp_ns, spec.version)


def decode_observation(message: JointState) -> Seen:
    """Inverse of `encode_observation`; float32 values come back bit for bit.

    Raises:
        InvalidCommandError: ``wrong_length``, ``duplicate_channel``, ``not_finite``, or
            ``wrong_frame`` where the version is missing.
    """
    if not message.header.frame_id:
        raise InvalidCommandError("wrong_frame", "an observation without its version")
    names = tuple(message.name)
    channels = decode_channels(message, names)
    return Seen(
        stamp_ns=from_stamp(message.header.stamp),
        names=names,
        version=message.header.frame_id,
        vector=_float32(channels[name] for name in names),
    )


def encode_features(features: Float32Array, tower_hash: str, stamp_ns: int) -> JointState:
    """Image features of an inference, shape (F,); the frame is the hash of what made them.

    Args:
        features: Empty for a policy without features.
        tower_hash: Of the vision tower; empty for none.
        stamp_ns: Stamp of the observation, which is that of the chunk.
    """
    channels = {f"feature.{index}": value for index, value in enumerate(features.tolist())}
    return encode_channels(channels, stamp_ns, tower_hash)


def decode_features(message: JointState) -> tuple[int, str, Float32Array]:
    """Stamp, tower hash and features; inverse of `encode_features`.

    Raises:
        InvalidCommandError: As `decode_observation`; ``unknown_channel`` for another order.
    """
    names = tuple(message.name)
    channels = decode_channels(message, names)
    if names != tuple(f"feature.{index}" for index in range(len(names))):
        raise InvalidCommandError("unknown_channel", "features are not numbered from 0")
    if bool(names) != bool(message.header.frame_id):
        raise InvalidCommandError("wrong_frame", "features and the hash of their tower differ")
    values = _float32(channels.values())
    return from_stamp(message.header.stamp), message.header.frame_id, values


def action_channels(prefix: str, action: FloatArray) -> dict[str, float]:
    """Channels ``<prefix>.<channel>`` of a 7-element action."""
    pairs = zip(ACTION_CHANNELS, action.tolist(), strict=True)
    return {f"{prefix}.{channel}": value for channel, value in pairs}


def action_from_channels(prefix: str, channels: dict[str, float]) -> FloatArray:
    """Inverse of `action_channels`, shape (7,)."""
    return np.array([channels[f"{prefix}.{channel}"] for channel in ACTION_CHANNELS])


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


def _float32(values: Iterable[float]) -> Float32Array:
    with np.errstate(over="ignore"):
        vector = np.array(list(values), dtype=np.float32)
    if not np.isfinite(vector).all():
        raise InvalidCommandError("not_finite", "a value is beyond the range of float32")
    return vector


def _whole(channels: dict[str, float], name: str) -> int:
    value = channels[name]
    if not math.isfinite(value) or value != math.floor(value) or abs(value) > _MAX_INTEGER:
        raise InvalidCommandError("bad_value", f"{name} = {value}")
    return int(value)
