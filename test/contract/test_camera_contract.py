# SPDX-License-Identifier: Apache-2.0
"""The camera contract against the fake, the RealSense SDK and the simulator."""

from __future__ import annotations

import threading

import pytest
from contract.camera_suite import CameraSuite, silence

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.fake_camera import FakeCamera
from vla_rl_ros.hardware.realsense import RealSenseCamera
from vla_rl_ros.hardware.realsense_devices import RealSenseSettings
from vla_rl_ros.hardware.realsense_recording import RecordingSpec, write_recording

SPEC = RecordingSpec(width=64, height=48, rate_hz=60, num_frames=30)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("realsense") / "colour_depth.db3", SPEC)


class TestFakeCamera(CameraSuite):
    has_depth = True

    @pytest.fixture
    def camera(self):
        return FakeCamera(width=64, height=48, rate_hz=200.0, has_depth=True)

    def test_a_stall_is_silence_and_an_unplugged_device_is_an_error(self, opened) -> None:
        opened.stall()
        silence(opened)
        opened.unplug()
        with pytest.raises(DeviceError, match="unplugged"):
            opened.read(0.01)


class TestRealSensePlayback(CameraSuite):
    has_depth = True

    @pytest.fixture
    def camera(self, recording):
        return RealSenseCamera(settings(recording, has_depth=True))

    def test_the_end_of_a_recording_is_silence(self, opened) -> None:
        silence(opened)
        assert opened.read(0.01) is None


class TestRealSenseColourOnly(CameraSuite):
    @pytest.fixture
    def camera(self, recording):
        return RealSenseCamera(settings(recording, has_depth=False))


@pytest.fixture(scope="module")
def scene_dir(tmp_path_factory):
    """A run directory as the simulator keeps it, its state refreshed by a thread."""
    import mujoco

    from vla_rl_ros.sim.scene import compile_model
    from vla_rl_ros.sim.snapshot import MODEL_NAME, SNAPSHOT_NAME, SnapshotWriter
    from vla_rl_ros.sim.variants import SceneConfig

    directory = tmp_path_factory.mktemp("run")
    model, _ = compile_model(SceneConfig())
    mujoco.mj_saveModel(model, str(directory / MODEL_NAME))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    writer, ending = SnapshotWriter(directory / SNAPSHOT_NAME, model), threading.Event()

    def refresh() -> None:
        while not ending.wait(0.005):
            writer.write(data)

    thread = threading.Thread(target=refresh)
    thread.start()
    yield directory
    ending.set()
    thread.join()


@pytest.mark.sim
class TestSimCamera(CameraSuite):
    has_depth = True

    @pytest.fixture
    def camera(self, scene_dir):
        from vla_rl_ros.sim.camera import SimCamera

        return SimCamera("front", 64, 48, scene_dir, rate_hz=60.0, has_depth=True)


def settings(recording, *, has_depth: bool) -> RealSenseSettings:
    return RealSenseSettings(
        file=str(recording),
        width=SPEC.width,
        height=SPEC.height,
        rate_hz=SPEC.rate_hz,
        has_depth=has_depth,
    )
