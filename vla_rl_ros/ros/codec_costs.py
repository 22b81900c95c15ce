# SPDX-License-Identifier: Apache-2.0
"""What it costs to make a message, send it and read it, per type; called by `bench latency`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.intervention import ExecutedAction, PolicyAction, Source
from vla_rl_ros.core.spec import ACTION_DIM, STATE_DIM
from vla_rl_ros.core.types import ActionChunk, Pose
from vla_rl_ros.hardware.frame_pattern import draw_pattern
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.ros import action_codecs, codecs
from vla_rl_ros.ros.chunk_codec import decode_chunk, encode_chunk
from vla_rl_ros.ros.episode_codec import decode_episode, encode_episode

_STAMP_NS = 1_700_000_000_123_456_789
_PERIOD_NS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecCost:
    """Median times of one message type, microseconds.

    Attributes:
        message: What is sent.
        num_bytes: Size on the wire.
        encode_us: Value to message object.
        serialize_us: Message object to bytes.
        deserialize_us: Bytes to message object.
        decode_us: Message object to checked value.
    """

    message: str
    num_bytes: int
    encode_us: float
    serialize_us: float
    deserialize_us: float
    decode_us: float


def codec_costs(image_px: int, horizon: int, repetitions: int) -> list[CodecCost]:
    """Measure every message between camera and arm in this process.

    Args:
        image_px: Width and height of the image.
        horizon: Elements of the chunk.
        repetitions: Of each step; the median counts.
    """
    rng = np.random.default_rng(0)
    rgb = draw_pattern(1, image_px, image_px)
    pose = Pose(np.array([0.5, 0.0, 0.25]), np.array([1.0, 0.0, 0.0, 0.0]))
    base, zeros = 0.01 * rng.standard_normal(ACTION_DIM), np.zeros(ACTION_DIM)
    chunk = ActionChunk(
        chunk_id=1,
        epoch=1,
        stamp_ns=_STAMP_NS,
        period_ns=_PERIOD_NS,
        delay_ticks=1,
        actions=0.01 * rng.standard_normal((horizon, ACTION_DIM)),
    )
    action = PolicyAction(
        stamp_ns=_STAMP_NS, epoch=1, chunk_id=1, chunk_step=1, delay_ticks=1,
        base=base, residual=zeros,
    )  # fmt: skip
    executed = ExecutedAction(
        stamp_ns=_STAMP_NS, epoch=1, source=Source.VLA, executed=base, base=base, residual=zeros,
        chunk_id=1, chunk_step=1,
    )  # fmt: skip
    seen, episode = ActorObservationSpec(feature_dim=64, tower_hash="0" * 16), EpisodeState()
    vector = seen.vector(rng.standard_normal(STATE_DIM), 0.5, rng.standard_normal(64))
    cases: list[tuple[str, Callable[[], Any], Callable[[Any], object]]] = [
        ("image", lambda: codecs.encode_image(rgb, _STAMP_NS, "camera"), codecs.decode_image),
        (
            "chunk",
            lambda: encode_chunk(chunk),
            lambda message: decode_chunk(message, _PERIOD_NS),
        ),
        (
            "policy_action",
            lambda: action_codecs.encode_policy_action(action),
            action_codecs.decode_policy_action,
        ),
        (
            "executed_action",
            lambda: action_codecs.encode_executed(executed),
            action_codecs.decode_executed,
        ),
        (
            "observation",
            lambda: action_codecs.encode_observation(seen, vector, _STAMP_NS),
            action_codecs.decode_observation,
        ),
        ("pose", lambda: codecs.encode_pose(pose, _STAMP_NS), codecs.decode_pose),
        ("episode", lambda: encode_episode(episode, _STAMP_NS), decode_episode),
    ]
    return [_cost(name, encode, decode, repetitions) for name, encode, decode in cases]


def _cost(
    name: str, encode: Callable[[], Any], decode: Callable[[Any], object], repetitions: int
) -> CodecCost:
    message = encode()
    wire = serialize_message(message)
    kind = type(message)
    return CodecCost(
        message=name,
        num_bytes=len(wire),
        encode_us=_median_us(encode, repetitions),
        serialize_us=_median_us(lambda: serialize_message(message), repetitions),
        deserialize_us=_median_us(lambda: deserialize_message(wire, kind), repetitions),
        decode_us=_median_us(lambda: decode(message), repetitions),
    )


def _median_us(function: Callable[[], object], repetitions: int) -> float:
    times_s = []
    for _ in range(repetitions):
        begin_s = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - begin_s)
    return 1e6 * float(np.median(times_s))
