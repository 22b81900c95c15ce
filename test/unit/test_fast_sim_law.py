# SPDX-License-Identifier: Apache-2.0
"""The spring of the fast simulator against `core`, and both against SERL's published law."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.geometry import offset_pose, rotation_error_rad
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings, spring_wrench
from vla_rl_ros.core.reference import (
    ReferenceInterpolator,
    ReferenceLimits,
    clip_to_measured,
    limit_target,
)
from vla_rl_ros.core.types import Pose, Twist
from vla_rl_ros.sim.fast_reference import FastReference
from vla_rl_ros.sim.law import TORQUE_LIMITS_NM, ImpedanceLaw
from vla_rl_ros.sim.scene import HOME_Q_RAD, compile_model
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import tcp_pose
from vla_rl_ros.sim.variants import SceneConfig

ASYMMETRIC = ImpedanceSettings(clip_plus_m=(0.004, 0.01, 0.02), clip_minus_m=(0.01, 0.003, 0.008))
LIMITS = ReferenceLimits()


@pytest.fixture(scope="module")
def compiled() -> tuple[mujoco.MjModel, SceneIds]:
    return compile_model(SceneConfig())


def random_pose(rng: np.random.Generator, near: Pose, shift_m: float, turn_rad: float) -> Pose:
    return offset_pose(near, rng.normal(0, shift_m, 3), rng.normal(0, turn_rad, 3))


@pytest.mark.parametrize("settings", [PRESETS["compliant"], PRESETS["precise"], ASYMMETRIC])
def test_torques_of_the_spring_alone_are_exact(
    compiled: tuple[mujoco.MjModel, SceneIds], settings: ImpedanceSettings
) -> None:
    relaxed = dataclasses.replace(
        settings,
        nullspace_stiffness_nm_per_rad=(0.0,) * 7,
        nullspace_damping_nms_per_rad=(0.0,) * 7,
    )
    for torque_nm, jacobian, wrench, _ in law_samples(compiled, relaxed):
        assert torque_nm == pytest.approx(jacobian.T @ wrench, abs=1e-9)


@pytest.mark.parametrize("settings", [PRESETS["compliant"], PRESETS["precise"], ASYMMETRIC])
def test_torques_are_those_of_the_spring_plus_the_null_space(
    compiled: tuple[mujoco.MjModel, SceneIds], settings: ImpedanceSettings
) -> None:
    for torque_nm, jacobian, wrench, posture_nm in law_samples(compiled, settings):
        null_space = np.eye(7) - np.linalg.pinv(jacobian) @ jacobian
        expected = jacobian.T @ wrench + null_space @ posture_nm
        assert torque_nm == pytest.approx(expected, abs=1e-7)


def law_samples(
    compiled: tuple[mujoco.MjModel, SceneIds], settings: ImpedanceSettings
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Torque of the law, Jacobian, wrench by `core`, posture torque; at random states."""
    model, ids = compiled
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    law = ImpedanceLaw(model, data, ids, settings)
    reference = FastReference(settings, LIMITS)
    limit = np.array(TORQUE_LIMITS_NM)
    for _ in range(50):
        data.qpos[ids.arm_qpos] = HOME_Q_RAD
        law.engage()
        data.qpos[ids.arm_qpos] = q = HOME_Q_RAD + rng.normal(0, 0.2, 7)
        data.qvel[ids.arm_dof] = dq = rng.normal(0, 0.3, 7)
        mujoco.mj_forward(model, data)
        measured = tcp_pose(data, ids)
        target = random_pose(rng, measured, 0.01, 0.1)
        reference.reset(target)
        reference.twist[:] = rng.normal(0, 0.1, 6)
        law.refresh()
        law.apply(reference, 1e3)
        applied = data.qfrc_applied[ids.arm_dof] - data.qfrc_bias[ids.arm_dof]
        assert applied == pytest.approx(np.clip(law.torque_nm, -limit, limit))
        wrench = spring_wrench(
            target.position_m - measured.position_m,
            rotation_error_rad(target.quat_xyzw, measured.quat_xyzw),
            reference.twist - law.jacobian @ dq,
            settings,
        )
        posture_nm = np.multiply(settings.nullspace_stiffness_nm_per_rad, HOME_Q_RAD - q)
        posture_nm -= np.multiply(settings.nullspace_damping_nms_per_rad, dq)
        yield law.torque_nm.copy(), law.jacobian.copy(), wrench, posture_nm


