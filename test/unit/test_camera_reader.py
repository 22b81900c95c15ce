# SPDX-License-Identifier: Apache-2.0
"""The reader's thread: newest frame, no frame twice, restarts, and whose fault an error is."""

from __future__ import annotations

import threading

import pytest
from waiting import until

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.camera_health import CameraStatus, HealthSettings
from vla_rl_ros.hardware.camera_reader import CameraReader
from vla_rl_ros.hardware.fake_camera import FakeCamera

FAST = HealthSettings(
    stall_after_s=0.02, restart_after_s=0.05, first_backoff_s=0.01, max_backoff_s=0.02
)
# A loaded machine must not restart a camera whose frames are pushed by hand.
CALM = HealthSettings(restart_after_s=0.0)
S = 1_000_000_000


@pytest.fixture
def made():
    readers = []

    def make(camera, settings=CALM, **callbacks) -> CameraReader:
        readers.append(CameraReader(camera, settings, **callbacks))
        return readers[-1]

    yield make
    for reader in readers:
        assert reader.stop()


def manual() -> FakeCamera:
    return FakeCamera(width=32, height=32, rate_hz=0.0)


def test_frames_reach_the_callback_in_the_readers_thread(made) -> None:
    camera, seen = manual(), []
    reader = made(
        camera,
        on_frame=lambda image: seen.append((image.stamp_ns, threading.current_thread().name)),
        name="camera_test",
    )
    intrinsics = reader.start()
    assert (intrinsics.width, intrinsics.height) == (32, 32)
    camera.push(5)
    camera.push(6)
    assert until(lambda: len(seen) == 2)
    assert seen == [(5, "camera_test"), (6, "camera_test")]


def test_the_newest_frame_wins(made) -> None:
    camera = manual()
    reader = made(camera)
    reader.start()
    for stamp_ns in (10, 20, 30):
        camera.push(stamp_ns)
    assert until(lambda: reader.report().num_frames == 3)
    image = reader.wait_newer(10, 1.0)
    assert image is not None
    assert image.stamp_ns == 30
    assert reader.wait_newer(30, 0.01) is None


def test_a_frame_is_never_delivered_twice(made) -> None:
    camera, stamps = manual(), []
    reader = made(camera, on_frame=lambda image: stamps.append(image.stamp_ns))
    reader.start()
    for stamp_ns in (10, 10, 9, 11):
        camera.push(stamp_ns)
    assert until(lambda: len(stamps) == 2)
    assert stamps == [10, 11]
    assert reader.report().num_repeated == 2


def test_system_time_set_back_does_not_silence_the_camera(made) -> None:
    camera, stamps = manual(), []
    reader = made(camera, on_frame=lambda image: stamps.append(image.stamp_ns))
    reader.start()
    camera.push(100 * S)
    camera.push(50 * S)
    assert until(lambda: len(stamps) == 2)


def test_a_stalled_camera_delivers_nothing_until_it_is_restarted(made) -> None:
    camera, frames = FakeCamera(width=32, height=32, rate_hz=200.0), []
    settings = HealthSettings(stall_after_s=0.02, restart_after_s=0.5)
    reader = made(camera, settings, on_frame=frames.append)
    reader.start()
    assert until(lambda: len(frames) > 2)
    camera.stall()
    assert until(lambda: reader.report().status is CameraStatus.STALLED)
    num_before = len(frames)
    assert until(lambda: reader.report().num_restarts >= 1)
    assert until(lambda: len(frames) > num_before)
    assert len({frame.stamp_ns for frame in frames}) == len(frames)
    assert camera.num_opens >= 2


def test_a_lost_camera_is_found_again(made) -> None:
    camera = FakeCamera(width=32, height=32, rate_hz=200.0)
    reader = made(camera, FAST)
    reader.start()
    camera.unplug()
    assert until(lambda: reader.report().status is CameraStatus.LOST)
    assert "plug" in reader.report().sentence
    camera.plug()
    assert until(lambda: reader.report().status is CameraStatus.STREAMING)
    assert reader.report().num_restarts >= 1


def test_a_camera_that_does_not_open_fails_the_start(made) -> None:
    camera = manual()
    camera.unplug()
    with pytest.raises(DeviceError, match="unplugged"):
        made(camera).start()


def test_a_camera_that_stays_away_is_tried_again_and_again(made) -> None:
    num_tries = 0

    class Away(FakeCamera):
        def open(self) -> None:
            nonlocal num_tries
            num_tries += 1
            super().open()

    camera = Away(rate_hz=0.0)
    reader = made(camera, FAST)
    reader.start()
    camera.unplug()
    assert until(lambda: num_tries >= 4)
    assert reader.report().status is CameraStatus.LOST
    assert reader.report().num_restarts == 0


def test_a_camera_that_hangs_while_opening_fails_the_start(made) -> None:
    released = threading.Event()

    class Hanging(FakeCamera):
        def open(self) -> None:
            released.wait()
            super().open()

    reader = made(Hanging(rate_hz=0.0))
    with pytest.raises(DeviceError, match="did not open within"):
        reader.start(timeout_s=0.01)
    assert not reader.stop(timeout_s=0.01)
    released.set()


def test_a_camera_that_does_not_close_is_reported(made) -> None:
    class Sticky(FakeCamera):
        def close(self) -> None:
            raise DeviceError("stuck")

    reader = made(Sticky(rate_hz=0.0))
    reader.start()
    assert reader.stop()
    assert "stuck" in reader.report().sentence


def test_a_failing_consumer_is_reported_and_does_not_stop_the_camera(made) -> None:
    camera, errors = manual(), []

    def consume(image: Image) -> None:
        raise ValueError(f"frame {image.stamp_ns}")

    reader = made(camera, on_frame=consume, on_error=errors.append)
    reader.start()
    camera.push(1)
    camera.push(2)
    assert until(lambda: len(errors) == 2)
    assert reader.report().num_restarts == 0
    assert reader.report().num_frames == 2


def test_an_unexpected_error_of_the_driver_counts_as_lost(made) -> None:
    class Broken(FakeCamera):
        def read(self, timeout_s: float) -> Image | None:
            raise ZeroDivisionError("driver bug")

    reader = made(Broken(rate_hz=0.0))
    reader.start()
    assert until(lambda: "driver bug" in reader.report().sentence)


def test_opening_reading_and_closing_happen_in_one_thread(made) -> None:
    threads: list[str] = []

    class Watched(FakeCamera):
        def open(self) -> None:
            threads.append(threading.current_thread().name)
            super().open()

        def close(self) -> None:
            threads.append(threading.current_thread().name)
            super().close()

        def details(self) -> dict[str, str]:
            return {"device": "watched"}

    reader = made(Watched(rate_hz=0.0), name="camera_test")
    reader.start()
    assert reader.details() == {"device": "watched"}
    reader.stop()
    assert set(threads) == {"camera_test"}


def test_stop_before_start_and_twice_is_harmless(made) -> None:
    reader = made(manual())
    assert reader.stop()
    reader = made(manual())
    reader.start()
    assert reader.stop()
    assert reader.stop()
    assert reader.details() == {}
