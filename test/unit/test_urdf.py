# SPDX-License-Identifier: Apache-2.0
"""The robot description compiles, carries the frames of the graph and fits the simulator."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_rl_ros.ros.share import share_path
from vla_rl_ros.sim.scene import compile_model
from vla_rl_ros.sim.variants import SceneConfig
from vla_rl_ros.tools.urdf import arm_file, robot_description

FRAMES = (
    "fr3_link0",
    "fr3_hand",
    "fr3_hand_tcp",
    "camera_wrist_optical_frame",
    "camera_front_optical_frame",
)


@pytest.fixture(scope="module")
def robot():
    return ElementTree.fromstring(robot_description())


def pose_of(robot, frame, ancestor):
    """Pose of a frame in an ancestor to which it is fixed: rotation (3, 3), position (3,)."""
    by_child = {joint.find("child").get("link"): joint for joint in robot.iter("joint")}
    rotation, position = np.eye(3), np.zeros(3)
    while frame != ancestor:
        joint = by_child[frame]
        assert joint.get("type") == "fixed"
        origin = joint.find("origin")
        turn = Rotation.from_euler("xyz", [float(v) for v in origin.get("rpy").split()])
        position = [float(v) for v in origin.get("xyz").split()] + turn.as_matrix() @ position
        rotation = turn.as_matrix() @ rotation
        frame = joint.find("parent").get("link")
    return rotation, position


@pytest.fixture(scope="module")
def simulated_cell():
    model, _ = compile_model(SceneConfig())
    return model


def simulated_camera(model, name):
    """Optical axes (3, 3) and position (3,) of a simulated camera in its parent body."""
    camera = model.camera(name)
    rotation = Rotation.from_quat(np.roll(camera.quat, -1)).as_matrix()
    # MuJoCo cameras have y up and look along -z; optical frames have y down and look along z.
    return rotation @ np.diag([1.0, -1.0, -1.0]), camera.pos


def test_description_carries_every_frame_of_the_graph(robot):
    links = {link.get("name") for link in robot.iter("link")}

    assert set(FRAMES) <= links


def test_tcp_lies_between_the_finger_tips(robot):
    rotation, position = pose_of(robot, "fr3_hand_tcp", "fr3_hand")

    assert position == pytest.approx([0.0, 0.0, 0.1034])
    assert rotation == pytest.approx(np.eye(3))


@pytest.mark.parametrize(("name", "parent"), [("wrist", "fr3_hand"), ("front", "fr3_link0")])
def test_cameras_stand_where_the_simulator_renders_them(robot, simulated_cell, name, parent):
    rotation, position = pose_of(robot, f"camera_{name}_optical_frame", parent)
    expected_rotation, expected_position = simulated_camera(simulated_cell, name)

    assert position == pytest.approx(expected_position, abs=1e-6)
    assert rotation == pytest.approx(expected_rotation, abs=1e-6)


def test_front_camera_looks_down_at_the_table(robot):
    rotation, _ = pose_of(robot, "camera_front_optical_frame", "fr3_link0")
    forward = rotation[:, 2]

    assert forward[0] < -0.5
    assert forward[2] < -0.5


def test_calibrated_mount_replaces_the_default():
    text = robot_description({"camera_front_xyz": "1.0 0.1 0.5", "camera_front_rpy": "0 0 0"})
    _, position = pose_of(ElementTree.fromstring(text), "camera_front_optical_frame", "fr3_link0")

    assert position == pytest.approx([1.0, 0.1, 0.5])


def test_every_mesh_can_be_resolved(robot):
    names = [mesh.get("filename") for mesh in robot.iter("mesh")]

    assert names
    for name in names:
        assert name.startswith(("package://", "file://"))
        if name.startswith("file://"):
            assert Path(name.removeprefix("file://")).is_file()


def test_arm_is_described_by_an_installed_package():
    assert not arm_file().is_relative_to(share_path() / "urdf")
