# SPDX-License-Identifier: Apache-2.0
"""Counts beside a learner: was every executed tick stored, did it go on where it was killed?

Listens to the gate itself and compares with what lies on disk afterwards, so that no counter of
the learner's has to be believed.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.learning.actor_bytes import ActorWeights, decode_actor
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.channels import decode_channels, from_stamp
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.ros.qos import LATCHED

_MODULE = "vla_rl_ros.ros.nodes.learner"


class Audit:
    """What was executed, and what the learner said.

    Attributes:
        metrics: Newest of the learner's.
        weights: Newest the learner sent, None before the first.
        restarts: For each killing, the update whose weights were out and the one it went on from.
    """

    def __init__(self, observer: GraphObserver) -> None:
        """Listen on an observer's node."""
        self.metrics: dict[str, float] = {}
        self.weights: ActorWeights | None = None
        self.restarts: list[dict[str, int]] = []
        self._executed: dict[int, dict[int, Source]] = defaultdict(dict)
        self._over_ns: dict[int, int] = {}
        self._claimed: dict[int, bool] = {}
        self._true: dict[int, bool] = {}
        self._is_true_now = False
        self._is_killed = False
        every = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=3000, reliability=ReliabilityPolicy.RELIABLE
        )
        node = observer.node
        node.create_subscription(JointState, "action/executed", self._on_executed, every)
        node.create_subscription(DiagnosticArray, "episode/outcome", self._on_outcome, every)
        node.create_subscription(JointState, "sim/success", self._on_truth, every)
        node.create_subscription(JointState, "learner/metrics", self._on_metrics, every)
        node.create_subscription(UInt8MultiArray, "learner/actor", self._on_weights, LATCHED)

    @property
    def num_ticks(self) -> int:
        """Ticks executed in episodes that have ended."""
        return sum(len(self._ticks(epoch)) for epoch in self._over_ns)

    def kill_learner(self, runner_pid: int) -> bool:
        """Kill the learner of a graph as a crash would; returns whether there was one."""
        for process in psutil.Process(runner_pid).children(recursive=True):
            if _MODULE in " ".join(process.cmdline()):
                self._is_killed = True
                os.kill(process.pid, signal.SIGKILL)
                return True
        return False

    def ticks_without_row(self, run: Path) -> int:
        """Ticks of ended episodes that are in no row of a learner's run, which must have ended."""
        stored = stored_ticks(run)
        return sum(len(self._ticks(epoch) - stored.get(epoch, set())) for epoch in self._over_ns)

    def _ticks(self, epoch: int) -> set[int]:
        """Stamps of an episode; before its first action the gate holds on a grid of its own."""
        ticks = self._executed[epoch]
        begin_ns = min(
            (stamp for stamp, source in ticks.items() if source is not Source.HOLD), default=0
        )
        return {stamp for stamp in ticks if begin_ns <= stamp <= self._over_ns[epoch]}

    def latest(self, count: int) -> dict[str, float | None]:
        """How the latest episodes went.

        Args:
            count: How many.

        Returns:
            Their number, the part that ended as a success, the part in which the simulator said
            so as well, and the part of ticks in which a human drove; None for parts of nothing.
        """
        epochs = sorted(self._over_ns)[-count:]
        ticks = [self._executed[epoch][stamp] for epoch in epochs for stamp in self._ticks(epoch)]
        return {
            "episodes": len(epochs),
            "success": _part(self._claimed[epoch] for epoch in epochs),
            "true_success": _part(self._true[epoch] for epoch in epochs),
            "intervention_rate": _part(source is Source.HUMAN for source in ticks),
        }

    def _on_executed(self, message: JointState) -> None:
        row = decode_executed(message)
        self._executed[row.epoch][row.stamp_ns] = row.source

    def _on_outcome(self, message: DiagnosticArray) -> None:
        state = decode_episode(message)
        if state.epoch not in self._over_ns:
            self._over_ns[state.epoch] = from_stamp(message.header.stamp)
            self._claimed[state.epoch] = state.outcome is Outcome.SUCCESS
            self._true[state.epoch] = self._is_true_now

    def _on_truth(self, message: JointState) -> None:
        self._is_true_now = decode_channels(message, SUCCESS_CHANNELS)["success.decided"] > 0.5

    def _on_metrics(self, message: JointState) -> None:
        self.metrics = dict(zip(message.name, message.position, strict=True))

    def _on_weights(self, message: UInt8MultiArray) -> None:
        found = decode_actor(bytes(message.data))
        if self._is_killed and self.weights is not None:
            self._is_killed = False
            steps = {"killed_at": self.weights.updates, "went_on_at": found.updates}
            self.restarts.append(steps)
        self.weights = found

    def summary(self) -> dict[str, Any]:
        """What the learner said last."""
        names = (
            "updates", "utd", "updates_per_s", "intervention_rate", "success.base",
            "success.residual", "success.best", "xi", "fall_backs", "rows",
        )  # fmt: skip
        return {
            name.replace(".", "_"): round(self.metrics[name], 4)
            for name in names
            if name in self.metrics
        }


def _part(values: Iterable[bool]) -> float | None:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else None


def stored_ticks(run: Path) -> dict[int, set[int]]:
    """Stamps of the ticks in a learner's run, by episode; the learner must have ended."""
    from vla_rl_ros.learning.row_log import RowLog, read_layout

    directory = run / "replay" / "online"
    layout = read_layout(directory)
    if layout is None:
        return {}
    log = RowLog(directory, layout)
    stored: dict[int, set[int]] = defaultdict(set)
    rows = log.rows
    for epoch, stamp_ns in zip(rows["episode"].tolist(), rows["stamp_ns"].tolist(), strict=True):
        stored[epoch].add(stamp_ns)
    log.close()
    return dict(stored)
