# SPDX-License-Identifier: Apache-2.0
"""Start the simulated cell and connect the real libfranka to it, for tests.

`franky.Robot` makes the thread that calls it real-time at the highest priority, and whatever that
thread starts inherits it. Connections are therefore made in a thread that ends right afterwards.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from waiting import until

from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneClient
from vla_rl_ros.tools.child import die_with_parent

LOG = logging.getLogger(__name__)

_ADDRESSES = itertools.count()

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


def own_address() -> str:
    """A loopback address that no other simulator of this or another test process uses."""
    pid = os.getpid()
    return f"127.{64 + next(_ADDRESSES) % 128}.{pid // 250 % 250}.{pid % 250 + 2}"


class ScratchDir(tempfile.TemporaryDirectory):
    """A short path: unix sockets allow no more than 107 bytes, pytest's directories are longer."""

    def __init__(self) -> None:
        super().__init__(prefix="cell", dir="/tmp", ignore_cleanup_errors=True)

    def __enter__(self) -> Path:
        return Path(super().__enter__())


class CellProcess:
    """`vla_rl_ros.sim.cell_process` as a child."""

    def __init__(self, run_dir: Path, *options: str, host: str | None = None) -> None:
        self.run_dir = run_dir
        self.host = host or own_address()
        command = [sys.executable, "-m", "vla_rl_ros.sim.cell_process", "--host", self.host]
        self.process = subprocess.Popen(
            [*command, "--run-dir", str(run_dir), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def __enter__(self) -> CellProcess:
        assert self.wait_ready(), self.stop()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self) -> bool:
        """Whether the process said that it is ready."""
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        return bool(readable) and self.process.stdout.readline() == f"ready {self.host}\n"

    def scene(self) -> SceneClient:
        """A new connection to the scene channel."""
        return SceneClient(self.run_dir / SOCKET_NAME)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End the process; its exit code and what it logged."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, log = self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, log = self.process.communicate()
        return self.process.returncode, log


def in_own_thread(function: Callable[[], object]) -> object:
    """Call a function in a thread that ends afterwards, and hand on what it returns or raises."""
    outcome: dict[str, object] = {}

    def call() -> None:
        try:
            outcome["result"] = function()
        except Exception as error:
            outcome["error"] = error
            LOG.debug("handed on", exc_info=True)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def connect(host: str):
    """A `franky.Robot` whose real-time priority stays in a thread that is gone."""
    import franky

    robot = in_own_thread(lambda: franky.Robot(host, realtime_config=franky.RealtimeConfig.Ignore))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    robot.set_collision_behavior([100.0] * 7, [100.0] * 6)
    robot.relative_dynamics_factor = 0.3
    return robot


def track(robot, clip_m: float = 0.01):
    """A compliant impedance tracker at the present pose, its control loop running."""
    import franky

    tracker = franky.CartesianImpedanceTracker(
        robot,
        translational_stiffness=2000.0,
        rotational_stiffness=75.0,
        translational_error_clip=np.full(3, clip_m),
        rotational_error_clip=np.full(3, 0.1),
    )
    # A motion that is aborted before its first command is reported without a reason.
    assert until(lambda: robot.state.control_command_success_rate > 0.0)
    return tracker


def shifted(pose, x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.0):
    """The pose moved along base axes."""
    import franky

    return franky.Affine(pose.translation + np.array([x_m, y_m, z_m]), pose.quaternion)
