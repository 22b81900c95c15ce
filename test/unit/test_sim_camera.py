# SPDX-License-Identifier: Apache-2.0
"""The simulated camera against a run directory without a running simulator."""

from __future__ import annotations

import math
import time

import mujoco
import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.sim.camera import SimCamera
from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, SnapshotWriter

FOVY_DEG = 60.0
SCENE = f"""
<mujoco>
  <visual><global offwidth="64" offheight="64"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="front" pos="0 0 2" fovy="{FOVY_DEG}"/>
    <geom type="plane" size="5 5 .1" rgba="0 0 1 1"/>
    <body name="ball" pos="0 0 .5"><freejoint/><geom size=".3" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""


class Simulator:
    """What a simulator leaves in its run directory."""

    def __init__(self, run_dir, scene: str = SCENE) -> None:
        self.run_dir = run_dir
        self.model = mujoco.MjModel.from_xml_string(scene)
        self.data = mujoco.MjData(self.model)
        mujoco.mj_saveModel(self.model, str(run_dir / MODEL_NAME), None)
        self.writer = SnapshotWriter(run_dir / SNAPSHOT_NAME, self.model)

    def publish(self, ball_x_m: float = 0.0, stamp_ns: int | None = None) -> None:
        self.data.qpos[0] = ball_x_m
        self.writer.write(self.data, stamp_ns)


@pytest.fixture
def simulator(tmp_path):
    return Simulator(tmp_path)


@pytest.fixture
def camera(simulator):
    made = SimCamera("front", 64, 48, simulator.run_dir, rate_hz=500.0, has_depth=True)
    made.open()
    yield made
    made.close()


def redness(rgb) -> float:
    """Column of the middle of what is red."""
    is_red = (rgb[:, :, 0] > 60) & (rgb[:, :, 2] < 60)
    return float(np.nonzero(is_red)[1].mean())


def test_an_image_shows_the_newest_state_and_carries_its_stamp(simulator, camera):
    simulator.publish(0.0, stamp_ns=11)
    image = camera.read(5.0)
    assert image.stamp_ns == 11
    assert redness(image.rgb) == pytest.approx(31.5, abs=1.0)
    simulator.publish(0.3, stamp_ns=12)
    image = camera.read(5.0)
    assert image.stamp_ns == 12
    # 0.3 m to the right, about 1.5 m away.
    expected_px = 31.5 + camera.intrinsics.fx * 0.3 / 1.5
    assert redness(image.rgb) == pytest.approx(expected_px, abs=2.0)


def test_depth_is_metres_along_the_view(simulator, camera):
    simulator.publish()
    depth_m = camera.read(5.0).depth_m
    assert depth_m.dtype == np.float32
    assert depth_m[24, 32] == pytest.approx(1.2, abs=0.01)
    assert depth_m[1, 1] == pytest.approx(2.0, abs=0.01)


def test_intrinsics_follow_from_the_field_of_view(camera):
    lens = camera.intrinsics
    assert lens.fx == lens.fy == pytest.approx(24.0 / math.tan(math.radians(FOVY_DEG / 2)))
    assert (lens.cx, lens.cy) == (31.5, 23.5)


def test_a_simulator_that_stopped_stepping_is_a_stalled_camera(simulator, camera):
    simulator.publish()
    assert camera.read(5.0) is not None
    assert camera.read(0.02) is None
    simulator.publish()
    assert camera.read(5.0) is not None


def test_a_run_directory_that_vanished_is_an_error(simulator, camera):
    simulator.publish()
    camera.read(5.0)
    for path in simulator.run_dir.iterdir():
        path.unlink()
    simulator.run_dir.rmdir()
    with pytest.raises(DeviceError, match="is gone"):
        camera.read(0.02)


def test_another_simulator_in_the_same_directory_is_picked_up(simulator, camera):
    simulator.publish()
    camera.read(5.0)
    green = SCENE.replace("1 0 0 1", "0 1 0 1")
    successor = Simulator(simulator.run_dir, green)
    successor.publish()
    image = camera.read(5.0)
    red, green, _ = image.rgb[24, 32].astype(int)
    assert green > red + 50


def test_frames_are_paced(simulator):
    camera = SimCamera("front", 32, 32, simulator.run_dir, rate_hz=50.0)
    camera.open()
    start_s = time.monotonic()
    for stamp_ns in range(1, 11):
        simulator.publish(stamp_ns=stamp_ns)
        assert camera.read(5.0) is not None
    # Ten frames on an absolute schedule whose first slot is now.
    assert time.monotonic() - start_s >= 9 / 50.0 - 0.01
    camera.close()


def test_no_simulator_is_a_sentence(tmp_path):
    camera = SimCamera("front", 32, 32, tmp_path, open_timeout_s=0.01)
    with pytest.raises(DeviceError, match="is the sim_fci process running"):
        camera.open()


def test_an_unknown_camera_is_answered_with_the_known_ones(simulator):
    camera = SimCamera("side", 32, 32, simulator.run_dir)
    with pytest.raises(DeviceError, match="no camera 'side', only: front"):
        camera.open()
