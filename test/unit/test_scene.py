# SPDX-License-Identifier: Apache-2.0
"""Variants and the compiled scene."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest
from franky_sim.mujoco_simulator import MujocoSimulator

from vla_rl_ros.core.errors import ConfigError, SceneError
from vla_rl_ros.sim import scene
from vla_rl_ros.sim.layouts import DOWN_XYZW, HOME_POSITION_M
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import tcp_pose
from vla_rl_ros.sim.variants import VARIANTS, SceneConfig, variant


@pytest.fixture(scope="module")
def default() -> tuple[mujoco.MjModel, SceneIds]:
    return scene.compile_model(SceneConfig())


def test_an_unknown_variant_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'easy'.*default.*peg_tight"):
        variant("easy")


def test_variants_differ_from_the_default_in_what_their_name_says() -> None:
    assert variant("default") == SceneConfig()
    assert variant("peg_tight").peg_clearance_m == 0.0005
    assert not variant("peg_friction").peg_is_welded
    assert variant("friction_full").joint_friction_scale == 1.0
    others = [config for name, config in VARIANTS.items() if name != "default"]
    assert all(config != SceneConfig() for config in others)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peg_clearance_m", 0.0001),
        ("joint_friction_scale", 2.0),
        ("object_spread_m", (0.1,)),
        ("front_camera_turn_rad", (0.0, 0.0)),
        ("image_px", 4096),
        ("light_scale", float("nan")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(SceneConfig(), **{field: value})


def test_home_joint_angles_put_the_tcp_home_pointing_down(
    default: tuple[mujoco.MjModel, SceneIds],
) -> None:
    model, ids = default
    data = mujoco.MjData(model)
    data.qpos[ids.arm_qpos] = scene.HOME_Q_RAD
    mujoco.mj_kinematics(model, data)
    pose = tcp_pose(data, ids)
    assert pose.position_m == pytest.approx(np.array(HOME_POSITION_M), abs=1e-7)
    assert pose.quat_xyzw == pytest.approx(np.array(DOWN_XYZW), abs=1e-6)


def test_the_peg_fits_its_hole_with_the_wanted_gap() -> None:
    for clearance_m in (0.0005, 0.002):
        model, ids = scene.compile_model(SceneConfig(peg_clearance_m=clearance_m))
        walls = np.flatnonzero(model.geom_bodyid == ids.bodies["block"])
        inner_m = min(
            abs(model.geom_pos[geom, axis]) - model.geom_size[geom, axis]
            for geom in walls
            for axis in (0, 1)
            if model.geom_pos[geom, axis] != 0.0
        )
        assert inner_m - scene.PEG_HALF_WIDTH_M == pytest.approx(clearance_m)


def test_only_a_welded_peg_has_a_weld(default: tuple[mujoco.MjModel, SceneIds]) -> None:
    assert default[1].peg_weld is not None
    assert scene.compile_model(variant("peg_friction"))[1].peg_weld is None


def test_friction_light_and_cameras_follow_the_config(
    default: tuple[mujoco.MjModel, SceneIds],
) -> None:
    plain, ids = default
    config = SceneConfig(
        joint_friction_scale=1.0,
        light_scale=0.5,
        front_camera_shift_m=(0.1, 0.0, 0.0),
        wrist_camera_turn_rad=(0.0, 0.0, 0.1),
        multisamples=4,
    )
    other, _ = scene.compile_model(config)
    arm = ids.arm_dof
    assert other.dof_frictionloss[arm] == pytest.approx(plain.dof_frictionloss[arm] / 0.2)
    assert other.light_diffuse == pytest.approx(0.5 * plain.light_diffuse)
    front, wrist = ids.cameras["front"], ids.cameras["wrist"]
    assert other.cam_pos[front] - plain.cam_pos[front] == pytest.approx(np.array([0.1, 0, 0]))
    assert other.cam_quat[front] == pytest.approx(plain.cam_quat[front])
    angle = 2.0 * np.arccos(np.dot(other.cam_quat[wrist], plain.cam_quat[wrist]))
    assert angle == pytest.approx(0.1)
    assert (plain.vis.quality.offsamples, other.vis.quality.offsamples) == (0, 4)


def test_the_arm_is_drawn_cheaply_and_images_may_be_large(
    default: tuple[mujoco.MjModel, SceneIds],
) -> None:
    model, _ = default
    drawn = (model.geom_group <= 2) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert int(model.mesh_facenum[model.geom_dataid[drawn]].sum()) < 5000
    assert not model.light_castshadow.any()
    size = model.vis.global_
    assert (size.offwidth, size.offheight) == (scene.MAX_IMAGE_PX, scene.MAX_IMAGE_PX)


def test_the_scene_needs_a_simulator_that_has_its_robot() -> None:
    sim = MujocoSimulator()
    sim.init()
    with pytest.raises(SceneError, match="robot"):
        scene.add_scene(sim, SceneConfig())


def test_the_simulator_behind_the_protocol_runs_the_same_model(
    default: tuple[mujoco.MjModel, SceneIds],
) -> None:
    sim = MujocoSimulator()
    sim.init()
    sim.add_robot(initial_q=scene.HOME_Q_RAD)
    scene.add_scene(sim, SceneConfig())
    sim.start()
    ids = scene.finish_model(sim.model, SceneConfig())
    assert ids == default[1]
    for name in ("body_mass", "geom_size", "geom_rgba", "dof_frictionloss", "cam_quat"):
        assert np.array_equal(getattr(sim.model, name), getattr(default[0], name)), name
    sim.cleanup()


def test_addresses_of_a_foreign_model_are_refused() -> None:
    with pytest.raises(SceneError, match="add_scene"):
        SceneIds.from_model(mujoco.MjModel.from_xml_string("<mujoco/>"))
