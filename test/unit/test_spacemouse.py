# SPDX-License-Identifier: Apache-2.0
"""A SpaceMouse through the real pyspacemouse, easyhid and cffi, on HID reports."""

from __future__ import annotations

import shutil
import sys
import threading
import time

import numpy as np
import pytest
from unit.hid_samples import mouse_at

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.protocols import SixDofReport
from vla_rl_ros.hardware.sixdof_reader import HandSample, SixDofReader
from vla_rl_ros.hardware.spacemouse import SpaceMouse
from vla_rl_ros.sim.hid_mouse import MODELS

pytest.importorskip("pyspacemouse")
if shutil.which("gcc") is None:
    pytest.skip("needs gcc for the stand-in of the HID library", allow_module_level=True)

HALF = (0.5, -0.25, 0.1, -0.2, 0.4, 1.0)


@pytest.fixture
def plugged(request):
    mouse = mouse_at(request.node.name[:40], getattr(request, "param", "compact"))
    mouse.plug()
    yield mouse
    mouse.unplug()


@pytest.fixture
def device(plugged):
    made = SpaceMouse()
    made.open()
    assert plugged.wait_connected(5.0)
    yield made
    made.close()


def last_of(device: SpaceMouse, count: int):
    report = None
    for _ in range(count):
        report = device.read(2.0)
        assert report is not None
    return report


@pytest.mark.parametrize("plugged", sorted(MODELS), indirect=True)
def test_every_model_reports_in_the_frame_of_the_operator(plugged, device) -> None:
    plugged.push(HALF)
    report = last_of(device, 2 if plugged.model.is_split else 1)
    assert report.axes == pytest.approx(HALF, abs=0.002)
    names = sorted(plugged.model.buttons)[:2]
    for name in names:
        plugged.press(name)
        assert name in last_of(device, 1).pressed
    plugged.press()
    assert not last_of(device, 1).pressed
    plugged.push((0.0,) * 6)
    assert not last_of(device, 2 if plugged.model.is_split else 1).axes.any()


@pytest.mark.parametrize("plugged", ["receiver"], indirect=True)
def test_two_buttons_behind_the_receiver_keep_their_names(plugged, device) -> None:
    plugged.press("LEFT")
    assert "LEFT" in last_of(device, 1).pressed
    plugged.press("RIGHT")
    report = last_of(device, 1)
    assert "RIGHT" in report.pressed
    assert "LEFT" not in report.pressed


def test_reading_waits_no_longer_than_it_may(device) -> None:
    begin_s = time.monotonic()
    assert device.read(0.05) is None
    assert 0.03 < time.monotonic() - begin_s < 1.0


def test_an_unplugged_mouse_is_gone_and_found_again(plugged, device) -> None:
    plugged.unplug()
    with pytest.raises(DeviceError, match="gone"):
        device.read(2.0)
    device.close()
    with pytest.raises(DeviceError, match="plugged in"):
        device.open()
    plugged.plug()
    device.open()
    assert plugged.wait_connected(5.0)
    plugged.push(HALF)
    assert last_of(device, 2).axes == pytest.approx(HALF, abs=0.002)


def test_what_may_not_be_opened_names_the_rule(plugged) -> None:
    # Found, but nobody can connect.
    plugged.path.unlink()
    with pytest.raises(DeviceError, match=r"70-spacemouse\.rules"):
        SpaceMouse().open()


def test_missing_packages_are_named(plugged, monkeypatch) -> None:
    import easyhid

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyspacemouse", None)
        with pytest.raises(DeviceError, match="pip install pyspacemouse"):
            SpaceMouse().open()

    def without_library():
        raise AttributeError("hid_enumerate")

    monkeypatch.setattr(easyhid, "Enumeration", without_library)
    with pytest.raises(DeviceError, match="apt install libhidapi-hidraw0"):
        SpaceMouse().open()


