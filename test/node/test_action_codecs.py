# SPDX-License-Identifier: Apache-2.0
"""Actions, executed ticks and observations survive the wire bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy.serialization as wire
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, PolicyAction, Source
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.ros.action_codecs import (
    decode_executed,
    decode_features,
    decode_observation,
    decode_policy_action,
    encode_executed,
    encode_features,
    encode_observation,
    encode_policy_action,
)

pytestmark = pytest.mark.ros


def test_rows_and_actions_survive_the_wire() -> None:
    rng = np.random.default_rng(3)
    action = PolicyAction(
        stamp_ns=1_700_000_000_123_456_789,
        epoch=3,
        chunk_id=2**40,
        chunk_step=4,
        delay_ticks=2,
        base=rng.normal(size=7),
        residual=rng.normal(size=7),
    )
    data = wire.serialize_message(encode_policy_action(action))
    back = decode_policy_action(wire.deserialize_message(data, JointState))
    assert back.base.tobytes() == action.base.tobytes()
    assert back.residual.tobytes() == action.residual.tobytes()
    assert (back.stamp_ns, back.epoch, back.chunk_id, back.chunk_step, back.delay_ticks) == (
        *(action.stamp_ns, 3, 2**40, 4, 2),
    )
    for source in Source:
        row = ExecutedAction(
            stamp_ns=action.stamp_ns,
            epoch=3,
            source=source,
            executed=rng.normal(size=7),
            base=action.base,
            residual=action.residual,
            chunk_id=1,
            chunk_step=NO_STEP,
        )
        again = decode_executed(encode_executed(row))
        assert again.executed.tobytes() == row.executed.tobytes()
        assert (again.source, again.chunk_step) == (source, NO_STEP)
        message = encode_executed(row)
        message.position[list(message.name).index("source.human")] = 1.0
        if source is not Source.HUMAN:
            with pytest.raises(InvalidCommandError, match="2 sources"):
                decode_executed(message)


def test_observation_survives_the_wire() -> None:
    rng = np.random.default_rng(4)
    spec = ActorObservationSpec(feature_dim=3, tower_hash="abc")
    vector = spec.vector(rng.normal(size=20), 0.25, rng.normal(size=3))
    message = encode_observation(spec, vector, 5)
    seen = decode_observation(message)
    assert (seen.stamp_ns, seen.names, seen.version) == (5, spec.names, spec.version)
    assert seen.vector.tobytes() == vector.tobytes()
    message.header.frame_id = ""
    with pytest.raises(InvalidCommandError, match="wrong_frame"):
        decode_observation(message)


@pytest.mark.parametrize("width", [0, 5])
def test_features_survive_the_wire_and_bring_the_hash_of_their_tower(width: int) -> None:
    features = np.random.default_rng(1).normal(size=width).astype(np.float32)
    message = encode_features(features, "abc" if width else "", 7)
    stamp_ns, tower_hash, again = decode_features(message)
    assert (stamp_ns, tower_hash) == (7, "abc" if width else "")
    assert again.tobytes() == features.tobytes()
    message.header.frame_id = "" if width else "abc"
    with pytest.raises(InvalidCommandError, match="wrong_frame"):
        decode_features(message)


def test_what_float32_cannot_hold_is_refused() -> None:
    spec = ActorObservationSpec()
    seen = encode_observation(spec, spec.vector(np.zeros(20), 0.5), 5)
    features = encode_features(np.zeros(2, np.float32), "abc", 7)
    for message, decode in ((seen, decode_observation), (features, decode_features)):
        message.position[1] = -1e39
        with pytest.raises(InvalidCommandError, match="not_finite"):
            decode(message)


def test_features_out_of_order_are_refused() -> None:
    message = encode_features(np.zeros(2, np.float32), "abc", 7)
    message.name = ["feature.1", "feature.0"]
    with pytest.raises(InvalidCommandError, match="numbered"):
        decode_features(message)
