# SPDX-License-Identifier: Apache-2.0
"""The vector that the residual actor sees."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.learning.actor_observation import ActorObservationSpec, no_features, phase_of

STATE = np.arange(20.0)
SPEC = ActorObservationSpec(feature_dim=3, tower_hash="abc")


def test_channels_are_named_in_the_order_of_the_vector() -> None:
    vector = SPEC.vector(STATE, 0.25, [1.0, 2.0, 3.0])
    assert SPEC.names == (*STATE_CHANNELS, "chunk.phase", "feature.0", "feature.1", "feature.2")
    assert len(SPEC.names) == SPEC.dim == len(vector)
    assert vector.dtype == np.float32
    assert vector.tolist() == [*STATE.tolist(), 0.25, 1.0, 2.0, 3.0]


def test_some_channels_of_the_state_in_any_order() -> None:
    spec = ActorObservationSpec(state_channels=("gripper.width_m", "tcp.x_m"))
    assert spec.vector(STATE, 1.0).tolist() == [19.0, 0.0, 1.0]


def test_the_version_changes_with_anything_that_changes_the_meaning() -> None:
    others = (
        ActorObservationSpec(feature_dim=3, tower_hash="abd"),
        ActorObservationSpec(feature_dim=4, tower_hash="abc"),
        ActorObservationSpec(feature_dim=3, tower_hash="abc", state_channels=STATE_CHANNELS[:19]),
        ActorObservationSpec(),
    )
    assert len({SPEC.version, *(other.version for other in others)}) == 5
    assert SPEC.version == ActorObservationSpec(feature_dim=3, tower_hash="abc").version


@pytest.mark.parametrize(
    ("state", "features", "reason"),
    [
        (STATE[:19], [0.0] * 3, "wrong_length"),
        (STATE, [0.0] * 2, "wrong_length"),
        (STATE, None, "wrong_length"),
        (STATE, [0.0, np.nan, 0.0], "not_finite"),
    ],
)
def test_a_malformed_tick_is_refused(
    state: np.ndarray, features: list[float] | None, reason: str
) -> None:
    with pytest.raises(InvalidCommandError) as caught:
        SPEC.vector(state, 0.0, features)
    assert caught.value.reason == reason


def test_features_and_their_hash_come_together() -> None:
    with pytest.raises(ConfigError, match="come together"):
        ActorObservationSpec(feature_dim=3)
    with pytest.raises(ConfigError, match="unknown"):
        ActorObservationSpec(state_channels=("tcp.x",))


def test_nothing_played_has_the_last_phase_and_no_features() -> None:
    assert phase_of(None, 16) == 1.0
    assert phase_of(4, 16) == 0.25
    assert no_features(SPEC).tolist() == [0.0, 0.0, 0.0]
