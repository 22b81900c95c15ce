# SPDX-License-Identifier: Apache-2.0
"""Every way in which a RealSense does not open has its own sentence."""

from __future__ import annotations

import builtins
import sys

import pytest
from unit.realsense_stub import HEIGHT, RATE_HZ, WIDTH, Device, StubSdk, colour_device

from vla_rl_ros.core.errors import ConfigError, DeviceError
from vla_rl_ros.hardware.realsense import RealSenseCamera
from vla_rl_ros.hardware.realsense_devices import RealSenseSettings
from vla_rl_ros.hardware.realsense_recording import RecordingSpec, write_recording


def wanted(**changes) -> RealSenseSettings:
    return RealSenseSettings(**{"width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ, **changes})


def refusal(monkeypatch, settings: RealSenseSettings, *devices: Device, error: str = "") -> str:
    sdk = StubSdk(*devices)
    sdk.start_error = error
    sdk.install(monkeypatch)
    with pytest.raises(DeviceError) as refused:
        RealSenseCamera(settings).open()
    return str(refused.value)


def test_an_empty_bus_is_said_at_once(monkeypatch) -> None:
    assert "no RealSense camera is connected" in refusal(monkeypatch, wanted())


def test_a_wrong_serial_number_names_the_connected_ones(monkeypatch) -> None:
    said = refusal(monkeypatch, wanted(serial="999"), colour_device("222"), colour_device("111"))
    assert "999" in said
    assert "111, 222" in said


def test_several_cameras_need_a_serial_number(monkeypatch) -> None:
    said = refusal(monkeypatch, wanted(), colour_device("222"), colour_device("111"))
    assert "set serial: 111, 222" in said


def test_an_unsupported_mode_lists_the_supported_ones(monkeypatch) -> None:
    said = refusal(monkeypatch, wanted(width=1920), colour_device())
    assert "1920x48@30 is not offered" in said
    assert "supported: 64x48@30" in said
    assert "USB" not in said


def test_a_mode_missing_on_usb_2_blames_the_link(monkeypatch) -> None:
    said = refusal(monkeypatch, wanted(rate_hz=90), colour_device(usb="2.1"))
    assert "over USB 2.1 (use a USB 3 port and cable)" in said


def test_a_missing_depth_stream_is_said(monkeypatch) -> None:
    assert "no depth stream" in refusal(monkeypatch, wanted(has_depth=True), colour_device())


@pytest.mark.parametrize(
    ("vendor", "fix"),
    [
        ("xioctl(VIDIOC_S_FMT) failed, Last Error: Device or resource busy", "another program"),
        ("failed to set power state", "another program"),
        ("Failed to open: Permission denied", "udev rules"),
        ("something else", "did not start"),
    ],
)
def test_start_errors_keep_the_vendors_words(monkeypatch, vendor: str, fix: str) -> None:
    said = refusal(monkeypatch, wanted(), colour_device(), error=vendor)
    assert vendor in said
    assert fix in said


def test_a_missing_recording_and_a_broken_one_are_named(tmp_path) -> None:
    with pytest.raises(DeviceError, match="there is no recording"):
        RealSenseCamera(wanted(file=str(tmp_path / "absent.db3"))).open()
    broken = tmp_path / "broken.db3"
    broken.write_text("not a data base")
    with pytest.raises(DeviceError, match="not a RealSense recording"):
        RealSenseCamera(wanted(file=str(broken))).open()


def test_a_recording_of_another_size_lists_its_own(tmp_path) -> None:
    spec = RecordingSpec(width=32, height=32, rate_hz=30, num_frames=1, has_depth=False)
    path = write_recording(tmp_path / "small.db3", spec)
    with pytest.raises(DeviceError, match=r"color 64x48@30 .*supported: 32x32@30"):
        RealSenseCamera(wanted(file=str(path))).open()


def test_ambiguous_sources_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both"):
        RealSenseSettings(serial="1", file="a.db3")
    with pytest.raises(ConfigError, match=r"not a \.db3"):
        RealSenseSettings(file="video.mp4")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ImportError("libusb-1.0.so.0: cannot open shared object file"), "apt install libusb-1.0"),
        (ModuleNotFoundError("No module named 'pyrealsense2'"), "pip install"),
        (ImportError("libfoo.so: cannot open"), "cannot be loaded"),
    ],
)
def test_a_missing_library_names_its_package(monkeypatch, error: ImportError, fix: str) -> None:
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pyrealsense2":
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "pyrealsense2", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DeviceError, match=fix):
        RealSenseCamera(wanted()).open()
