# SPDX-License-Identifier: Apache-2.0
"""The in-process simulator as its callers see it."""

from __future__ import annotations

import itertools

import mujoco
import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError, SceneError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings
from vla_rl_ros.core.spec import STATE_DIM, state_vector
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.fast_timing import FastSimConfig
from vla_rl_ros.sim.placing import place_wall
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.sim.variants import SceneConfig

STAY_OPEN = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
STAY_CLOSED = np.zeros(7)


@pytest.fixture(scope="module")
def sim() -> FastSim:
    return FastSim(SceneConfig(image_px=64))


def move(x: float = 0.0, y: float = 0.0, z: float = 0.0, *, is_open: bool = True) -> np.ndarray:
    return np.array([x, y, z, 0.0, 0.0, 0.0, float(is_open)])


def test_nothing_works_before_the_first_reset() -> None:
    fresh = FastSim()
    with pytest.raises(SceneError, match="reset"):
        fresh.is_success()
    with pytest.raises(SceneError, match="reset"):
        fresh.step(STAY_OPEN)


def test_equal_seeds_give_bitwise_equal_episodes(sim: FastSim) -> None:
    actions = np.random.default_rng(0).uniform(-0.02, 0.02, (15, 7))
    runs = []
    for before in (Task.PEG, Task.BUTTON):
        sim.reset(before, seed=9)
        sim.step(move(0.01, 0.01, -0.01))
        sim.reset(Task.LIFT, seed=4)
        states = [sim.state()]
        for action in actions:
            sim.step(action)
            states.append(sim.state())
        runs.append(np.array(states))
    assert np.array_equal(runs[0], runs[1])


def test_the_arm_starts_at_the_layouts_pose_and_stays_there(sim: FastSim) -> None:
    for task in Task:
        sim.reset(task, seed=1)
        for _ in range(5):
            sim.step(STAY_OPEN)
        drift_m = np.linalg.norm(sim.tcp().position_m - sim.layout.start.position_m)
        assert drift_m < 2e-4


def test_an_increment_moves_the_tcp_by_about_that_much(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=1)
    start = sim.tcp()
    for _ in range(5):
        sim.step(move(x=0.01))
    sim.step(STAY_OPEN)
    moved = sim.tcp().position_m - start.position_m
    assert moved[0] == pytest.approx(0.05, abs=0.012)
    assert np.abs(moved[1:]).max() < 0.002
    assert sim.time_s == pytest.approx(0.7)


def test_a_turn_increment_turns_about_base_axes(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=1)
    for _ in range(10):
        sim.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 1.0]))
    start = sim.layout.start
    turned = offset_pose(start, np.zeros(3), np.array([0.0, 0.0, 1.0]))
    # Turning by +z in base axes moves the quaternion towards the one turned by 1 rad.
    before = np.abs(turned.quat_xyzw @ start.quat_xyzw)
    assert np.abs(turned.quat_xyzw @ sim.tcp().quat_xyzw) > before + 0.01


def test_the_state_holds_every_channel_and_agrees_with_the_parts(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=2)
    sim.step(move(y=0.01))
    state = sim.state()
    assert state.shape == (STATE_DIM,)
    assert np.array_equal(state, state_vector(sim.arm_state(), sim.gripper_state()))
    assert state[8] > 0.02
    assert sim.arm_state().stamp_ns == round(sim.time_s * 1e9)


def test_orientations_do_not_flip_their_sign(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=2)
    for _ in range(10):
        sim.step(np.append(np.random.default_rng(0).uniform(-0.02, 0.02, 6), 1.0))
        assert sim.tcp().quat_xyzw[0] > 0.9


def test_the_fingers_close_in_half_a_second_on_nothing_and_open_again(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=2)
    assert sim.gripper_state().width_m == pytest.approx(0.08, abs=1e-3)
    sim.step(STAY_CLOSED)
    assert sim.gripper_state().is_moving
    width_m = sim.gripper_state().width_m
    assert 0.055 < width_m < 0.065
    for _ in range(9):
        sim.step(STAY_CLOSED)
    assert sim.gripper_state().width_m < 0.005
    assert not sim.gripper_state().is_grasped
    assert not sim.is_open_commanded
    for _ in range(10):
        sim.step(STAY_OPEN)
    assert sim.gripper_state().width_m > 0.075


def test_closed_fingers_rest_on_the_peg(sim: FastSim) -> None:
    sim.reset(Task.PEG, seed=2)
    for _ in range(5):
        sim.step(STAY_CLOSED)
    assert sim.gripper_state().width_m == pytest.approx(0.02, abs=0.003)
    assert sim.gripper_state().is_grasped


def test_an_action_beyond_the_limits_is_limited_and_flagged(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=0)
    sim.step(move(x=0.5))
    assert sim.limit_flags == ("step",)
    assert sim.tcp().position_m[0] - sim.layout.start.position_m[0] < 0.05
    for _ in range(40):
        sim.step(move(z=-0.04, is_open=False))
    assert "box" in sim.limit_flags
    assert sim.tcp().position_m[2] > 0.0
    sim.step(STAY_CLOSED)
    assert sim.limit_flags == ()


