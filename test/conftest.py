# SPDX-License-Identifier: Apache-2.0
"""One ROS domain per test worker, loopback only, one thread per numeric library."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker or "ROS_DOMAIN_ID" not in os.environ:
    _base = int(os.environ.get("VLA_RL_TEST_DOMAIN", "40"))
    os.environ["ROS_DOMAIN_ID"] = str(_base + int(_worker.removeprefix("gw") or 0))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(_ROOT / "config" / "fastdds_shm.xml"))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import pytest  # noqa: E402 - the environment must be set before anything numeric is imported
from hypothesis import settings  # noqa: E402

# Same examples every time, and a busy machine is not a bug.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def executor() -> Iterator[object]:
    """A fresh ROS context with one single-threaded executor; nodes are destroyed in order."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    rclpy.init()
    made = SingleThreadedExecutor()
    try:
        yield made
    finally:
        nodes = list(made.get_nodes())
        made.shutdown()
        while nodes:
            nodes.pop().destroy_node()
        rclpy.try_shutdown()
        # Nodes and their callbacks are cycles, and as long as they live so does their participant;
        # Fast DDS can deadlock when many participants of one process come and go.
        gc.collect()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give what measures real time on processes of its own two more chances.

    The bounds stay as they are; a machine that was busy with something else for a moment is not a
    failure of the graph. Needs pytest-rerunfailures, which the dev environment brings.
    """
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if item.get_closest_marker("graph") or item.get_closest_marker("sim"):
            item.add_marker(pytest.mark.flaky(reruns=2))
