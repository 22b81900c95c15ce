# SPDX-License-Identifier: Apache-2.0
"""The process around the simulated cell: start, refusals, clean end, speed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

import pytest
from cell.fci_client import CellProcess, ScratchDir, connect, track
from waiting import until

franky = pytest.importorskip("franky")

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_nothing_is_left(number):
    with ScratchDir() as run_dir:
        process = CellProcess(run_dir)
        assert process.wait_ready()
        assert {"scene.sock", "state.bin", "model.mjb"} <= {p.name for p in run_dir.iterdir()}
        assert os.sched_getscheduler(process.process.pid) == os.SCHED_OTHER
        code, log = process.stop(number)
        assert code == 0, log
        assert list(run_dir.iterdir()) == []


def test_shutdown_by_request():
    with ScratchDir() as run_dir, CellProcess(run_dir) as process:
        with process.scene() as scene:
            scene.request("shutdown")
        assert process.process.wait(5.0) == 0


def test_a_second_simulator_on_the_same_address_is_refused_with_a_sentence(cell):
    with ScratchDir() as run_dir:
        second = CellProcess(run_dir, host=cell.host)
        assert not second.wait_ready()
        code, log = second.stop()
    assert code == 1
    assert f"ports 1337 and 1338 of {cell.host} are taken" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--variant", "nightmare"), "unknown scene variant 'nightmare', known are: "),
        (("--run-dir", "/nonexistent"), "run directory /nonexistent does not exist"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(options, sentence):
    with ScratchDir() as run_dir:
        process = CellProcess(run_dir, *options)
        assert not process.wait_ready()
        code, log = process.stop()
    assert code == 1
    assert sentence in log
    assert "Traceback" not in log


def test_malformed_clients_are_dropped_and_the_arm_stays(cell, scene):
    before = scene.request("stats")["num_malformed_clients"]
    for payload in (b"\xff" * 64, b"\x63\0\0\0\1\0\0\0\x0c\0\0\0", bytes(64)):
        with socket.create_connection((cell.host, 1337), timeout=2.0) as raw:
            raw.sendall(payload)
            raw.settimeout(0.2)
            with contextlib.suppress(OSError):
                raw.recv(64)  # what it answers, or that it hung up
    assert until(lambda: scene.request("stats")["num_malformed_clients"] >= before + 2)
    assert not connect(cell.host).has_errors


def test_free_running_is_faster_than_real_time_and_stays_in_control():
    with ScratchDir() as run_dir, CellProcess(run_dir, "--free") as process:
        robot = connect(process.host)
        tracker = track(robot)
        with process.scene() as scene:
            assert until(lambda: scene.request("stats")["is_in_motion"])
            before = scene.request("ping")
            assert until(lambda: scene.request("ping")["sim_time_s"] > 2.0, 20.0)
            after, stats = scene.request("ping"), scene.request("stats")
        assert robot.is_in_control
        tracker.stop()
    wall_s = (after["stamp_ns"] - before["stamp_ns"]) * 1e-9
    assert after["sim_time_s"] - before["sim_time_s"] > 1.2 * wall_s
    assert stats["num_missed_commands"] < 0.05 * stats["num_steps"]
