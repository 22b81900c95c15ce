# SPDX-License-Identifier: Apache-2.0
"""One simulated cell per test module, as a process of its own on a loopback address of its own."""

from __future__ import annotations

import pytest
from cell.fci_client import CellProcess, ScratchDir


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A running cell at real time; its objects are shared by the tests of a module."""
    with ScratchDir() as run_dir, CellProcess(run_dir) as process:
        yield process


@pytest.fixture
def scene(cell):
    """The scene channel of the running cell, faults and walls removed afterwards."""
    with cell.scene() as client:
        yield client
        client.request("remove_wall")
        client.request("inject", fault="missed_packet_limit", packets=0)