@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6), np.full(7, np.inf)])
def test_a_malformed_action_is_refused(sim: FastSim, action: np.ndarray) -> None:
    sim.reset(Task.LIFT, seed=0)
    with pytest.raises(InvalidCommandError):
        sim.step(action)


def push_into_wall(settings: ImpedanceSettings) -> np.ndarray:
    """Steady wrench estimate while pushing along x against the wall."""
    sim = FastSim(settings=settings)
    sim.reset(Task.LIFT, seed=0)
    face_m = np.add(sim.tcp().position_m, (0.06, 0.0, 0.0))
    place_wall(sim.model, sim.data, sim.ids, face_m)
    for _ in range(25):
        sim.step(move(x=0.02, is_open=False))
    return sim.arm_state().wrench.force_n


def test_contact_force_is_bounded_by_stiffness_times_clip_and_points_at_the_wall() -> None:
    settings = PRESETS["compliant"]
    force_n = push_into_wall(settings)
    assert 0.8 * settings.force_bound_n < force_n[0] < 1.2 * settings.force_bound_n
    assert np.abs(force_n[1:]).max() < 0.2 * settings.force_bound_n


def test_the_clip_of_the_pushing_side_bounds_the_force() -> None:
    force_n = push_into_wall(ImpedanceSettings(clip_plus_m=(0.005, 0.01, 0.01)))
    assert 5.0 < force_n[0] < 12.0


def test_in_free_space_no_wrench_is_felt_and_pressing_down_is_negative(sim: FastSim) -> None:
    sim.reset(Task.BUTTON, seed=0)
    sim.step(STAY_CLOSED)
    assert np.abs(sim.state()[13:19]).max() < 0.5
    above_m = np.add(sim.objects()["button"].position_m, (0.0, 0.0, 0.03))
    start_m = sim.tcp().position_m
    for fraction in np.linspace(0.0, 1.0, 15):
        above = start_m + fraction * (above_m - start_m)
        sim.move_to(Pose(above, sim.layout.start.quat_xyzw), 0.1)
        sim.advance(0.1)
    for _ in range(10):
        sim.step(move(z=-0.01, is_open=False))
    assert sim.is_success()
    assert -30.0 < sim.arm_state().wrench.force_n[2] < -5.0


def test_images_show_the_instant_and_every_camera(sim: FastSim) -> None:
    sim.reset(Task.LIFT, seed=0)
    first = sim.images()
    assert set(first) == set(CAMERAS)
    assert all(im.shape == (64, 64, 3) and im.dtype == np.uint8 for im in first.values())
    assert all(im.std() > 10 for im in first.values())
    for _ in range(3):
        sim.step(move(y=0.02))
    second = sim.images()
    for name in CAMERAS:
        assert not np.array_equal(first[name], second[name])
    sim.close()
    assert np.array_equal(sim.images()["front"], second["front"])
    sim.close()


@pytest.mark.parametrize("timing", [FastSimConfig(hold_steps=1), FastSimConfig(timestep_s=0.001)])
def test_finer_steps_give_the_same_motion(sim: FastSim, timing: FastSimConfig) -> None:
    fine = FastSim(timing=timing)
    for cell in (sim, fine):
        cell.reset(Task.LIFT, seed=3)
    for _ in range(8):
        sim.step(move(0.01, -0.005, -0.01))
        fine.step(move(0.01, -0.005, -0.01))
        assert sim.tcp().position_m == pytest.approx(fine.tcp().position_m, abs=1e-3)


def test_a_step_of_fifty_millimetres_takes_the_time_it_takes_on_the_arm(sim: FastSim) -> None:
    # Recorded with libfranka against the simulator behind its protocol: 63 % after 0.38 s.
    sim.reset(Task.LIFT, seed=3)
    start = sim.tcp()
    sim.move_to(offset_pose(start, np.array([0.05, 0.0, 0.0]), np.zeros(3)), 0.001)
    travel_m = []
    for _ in range(100):
        sim.advance(0.01)
        travel_m.append(sim.tcp().position_m[0] - start.position_m[0])
    reached = next(i for i in itertools.count() if travel_m[i] > 0.63 * 0.05)
    assert 0.2 < 0.01 * reached < 0.45
    assert max(travel_m) < 0.056
    assert travel_m[-1] == pytest.approx(0.05, abs=2e-3)


def test_timing_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold_steps"):
        FastSimConfig(hold_steps=5)
    with pytest.raises(ConfigError, match="whole number"):
        FastSimConfig(timestep_s=0.0015)


def test_no_episode_upsets_the_physics(sim: FastSim) -> None:
    rng = np.random.default_rng(0)
    for task in Task:
        sim.reset(task, seed=11)
        for _ in range(30):
            sim.step(np.append(rng.uniform(-0.02, 0.02, 3), [*rng.uniform(-0.1, 0.1, 3), 0.0]))
        assert not sim.data.warning.number.any()
        assert isinstance(sim.data, mujoco.MjData)