def test_torques_change_by_one_newton_metre_a_millisecond_at_most(
    compiled: tuple[mujoco.MjModel, SceneIds],
) -> None:
    model, ids = compiled
    data = mujoco.MjData(model)
    data.qpos[ids.arm_qpos] = HOME_Q_RAD
    mujoco.mj_forward(model, data)
    law = ImpedanceLaw(model, data, ids, PRESETS["compliant"])
    reference = FastReference(PRESETS["compliant"], LIMITS)
    reference.reset(offset_pose(tcp_pose(data, ids), np.full(3, 0.05), np.zeros(3)))
    law.refresh()
    for tick in range(1, 4):
        law.apply(reference, 0.002)
        applied = data.qfrc_applied[ids.arm_dof] - data.qfrc_bias[ids.arm_dof]
        assert np.abs(applied).max() == pytest.approx(0.002 * 1000.0 * tick)


def test_an_increment_is_added_as_core_adds_it(compiled: tuple[mujoco.MjModel, SceneIds]) -> None:
    model, ids = compiled
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    law = ImpedanceLaw(model, data, ids, PRESETS["compliant"])
    for _ in range(20):
        data.qpos[ids.arm_qpos] = HOME_Q_RAD + rng.normal(0, 0.3, 7)
        mujoco.mj_kinematics(model, data)
        increment = rng.normal(0, 0.1, 7)
        position_m, quat_wxyz = law.offset_tcp(increment)
        expected = offset_pose(tcp_pose(data, ids), increment[:3], increment[3:6])
        assert position_m == pytest.approx(expected.position_m, abs=1e-12)
        assert np.abs(quat_wxyz[[1, 2, 3, 0]] @ expected.quat_xyzw) == pytest.approx(1.0)


def test_the_fast_reference_is_the_reference_of_the_arm() -> None:
    rng = np.random.default_rng(2)
    home = Pose(np.array([0.5, 0.0, 0.25]), np.array([1.0, 0.0, 0.0, 0.0]))
    slow, fast = ReferenceInterpolator(home), FastReference(ASYMMETRIC, LIMITS)
    fast.reset(home)
    now_s, num_limited, num_clipped = 0.0, 0, 0
    for _ in range(60):
        now_s += rng.uniform(0.02, 0.15)
        wanted = random_pose(rng, home, 0.03, 0.1)
        target, flags = limit_target(wanted, slow.goal, LIMITS)
        quat_wxyz = wanted.quat_xyzw[[3, 0, 1, 2]]
        assert fast.is_within_limits(wanted.position_m, quat_wxyz) == (not flags)
        num_limited += bool(flags)
        slow.set_target(target, now_s, 0.1, LIMITS)
        fast.set_target(target.position_m, target.quat_xyzw[[3, 0, 1, 2]], now_s, 0.1)
        for elapsed_s in (0.0, 0.013, 0.05, 0.099, 0.1, 0.2, 0.5):
            reference, twist = slow.sample(now_s + elapsed_s)
            fast.sample(now_s + elapsed_s)
            assert_same(fast, reference, twist)
            measured = random_pose(rng, reference, 0.006, 0.05)
            reference, twist, is_clipped = clip_to_measured(reference, twist, measured, ASYMMETRIC)
            num_clipped += any(is_clipped)
            fast.clip_to_measured(measured.position_m, measured.quat_xyzw[[3, 0, 1, 2]])
            assert_same(fast, reference, twist)
    assert min(num_limited, 60 - num_limited, num_clipped, 420 - num_clipped) > 10


def assert_same(fast: FastReference, pose: Pose, twist: Twist) -> None:
    assert fast.position_m == pytest.approx(pose.position_m, abs=1e-9)
    quat_xyzw = fast.quat_wxyz[[1, 2, 3, 0]]
    assert np.linalg.norm(rotation_error_rad(quat_xyzw, pose.quat_xyzw)) < 1e-7
    assert fast.twist[:3] == pytest.approx(twist.linear_m_per_s, abs=1e-9)
    assert fast.twist[3:] == pytest.approx(twist.angular_rad_per_s, abs=1e-7)


SERL = {
    # translational and rotational stiffness, damping, clip: serl_franka_controllers, peg task
    "compliant": (2000.0, 89.0, 0.01, 150.0, 7.0, 0.05),
    "precise": (3000.0, 89.0, 0.01, 300.0, 9.0, 0.05),
}


