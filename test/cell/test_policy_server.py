# SPDX-License-Identifier: Apache-2.0
"""A policy server that dies while an episode runs: the arm holds and goes on by itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cell.running_cell import Cell, running_cell
from contract.openpi_server import ServerProcess

from vla_rl_ros.core.episode import Phase

pytestmark = [pytest.mark.sim, pytest.mark.graph, pytest.mark.timeout(300)]

MANIFEST = {
    "format": 1,
    "backend": "openpi",
    "control_period_s": 0.1,
    "horizon": 10,
    "cameras": ["front", "wrist"],
    "image_px": 64,
    "image_resize": "area",
    "inputs": {
        "observation/image": "camera.front",
        "observation/wrist_image": "camera.wrist",
        "state": ["tcp.x_m", "tcp.y_m", "tcp.z_m"],
        "prompt": "instruction",
    },
    "action": {"codec": "delta_measured", "gripper": "continuous", "std": [0.2] * 6 + [1.0]},
}
RESUME_S = 2.0
STILL_M = 1e-7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def cell(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder = tmp_path_factory.mktemp("served")
    manifest = folder / "policy.json"
    manifest.write_text(json.dumps(MANIFEST), encoding="utf-8")
    with running_cell(
        folder,
        "127.0.0.41",
        policy="openpi",
        checkpoint=str(manifest),
        record=False,
        overrides={"vla_inference": {"settings.url": server.url}},
    ) as running:
        yield running


def still_s(cell: Cell, since_ns: int) -> float:
    """Time for which the target has not moved by now."""
    time_s, position_m = cell.target.since(since_ns)
    moved = np.linalg.norm(np.diff(position_m, axis=0), axis=1) > STILL_M
    return float(time_s[-1] - (time_s[1:][moved][-1] if moved.any() else time_s[0]))


def test_the_arm_holds_while_the_server_is_away_and_goes_on_when_it_is_back(
    cell: Cell, server: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    cell.run_until_moving("lift", 0)
    pids = {name: cell.pid(name) for name in ("vla_inference", "residual_actor", "intervention")}
    episode = cell.observer.episode
    for _ in range(2):
        killed_ns = cell.observer.node.get_clock().now().nanoseconds
        server.signal(signal.SIGKILL)
        server.stop()
        # What was promised is played to its end, then nothing moves.
        cell.observer.wait_until(
            lambda n=killed_ns: len(cell.target.since(n)[0]) > 40 and still_s(cell, n) > 1.0,
            10.0,
            "the target to stand still",
        )
        assert cell.is_in(Phase.RUNNING)
        assert "policy server" in cell.observer.messages["vla_inference"]
        cell.clear()
        server.start()
        begin_ns = cell.observer.node.get_clock().now().nanoseconds
        cell.observer.wait_until(
            lambda: cell.travel_m() > 0.002, 10.0, "the arm to go on by itself"
        )
        resumed_s = 1e-9 * (cell.observer.node.get_clock().now().nanoseconds - begin_ns)
        record_property("resumed_s", resumed_s)
        assert resumed_s < RESUME_S
    assert cell.observer.episode == episode
    assert pids == {name: cell.pid(name) for name in pids}
