# SPDX-License-Identifier: Apache-2.0
"""Codecs: what a model's numbers mean as increments, and the way back for prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.geometry import offset_pose, pose_increment
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.kinematics import hand_tcp_matrix, matrix_pose
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import Pose
from vla_rl_ros.policies.action_codec import ActionCodec
from vla_rl_ros.policies.manifest import ActionSection
from vla_rl_ros.policies.protocol import PolicyObservation

READY_RAD = np.array([0.1, -0.7, -0.1, -2.3, 0.05, 1.6, 0.7])
MEASURED = matrix_pose(hand_tcp_matrix(READY_RAD))
TARGET = offset_pose(MEASURED, np.array([0.004, -0.003, 0.002]), np.array([0.02, 0.01, -0.03]))

POSE_CODECS = [
    ("relative", "tcp", "rotvec"),
    ("relative", "base", "r6d"),
    ("relative", "tcp", "r6d_rows"),
    ("absolute", "base", "rotvec"),
    ("absolute", "base", "r6d"),
]
DELTA_CODECS = [
    ("delta_measured", "base", "rotvec"),
    ("delta_measured", "tcp", "rotvec"),
    ("delta_target", "base", "r6d"),
    ("delta_target", "tcp", "rotvec"),
    ("delta_target", "tcp", "r6d_rows"),
]
JOINT_CODECS = [("joint", "base", "auto"), ("joint_delta", "base", "auto")]
ALL_CODECS = [*DELTA_CODECS, *POSE_CODECS, *JOINT_CODECS]


def section(codec: str, frame: str = "base", rotation: str = "auto", **changes: object):
    plain = ActionSection(codec=codec, frame=frame, rotation=rotation)
    rng = np.random.default_rng(plain.dim)
    values = {
        "mean": tuple(rng.uniform(-0.2, 0.2, plain.dim)),
        "std": tuple(rng.uniform(0.05, 2.0, plain.dim)),
        **changes,
    }
    return ActionSection(codec=codec, frame=frame, rotation=rotation, **values)


def observation(
    measured: Pose = MEASURED, target: Pose | None = TARGET, joint_rad: object = READY_RAD
) -> PolicyObservation:
    state = np.zeros(20)
    state[:3], state[3:7] = measured.position_m, measured.quat_xyzw
    return PolicyObservation(
        stamp_ns=0,
        images={},
        state=state,
        instruction="",
        task="",
        joint_rad=joint_rad,
        target=target,
    )


def increments(seed: int, num: int, angle_rad: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    actions = np.zeros((num, 7))
    actions[:, :3] = rng.uniform(-0.02, 0.02, (num, 3))
    axes = rng.normal(size=(num, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    actions[:, 3:6] = axes * rng.uniform(0.0, angle_rad, (num, 1))
    actions[:, 6] = rng.uniform(0.0, 1.0, num)
    return actions


def follow(start: Pose, actions: np.ndarray) -> list[Pose]:
    """What the gate makes of increments on the last target, one by one."""
    poses = [start]
    for action in actions:
        poses.append(offset_pose(poses[-1], action[:3], action[3:6]))
    return poses


@given(
    st.sampled_from([*DELTA_CODECS, *POSE_CODECS]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 24),
    st.sampled_from([0.0, 1e-9, 0.1, 3.1415]),
)
def test_increments_come_back_from_the_model_space(
    kind: tuple[str, str, str], seed: int, num: int, angle_rad: float
) -> None:
    codec, actions = ActionCodec(section(*kind)), increments(seed, num, angle_rad)
    rng = np.random.default_rng(seed)
    pose = Pose(rng.uniform(-0.5, 0.5, 3), Rotation.random(random_state=seed).as_quat())
    seen = observation(pose, offset_pose(pose, rng.normal(0, 0.01, 3), rng.normal(0, 0.05, 3)))
    rows = codec.encode(actions, seen)
    assert rows.shape == (num, codec.dim)
    np.testing.assert_allclose(codec.decode(rows, seen), actions, atol=1e-9)


@given(st.sampled_from(JOINT_CODECS), st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_increments_come_back_from_joint_angles(
    kind: tuple[str, str, str], seed: int, num: int
) -> None:
    codec, actions = ActionCodec(section(*kind)), increments(seed, num, 0.05)
    rows = codec.encode(actions, observation())
    np.testing.assert_allclose(codec.decode(rows, observation()), actions, atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_joint_targets_are_met_whatever_tool_the_robot_is_set_to(seed: int) -> None:
    rng = np.random.default_rng(seed)
    joint_rad = READY_RAD + rng.uniform(-0.2, 0.2, (5, 7))
    longer = offset_pose(MEASURED, np.array([0.0, 0.0, -0.05]), np.zeros(3))
    codec = ActionCodec(ActionSection(codec="joint"))
    rows = np.concatenate([joint_rad, np.ones((5, 1))], axis=1)
    for measured, length_m in ((MEASURED, 0.0), (longer, 0.05)):
        reached = follow(TARGET, codec.decode(rows, observation(measured)))[1:]
        # 5 cm further along the hand's axis, which points down where the tool was measured.
        tool_axis = Rotation.from_quat(MEASURED.quat_xyzw).inv().apply([0.0, 0.0, -length_m])
        for pose, joints_i in zip(reached, joint_rad, strict=True):
            hand = hand_tcp_matrix(joints_i)
            wanted = hand[:3, 3] + hand[:3, :3] @ tool_axis
            np.testing.assert_allclose(pose.position_m, wanted, atol=1e-9)


@pytest.mark.parametrize("kind", POSE_CODECS)
@pytest.mark.parametrize("num_locked", [0, 1, 4, 12])
@pytest.mark.parametrize("conditioning", Conditioning)
def test_the_executed_path_meets_the_predicted_poses_after_any_prefix(
    kind: tuple[str, str, str], num_locked: int, conditioning: Conditioning
) -> None:
    codec = ActionCodec(section(*kind))
    meant = increments(3, 12, 0.1)
    rows = codec.encode(meant, observation())
    promised = increments(4, num_locked, 0.1)
    prefix = Prefix(actions=promised, num_locked=num_locked, conditioning=conditioning)
    actions = codec.decode(rows, observation(), prefix)
    assert np.array_equal(actions[:num_locked], promised)
    executed, wanted = follow(TARGET, actions), follow(TARGET, meant)
    for i in range(num_locked + 1, 13):
        translation, rotvec = pose_increment(executed[i], wanted[i])
        assert np.abs([*translation, *rotvec]).max() < 1e-9


@pytest.mark.parametrize("kind", [*DELTA_CODECS, *JOINT_CODECS])
def test_locked_rows_come_back_bit_for_bit(kind: tuple[str, str, str]) -> None:
    codec, promised = ActionCodec(section(*kind)), increments(5, 6, 0.05)
    prefix = Prefix(actions=promised, num_locked=3, conditioning=Conditioning.LOCK)
    rows = codec.encode(promised, observation())
    decoded = codec.decode(rows, observation(), prefix)
    assert np.array_equal(decoded[:3], promised[:3])
    np.testing.assert_allclose(decoded[3:], promised[3:], atol=1e-9)


@pytest.mark.parametrize("kind", [*DELTA_CODECS, JOINT_CODECS[1]])
@pytest.mark.parametrize("conditioning", [Conditioning.NONE, Conditioning.GUIDE])
def test_increments_stay_the_models_own_where_nothing_is_locked(
    kind: tuple[str, str, str], conditioning: Conditioning
) -> None:
    codec = ActionCodec(section(*kind))
    rows = codec.encode(increments(5, 6, 0.05), observation())
    prefix = Prefix(actions=increments(8, 6, 0.05), num_locked=3, conditioning=conditioning)
    free = codec.decode(rows, observation())
    assert np.array_equal(codec.decode(rows, observation(), prefix), free)


def test_relative_poses_are_seen_from_the_measured_tcp() -> None:
    # UMI: 10 cm along the tool's own axis, which points down.
    down = Pose(np.array([0.5, 0.1, 0.4]), np.array([1.0, 0.0, 0.0, 0.0]))
    codec = ActionCodec(ActionSection(codec="relative", frame="tcp"))
    rows = np.array([[0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 1.0]])
    action = codec.decode(rows, observation(down, down))[0]
    np.testing.assert_allclose(action, [0, 0, -0.1, 0, 0, 0, 1], atol=1e-12)


def test_increments_in_the_hands_axes_turn_with_the_hand() -> None:
    down = Pose(np.array([0.5, 0.1, 0.4]), np.array([1.0, 0.0, 0.0, 0.0]))
    codec = ActionCodec(ActionSection(codec="delta_target", frame="tcp"))
    quarter = 0.5 * np.pi
    rows = np.array([[0, 0, 0.1, 0, 0, quarter, 1.0], [0.1, 0, 0, 0, 0, 0, 1.0]])
    actions = codec.decode(rows, observation(down, down))
    np.testing.assert_allclose(actions[0], [0, 0, -0.1, 0, 0, -quarter, 1], atol=1e-12)
    np.testing.assert_allclose(actions[1], [0, -0.1, 0, 0, 0, 0, 1], atol=1e-12)


def test_the_first_row_starts_at_the_target_or_where_the_arm_stands() -> None:
    codec = ActionCodec(ActionSection(codec="absolute"))
    rotvec = Rotation.from_quat(TARGET.quat_xyzw).as_rotvec()
    rows = np.array([[*TARGET.position_m, *rotvec, 1.0]])
    on_target = codec.decode(rows, observation())
    np.testing.assert_allclose(on_target[0, :6], np.zeros(6), atol=1e-12)
    from_rest = codec.decode(rows, observation(target=None))
    np.testing.assert_allclose(from_rest[0, :3], TARGET.position_m - MEASURED.position_m)


@pytest.mark.parametrize(
    ("codec", "anchor"),
    [
        ("delta_measured", Anchor.MEASURED),
        ("delta_target", Anchor.LAST_TARGET),
        ("relative", Anchor.LAST_TARGET),
        ("absolute", Anchor.LAST_TARGET),
        ("joint", Anchor.LAST_TARGET),
        ("joint_delta", Anchor.MEASURED),
    ],
)
def test_every_codec_says_what_the_gate_adds_to(codec: str, anchor: Anchor) -> None:
    assert ActionCodec(ActionSection(codec=codec)).anchor is anchor


@pytest.mark.parametrize(
    ("changes", "value", "is_open"),
    [
        ({}, 0.7, 0.7),
        ({}, 1.7, 1.0),
        ({"gripper": "binary"}, 0.7, 1.0),
        ({"gripper": "binary"}, 0.2, 0.0),
        ({"gripper_open": 0.08}, 0.02, 0.25),
        ({"gripper_open": 0.0, "gripper_closed": 1.0}, 0.9, 0.1),
        ({"gripper_open": -1.0, "gripper_closed": 1.0, "gripper": "binary"}, -0.8, 1.0),
    ],
)
def test_the_gripper_of_every_convention_becomes_an_open_fraction(
    changes: dict[str, object], value: float, is_open: float
) -> None:
    codec = ActionCodec(ActionSection(codec="delta_measured", **changes))
    rows = np.array([[0.0] * 6 + [value]])
    assert codec.decode(rows, observation())[0, 6] == pytest.approx(is_open)


def test_normalisation_is_undone_before_anything_else() -> None:
    scaled = ActionSection(codec="delta_target", mean=(0.1,) * 7, std=(0.5,) * 7)
    actions = ActionCodec(scaled).decode(np.full((1, 7), 0.4), observation())
    assert actions[0] == pytest.approx(np.full(7, 0.3))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.zeros((4, 6)), "wrong_length"),
        (np.zeros((4, 32)), "wrong_length"),
        (np.zeros(7), "wrong_length"),
        (np.full((4, 7), np.nan), "not_finite"),
    ],
)
def test_an_answer_that_is_no_chunk_is_refused(rows: np.ndarray, reason: str) -> None:
    with pytest.raises(InvalidCommandError, match=reason):
        ActionCodec(ActionSection(codec="delta_measured")).decode(rows, observation())


def test_two_parallel_axes_are_no_rotation() -> None:
    row = np.array([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0]])
    with pytest.raises(InvalidCommandError, match="no_rotation"):
        ActionCodec(ActionSection(codec="absolute", rotation="r6d")).decode(row, observation())


def test_joint_codecs_need_joint_angles() -> None:
    codec = ActionCodec(ActionSection(codec="joint"))
    assert codec.needs_joints
    with pytest.raises(InvalidCommandError, match="missing_joints"):
        codec.decode(np.zeros((1, 8)), observation(joint_rad=None))


def test_inputs_stay_as_they_are() -> None:
    codec, promised = ActionCodec(section("absolute", "base", "r6d")), increments(6, 5, 0.1)
    rows = codec.encode(promised, observation())
    before = rows.copy(), promised.copy()
    prefix = Prefix(actions=promised, num_locked=2, conditioning=Conditioning.LOCK)
    codec.decode(rows, observation(), prefix)
    assert np.array_equal(rows, before[0])
    assert np.array_equal(promised, before[1])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"codec": "velocity"}, "codec"),
        ({"codec": "absolute", "frame": "tcp"}, "frame"),
        ({"codec": "joint", "frame": "tcp"}, "frame"),
        ({"codec": "joint", "mean": (0.0,) * 7}, "mean"),
        ({"codec": "relative", "rotation": "rotvec", "std": (1.0,) * 10}, "rotation"),
        ({"codec": "relative", "mean": (0.0,) * 7, "std": (1.0,) * 6}, "std"),
        ({"codec": "relative", "std": (0.0,) * 7}, "std"),
        ({"codec": "relative", "gripper_open": 0.0}, "gripper_open"),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(
    values: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        ActionSection(**values)