def serl_wrench(preset: str, measured: Pose, target: Pose, twist: np.ndarray) -> np.ndarray:
    """`-K clip(e) - D v` with the vector part of a quaternion as rotation error.

    As published: the error quaternion is ``measured^-1 * target``, taken to the hemisphere of the
    target, turned into base axes and negated.
    """
    k, d, clip, k_rot, d_rot, clip_rot = SERL[preset]
    error = np.empty(6)
    error[:3] = np.clip(measured.position_m - target.position_m, -clip, clip)
    orientation, wanted = measured.quat_xyzw, target.quat_xyzw
    if wanted @ orientation < 0.0:
        orientation = -orientation
    x, y, z, w = Rotation.from_quat(orientation).inv().as_quat(canonical=False)
    ax, ay, az, aw = wanted
    vector = np.array(
        [
            w * ax + x * aw + y * az - z * ay,
            w * ay - x * az + y * aw + z * ax,
            w * az + x * ay - y * ax + z * aw,
        ]
    )
    scalar = w * aw - x * ax - y * ay - z * az
    vector = vector if scalar >= 0.0 else -vector
    in_base = Rotation.from_quat(orientation).apply(vector)
    error[3:] = np.clip(-in_base, -clip_rot, clip_rot)
    stiffness = np.repeat([k, k_rot], 3)
    return -stiffness * error - np.repeat([d, d_rot], 3) * twist


def our_wrench(preset: str, measured: Pose, target: Pose, twist: np.ndarray) -> np.ndarray:
    return spring_wrench(
        target.position_m - measured.position_m,
        rotation_error_rad(target.quat_xyzw, measured.quat_xyzw),
        -twist,
        PRESETS[preset],
    )


def both_wrenches(
    preset: str, angle_rad: float, axis: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    measured = Pose(rng.normal(0.4, 0.1, 3), Rotation.random(rng=rng).as_quat())
    target = offset_pose(measured, rng.normal(0, 0.02, 3), angle_rad * axis)
    twist = rng.normal(0, 0.2, 6)
    return (
        our_wrench(preset, measured, target, twist),
        serl_wrench(preset, measured, target, twist),
    )


# A quaternion's vector part is sin(angle / 2), not angle / 2. The port makes both agree to
# 1e-6 Nm below this angle (75 a - 150 sin(a / 2) = 3.1 a^3) and where both clips act.
SMALL_RAD = 0.0054
CLIPPED_RAD = 0.1001


@pytest.mark.parametrize("preset", ["compliant", "precise"])
def test_forces_and_small_turns_equal_serls_law(preset: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        ours, serls = both_wrenches(preset, rng.uniform(0.0, SMALL_RAD), axis, rng)
        assert ours == pytest.approx(serls, abs=1e-6)


@pytest.mark.parametrize("preset", ["compliant", "precise"])
def test_clipped_turns_equal_serls_law(preset: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        axis = np.eye(3)[rng.integers(3)] * rng.choice([-1.0, 1.0])
        ours, serls = both_wrenches(preset, rng.uniform(CLIPPED_RAD, 3.0), axis, rng)
        assert ours == pytest.approx(serls, abs=1e-6)


def test_between_small_and_clipped_turns_differ_by_a_twentieth_of_a_percent_of_the_cap() -> None:
    rng = np.random.default_rng(5)
    worst_nm = 0.0
    for _ in range(500):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        ours, serls = both_wrenches("compliant", rng.uniform(0.0, 0.1), axis, rng)
        worst_nm = max(worst_nm, float(np.abs(ours - serls).max()))
    assert 1e-4 < worst_nm < 5e-4 * 7.5


def test_posture_gains_are_serls() -> None:
    # 0.2 Nm/rad everywhere, times 100 on joint 1; damping 2 sqrt(k), times 2 sqrt(100) on joint 1.
    for settings in PRESETS.values():
        stiffness = np.array([20.0] + [0.2] * 6)
        damping = 2.0 * np.sqrt(0.2) * np.array([2.0 * np.sqrt(100.0)] + [1.0] * 6)
        assert settings.nullspace_stiffness_nm_per_rad == pytest.approx(stiffness, abs=1e-9)
        assert settings.nullspace_damping_nms_per_rad == pytest.approx(damping, abs=1e-9)
