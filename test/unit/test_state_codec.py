# SPDX-License-Identifier: Apache-2.0
"""The state vector a model gets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.policies.state_codec import KNOWN_CHANNELS, StateCodec

ROTATION = Rotation.from_euler("xyz", [2.9, 0.1, -0.4])
STATE = np.arange(20) * 0.01
STATE[3:7] = ROTATION.as_quat()
STATE[19] = 0.02
JOINTS_RAD = np.linspace(-1.0, 1.0, 7)


def observation(state: np.ndarray = STATE, joint_rad: np.ndarray | None = JOINTS_RAD):
    return PolicyObservation(
        stamp_ns=0, images={}, state=state, instruction="", task="", joint_rad=joint_rad
    )


def test_measured_channels_pass_as_they_are_in_any_order() -> None:
    names = tuple(reversed(STATE_CHANNELS))
    assert np.array_equal(StateCodec(names).encode(observation()), STATE[::-1])


def test_two_columns_of_the_matrix_column_by_column() -> None:
    codec = StateCodec([f"tcp.r6d_{i}" for i in range(6)])
    matrix = ROTATION.as_matrix()
    wanted = [*matrix[:, 0], *matrix[:, 1]]
    np.testing.assert_allclose(codec.encode(observation()), wanted, atol=1e-12)


def test_rotation_vector_and_gripper_conventions() -> None:
    codec = StateCodec(
        [f"tcp.r{axis}_rad" for axis in "xyz"]
        + [f"gripper.{name}" for name in ("open", "closed", "left_m", "right_m")]
    )
    wanted = [*ROTATION.as_rotvec(), 0.25, 0.75, 0.01, -0.01]
    np.testing.assert_allclose(codec.encode(observation()), wanted, atol=1e-12)


def test_joint_angles_are_read_where_asked_for() -> None:
    codec = StateCodec([f"joint.q{i}_rad" for i in range(1, 8)])
    assert codec.needs_joints
    assert np.array_equal(codec.encode(observation()), JOINTS_RAD)
    with pytest.raises(InvalidCommandError, match="missing_joints"):
        codec.encode(observation(joint_rad=None))
    assert not StateCodec(["tcp.x_m"]).needs_joints
    StateCodec(["tcp.x_m"]).encode(observation(joint_rad=None))


def test_every_number_is_standardised() -> None:
    codec = StateCodec(["gripper.width_m", "tcp.x_m"], mean=[0.04, 1.0], std=[0.02, 4.0])
    assert codec.dim == 2
    np.testing.assert_allclose(codec.encode(observation()), [-1.0, -0.25], atol=1e-12)


def test_every_known_channel_can_be_encoded() -> None:
    assert np.isfinite(StateCodec(KNOWN_CHANNELS).encode(observation())).all()
    assert len(set(KNOWN_CHANNELS)) == len(KNOWN_CHANNELS)


@pytest.mark.parametrize(
    ("state", "joint_rad", "reason"),
    [
        (np.full(20, np.nan), JOINTS_RAD, "not_finite"),
        (np.zeros(19), JOINTS_RAD, "wrong_length"),
        (STATE, np.zeros(6), "wrong_length"),
        (STATE, np.full(7, np.inf), "not_finite"),
        (np.zeros(20), JOINTS_RAD, "not_unit_quaternion"),
    ],
)
def test_a_malformed_observation_is_refused(state, joint_rad, reason: str) -> None:
    codec = StateCodec(["tcp.x_m", "tcp.r6d_0", "joint.q1_rad"])
    with pytest.raises(InvalidCommandError, match=reason):
        codec.encode(observation(state, joint_rad))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"channels": ["tcp.height"]}, "'tcp.height' is unknown; known: tcp.x_m"),
        ({"channels": ["tcp.x_m"], "mean": [0.0, 1.0]}, r"state\.mean needs 1"),
        ({"channels": ["tcp.x_m"], "std": [np.nan]}, r"state\.std needs 1 finite"),
        ({"channels": ["tcp.x_m"], "std": [-1.0]}, "must be positive"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        StateCodec(**arguments)