class BrokenDevice:
    """Reports once that it is pushed, and then fails in a way that nobody foresaw."""

    name = "broken"

    def __init__(self) -> None:
        self.num_opened = 0
        self.trail: list[str] = []
        self._reports: list[SixDofReport] = []

    def open(self) -> None:
        self.num_opened += 1
        if self.num_opened == 2:
            raise OSError("busy")
        self._reports = [SixDofReport(axes=np.ones(6))]

    def read(self, timeout_s: float) -> SixDofReport:
        if not self._reports:
            raise ZeroDivisionError
        return self._reports.pop()

    def forget(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.trail.append("closed")
        raise RuntimeError("cannot be closed")


def test_whatever_a_driver_raises_the_loss_is_told_first_and_it_is_looked_for_again() -> None:
    device = BrokenDevice()
    is_back = threading.Event()
    samples: list[HandSample] = []

    def on_sample() -> None:
        taken = reader.take()
        samples.extend(taken)
        device.trail.extend("lost" if sample.is_lost else "pushed" for sample in taken)
        if len(samples) >= 3:
            is_back.set()

    reader = SixDofReader(device, on_sample, reopen_s=0.01)
    reader.start()
    assert is_back.wait(5.0)
    assert reader.stop()
    assert device.trail[:4] == ["pushed", "lost", "closed", "pushed"]
    assert not samples[1].axes.any()


class Ear:
    """Collects what a reader says, and waits for it."""

    def __init__(self, **times: float) -> None:
        self.samples: list[HandSample] = []
        self._condition = threading.Condition()
        self.reader = SixDofReader(SpaceMouse(), self._on_sample, reopen_s=0.02, **times)

    def _on_sample(self) -> None:
        with self._condition:
            self.samples += self.reader.take()
            self._condition.notify_all()

    def until(self, predicate, timeout_s: float = 5.0) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: predicate(self.samples), timeout_s)


@pytest.fixture
def ear(plugged):
    made = Ear(stale_s=0.1)
    made.reader.start()
    assert plugged.wait_connected(5.0)
    yield made
    assert made.reader.stop()


def near(axes):
    return lambda samples: bool(samples) and np.allclose(samples[-1].axes, axes, atol=2e-3)


@pytest.mark.parametrize("plugged", ["wireless"], indirect=True)
def test_a_broken_link_lets_go_and_a_press_behind_it_counts(plugged, ear) -> None:
    plugged.press("LEFT")
    plugged.push(HALF)
    assert ear.until(near(HALF))
    assert "LEFT" in ear.samples[-1].pressed
    pushed_ns = ear.samples[-1].stamp_ns
    # The rest of the reports is lost, also that the button came up.
    assert ear.until(near(np.zeros(6)))
    assert 0.1e9 < ear.samples[-1].stamp_ns - pushed_ns < 0.5e9
    assert not ear.samples[-1].pressed
    assert ear.samples[-1].is_lost
    plugged.push(HALF)
    assert ear.until(near(HALF))
    assert not ear.samples[-1].is_lost
    assert not ear.samples[-1].pressed
    plugged.press("LEFT")
    assert ear.until(lambda samples: "LEFT" in samples[-1].pressed)


def test_a_hand_at_rest_does_not_count_as_a_broken_link(plugged, ear) -> None:
    plugged.press("RIGHT")
    assert ear.until(lambda samples: bool(samples))
    assert not ear.until(lambda samples: len(samples) > 1, timeout_s=0.3)
    assert ear.reader.num_losses == 0


def test_unplugged_while_pushed_is_let_go_at_once_and_replugged_works(plugged, ear) -> None:
    plugged.push(HALF)
    assert ear.until(near(HALF))
    begin_s = time.monotonic()
    plugged.unplug()
    assert ear.until(lambda samples: samples[-1].is_lost)
    assert time.monotonic() - begin_s < 0.1
    assert not ear.samples[-1].axes.any()
    assert "gone" in ear.reader.problem or "plugged in" in ear.reader.problem
    assert ear.reader.name == ""
    plugged.plug()
    assert plugged.wait_connected(5.0)
    plugged.push(HALF)
    assert ear.until(near(HALF))
    assert ear.reader.problem == ""
    assert ear.reader.num_losses == 1


def test_a_fast_device_is_never_behind(plugged, ear) -> None:
    for step in range(200):
        plugged.push((step / 200, 0, 0, 0, 0, 0))
    assert ear.until(near((199 / 200, 0, 0, 0, 0, 0)), timeout_s=1.0)
