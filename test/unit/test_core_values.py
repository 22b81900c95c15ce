# SPDX-License-Identifier: Apache-2.0
"""Types refuse what no arm can follow; increments, specs and configs round-trip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.geometry import angle_between_rad, offset_pose, pose_increment
from vla_rl_ros.core.spec import ActionSpec, is_open_command
from vla_rl_ros.core.types import ActionChunk, Pose

unit = st.floats(-1.0, 1.0)


@pytest.mark.parametrize(
    ("position", "quat", "reason"),
    [
        ([0.5, 0.0, np.nan], [1, 0, 0, 0], "not_finite"),
        ([0.5, 0.0, np.inf], [1, 0, 0, 0], "not_finite"),
        ([0.5, 0.0], [1, 0, 0, 0], "wrong_length"),
        ([0.5, 0.0, 0.2], [0, 0, 0, 0], "not_unit_quaternion"),
        ([0.5, 0.0, 0.2], [1, 1, 0, 0], "not_unit_quaternion"),
        ([0.5, 0.0, 0.2], [np.nan, 0, 0, 0], "not_finite"),
    ],
)
def test_pose_refuses_bad_values(position: list[float], quat: list[float], reason: str) -> None:
    with pytest.raises(InvalidCommandError) as caught:
        Pose(np.array(position), np.array(quat))
    assert caught.value.reason == reason


def test_pose_arrays_cannot_be_changed() -> None:
    pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="read-only"):
        pose.position_m[0] = 1.0


@given(st.lists(unit, min_size=3, max_size=3), st.lists(unit, min_size=3, max_size=3))
def test_increment_and_offset_are_inverse(translation: list[float], rotvec: list[float]) -> None:
    anchor = Pose(
        np.array([0.4, 0.1, 0.3]), np.asarray(Rotation.from_rotvec([0.3, -2.0, 0.4]).as_quat())
    )
    target = offset_pose(anchor, np.array(translation), np.array(rotvec))
    back_translation, back_rotvec = pose_increment(target, anchor)
    assert np.allclose(back_translation, translation, atol=1e-9)
    assert np.allclose(back_rotvec, rotvec, atol=1e-9)


def test_angle_ignores_the_sign_of_a_quaternion() -> None:
    quat = np.asarray(Rotation.from_rotvec([0.1, 0.2, 0.3]).as_quat())
    assert angle_between_rad(quat, -quat) < 1e-9


@given(st.lists(unit, min_size=7, max_size=7))
def test_action_scaling_round_trips(values: list[float]) -> None:
    spec = ActionSpec()
    assert np.allclose(spec.to_normalised(spec.to_si(np.array(values))), values, atol=1e-12)


def test_action_is_clipped_before_scaling_and_the_gripper_has_a_threshold() -> None:
    action = ActionSpec().to_si(np.array([5.0, -5.0, 0.0, 0.0, 0.0, 9.0, -1.0]))
    assert action[:3].tolist() == [0.02, -0.02, 0.0]
    assert action[5] == pytest.approx(0.1)
    assert not is_open_command(action)


def test_chunk_refuses_nan_and_zero_period() -> None:
    good = {"chunk_id": 1, "epoch": 1, "stamp_ns": 0, "delay_ticks": 0}
    with pytest.raises(InvalidCommandError):
        ActionChunk(**good, period_ns=1, actions=np.full((4, 7), np.nan))
    with pytest.raises(InvalidCommandError):
        ActionChunk(**good, period_ns=0, actions=np.zeros((4, 7)))


@dataclass(frozen=True, kw_only=True)
class _Config:
    gain: float = param(1.0, doc="Gain.", unit="N/m", low=0.0, high=2.0)
    mode: str = param("a", doc="Mode.", choices=("a", "b"))

    def __post_init__(self) -> None:
        check_bounds(self)


@pytest.mark.parametrize("bad", [{"gain": 3.0}, {"gain": float("nan")}, {"mode": "c"}])
def test_config_names_the_field_that_is_wrong(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        _Config(**bad)
