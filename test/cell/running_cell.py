# SPDX-License-Identifier: Apache-2.0
"""A whole simulated cell for tests: every process, an observer, and a side door to the scene."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from geometry_msgs.msg import PoseStamped

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.graph_options import GraphOptions
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.ros.target_source import Trace
from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneClient
from vla_rl_ros.tools.graph import RunningGraph, run_graph

BRINGUP_S = 90.0
CONTROLLER = "impedance_controller"


@dataclass(slots=True)
class Cell:
    """A running cell and what is seen of it."""

    graph: RunningGraph
    observer: GraphObserver
    scene: SceneClient
    reference: Trace
    measured: Trace
    target: Trace

    def wait_for(self, phase: Phase, timeout_s: float = 60.0) -> None:
        self.observer.wait_until(
            lambda: self.observer.episode is not None and self.observer.episode.phase is phase,
            timeout_s,
            lambda: f"phase {phase.value}, now {self.observer.episode}",
            self.graph.check,
        )

    def run_until_moving(self, task: str, seed: int) -> None:
        """Start an episode and wait until the arm has visibly left its start.

        An episode that ends at once is begun again: the supervisor may notice only within it that
        a process was killed a moment ago.
        """
        for _ in range(4):
            self.wait_for(Phase.IDLE)
            self.observer.set_parameters("supervisor", {"task": task, "seed": seed})
            before = self.observer.episode
            self.start_episode()
            self.observer.wait_until(
                lambda b=before: (
                    self.observer.episode != b and self.is_in(Phase.READY, Phase.ENDED)
                ),
                60.0,
                lambda: f"an episode, now {self.observer.episode}",
                self.graph.check,
            )
            self.clear()
            self.observer.wait_until(
                lambda: self.travel_m() > 0.03 or self.is_in(Phase.ENDED, Phase.IDLE),
                30.0,
                "the arm to move",
            )
            if self.is_in(Phase.RUNNING):
                return
        raise AssertionError(f"no episode ran: {self.observer.episode}")

    def is_in(self, *phases: Phase) -> bool:
        return self.observer.episode is not None and self.observer.episode.phase in phases

    def start_episode(self, timeout_s: float = 45.0) -> None:
        """Ask until the supervisor agrees: a node that was killed has to come back first."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self.observer.trigger("supervisor/start_episode")
            except VlaRlError:  # noqa: PERF203 - asking again is the point
                if time.monotonic() > deadline_s:
                    raise
                self.observer.spin(0.2)
            else:
                return

    def settle(self) -> None:
        """Wait until the arm has come to rest after whatever it did."""
        self.clear()

        def is_still() -> bool:
            newest = self.measured.positions_m[-200:]
            return len(newest) == 200 and float(np.ptp(newest, axis=0).max()) < 5e-5

        self.observer.wait_until(is_still, 20.0, "the arm to rest")
        self.clear()

    def travel_m(self) -> float:
        """Distance between the first and the newest measured position."""
        positions = self.measured.positions_m
        if len(positions) < 2:
            return 0.0
        return float(np.linalg.norm(np.subtract(positions[-1], positions[0])))

    def clear(self) -> None:
        for trace in (self.reference, self.measured, self.target):
            trace.clear()

    def pid(self, process: str) -> int:
        """Process id of one process of the graph, by its module or node name."""
        runner = psutil.Process(self.graph.runner_pid)
        for child in runner.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if f"vla_rl_ros.ros.nodes.{process}" in words or f"__node:={process}" in words:
                    return child.pid
        raise AssertionError(f"no process {process} in the graph")

    def kill(self, process: str) -> int:
        """SIGKILL a process; returns the ROS time of the kill."""
        pid = self.pid(process)
        stamp_ns = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        return stamp_ns

    def counted(self, node: str, prefix: str) -> int:
        """Sum of a node's diagnostics counters that start with `prefix`."""
        values = self.observer.diagnostics.get(node, {})
        return sum(int(float(v)) for key, v in values.items() if key.startswith(prefix))


@contextlib.contextmanager
def running_cell(out: Path, address: str, **options: object) -> Iterator[Cell]:
    """Run a cell for the time of a with block, with the scripted policy unless told otherwise."""
    options = {"policy": "scripted", **options}
    graph_options = GraphOptions(out=out, robot_ip=address, **options)  # type: ignore[arg-type]
    with contextlib.ExitStack() as stack:
        graph = stack.enter_context(run_graph(graph_options))
        # A process killed within a shared-memory write can leave its readers waiting for ever;
        # the observer of such kills listens over UDP instead.
        os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
        os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
        observer = stack.enter_context(GraphObserver())
        scene = stack.enter_context(SceneClient(graph.run_dir / SOCKET_NAME))
        cell = Cell(graph, observer, scene, Trace(), Trace(), Trace())
        observer.subscribe(PoseStamped, "arm/reference_pose", cell.reference.note)
        observer.subscribe(PoseStamped, "arm/tcp_pose", cell.measured.note)
        observer.subscribe(PoseStamped, "arm/target_pose", cell.target.note)
        cell.wait_for(Phase.IDLE, BRINGUP_S)
        yield cell
