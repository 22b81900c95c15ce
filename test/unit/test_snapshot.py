# SPDX-License-Identifier: Apache-2.0
"""The state file between simulator and cameras: whole, newest, never waiting."""

from __future__ import annotations

import sys
import threading

import mujoco
import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.sim.snapshot import SnapshotReader, SnapshotWriter

SCENE = """
<mujoco>
  <worldbody>
    <body name="shelf" mocap="true" pos="1 2 3"><geom size=".1"/></body>
    <body name="ball"><freejoint/><geom name="ball" size=".1"/></body>
    <body name="arm"><joint name="hinge"/><geom size=".1"/></body>
  </worldbody>
  <equality><joint joint1="hinge" active="false"/></equality>
</mujoco>
"""


@pytest.fixture
def model():
    return mujoco.MjModel.from_xml_string(SCENE)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.bin"


def test_reader_gets_what_was_written(model, path):
    data, other = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos[:] = np.arange(model.nq)
    data.mocap_pos[0] = 4, 5, 6
    data.time, data.eq_active[0] = 1.5, 1
    SnapshotWriter(path, model).write(data, stamp_ns=123)
    snapshot = SnapshotReader(path).read()
    assert snapshot is not None
    assert (snapshot.stamp_ns, snapshot.sim_time_s) == (123, 1.5)
    snapshot.apply(other)
    np.testing.assert_array_equal(other.qpos, data.qpos)
    np.testing.assert_array_equal(other.mocap_pos, data.mocap_pos)
    np.testing.assert_array_equal(other.mocap_quat, data.mocap_quat)
    assert other.eq_active[0] == 1


def test_nothing_is_read_before_the_first_write(model, path):
    SnapshotWriter(path, model)
    assert SnapshotReader(path).read() is None


def test_a_write_that_never_ended_is_not_read(model, path):
    writer = SnapshotWriter(path, model)
    writer.write(mujoco.MjData(model))
    reader = SnapshotReader(path)
    writer._sequence[0] += 1  # noqa: SLF001, as after SIGKILL between the two increments
    assert reader.read() is None


def test_a_payload_that_does_not_fit_its_checksum_is_not_read(model, path):
    writer = SnapshotWriter(path, model)
    writer.write(mujoco.MjData(model))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    assert SnapshotReader(path).read() is None


@pytest.fixture
def fast_switching():
    """Let threads alternate within a write, as two processes do."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("fast_switching")
def test_no_torn_state_under_a_busy_writer(model, path):
    writer, data = SnapshotWriter(path, model), mujoco.MjData(model)
    is_done = threading.Event()

    def write(value: float) -> None:
        data.qpos[:] = value
        data.mocap_pos[:] = value
        writer.write(data)

    def write_for_ever() -> None:
        value = 0.0
        while not is_done.is_set():
            value += 1.0
            write(value)

    # A reader may come before the thread's first turn.
    write(0.0)

    thread = threading.Thread(target=write_for_ever)
    thread.start()
    reader, seen = SnapshotReader(path), []
    try:
        while len(seen) < 300:
            snapshot = reader.read()
            if snapshot is not None:
                assert np.ptp(snapshot.qpos) == 0.0
                assert snapshot.mocap_pos_m[0, 0] == snapshot.qpos[0]
                seen.append(snapshot.qpos[0])
    finally:
        is_done.set()
        thread.join()
    assert seen == sorted(seen)


def test_reader_notices_another_simulator(model, path):
    writer = SnapshotWriter(path, model)
    reader = SnapshotReader(path)
    assert not reader.is_replaced
    SnapshotWriter(path, model)
    assert reader.is_replaced
    writer.close()
    assert not path.exists()
    assert reader.is_replaced


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(400)])
def test_files_that_are_no_snapshot_are_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeviceError, match="simulator state"):
        SnapshotReader(path)
