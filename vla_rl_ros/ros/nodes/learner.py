# SPDX-License-Identifier: Apache-2.0
"""Learns the residual beside the running graph, on this host or another one.

Knows the robot by topics alone: what the actor saw, what was executed, how episodes ended. What it
missed while it was away it gets from their publishers. Nothing waits for it: the actor keeps the
last weights when this process is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from std_msgs.msg import UInt8MultiArray

from vla_rl_ros.core.errors import ReplayError
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.learner_config import LearnerNodeConfig
from vla_rl_ros.ros.learner_intake import SessionIntake
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.processes import LEARNER_SAVE_S
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.sampler import Sampler

if TYPE_CHECKING:
    from vla_rl_ros.ros.learner_worker import LearnerWorker

_OUTCOME = "episode/outcome"
_STOP_S = 3.0
"""How long a stop keeps the executor from everything else; saving goes on without it."""


class LearnerNode(ManagedNode[LearnerNodeConfig]):
    """Publishes `learner/actor` and `learner/metrics`."""

    _weights: Sender
    _metrics: Sender

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("learner", LearnerNodeConfig, overrides)
        self._endpoints, self._sampler = Endpoints(self), Sampler(self)
        self._steady = steady_clock()
        self._worker: LearnerWorker | None = None
        self._said = ""

    def setup(self) -> None:
        """Load torch, make it fast, create topics."""
        # Brings torch, which starting with --help must not need.
        from vla_rl_ros.learning.fused_step import tune_cpu

        tune_cpu(self.config.threads)
        self._weights = self._endpoints.publisher("learner/actor")
        self._metrics = self._endpoints.publisher("learner/metrics")

    def start(self) -> None:
        """Begin to listen and to learn.

        Raises:
            ReplayError: What was stopped before is still being saved in the same directory.
        """
        if self._worker is not None and not self._worker.has_ended:
            raise ReplayError("the learner still saves what it has; activate it again in a moment")
        # What an earlier activation listened with would fill up and be asked by nobody.
        self._sampler.destroy()
        from vla_rl_ros.ros.learner_worker import LearnerWorker, Outlets
        from vla_rl_ros.ros.session_decoder import (
            EXECUTED,
            OBSERVATION,
            SESSION_TOPICS,
            STATE,
        )

        # At its end an episode is told twice: `episode/outcome` also reaches who was away. It is
        # taken second, so that no state of afterwards is taken without it.
        taps = [(STATE, self._sampler.history(name)) for name in (STATE, _OUTCOME)]
        taps += [(name, self._sampler.history(name)) for name in (OBSERVATION, EXECUTED)]
        intake = SessionIntake(
            lambda: [(topic, message) for topic, tap in taps for message in tap.drain()],
            lambda: all(self.count_publishers(topic) for topic in SESSION_TOPICS),
            level=(OBSERVATION, EXECUTED),
            now_s=lambda: self._steady.now().nanoseconds * 1e-9,
            begin_ns=self._now_ns(),
        )
        outlets = Outlets(
            now_ns=self._now_ns,
            weights=self._send_weights,
            metrics=self._send_metrics,
            count=lambda reason: self.diag.count(f"rejected.{reason}"),
            tell=self._tell,
            warn=self._warn,
            fail=self._fail,
        )
        self._worker = LearnerWorker(self.config, intake, outlets)
        self.diag.level(Level.OK, "waiting for the first tick")

    def stop(self, reason: str) -> None:
        """Save and end the thread, which may take longer than this waits."""
        if self._worker is not None and not self._worker.stop(_STOP_S):
            self.get_logger().warning("the learner ends its step and saves")

    def teardown(self) -> None:
        """Leave the topics, from which the thread takes what has ended until it has saved."""
        if self._worker is not None and not self._worker.stop(LEARNER_SAVE_S - _STOP_S):
            # Kept, so that no other one begins in its directory while it has that open.
            self.get_logger().warning("the learner's thread does not end; its last save holds")
        else:
            self._worker = None
        self._endpoints.destroy()
        self._sampler.destroy()

    def _send_weights(self, data: bytes) -> None:
        self._weights.publish(UInt8MultiArray(data=data))
        self.diag.count("weights_sent")

    def _send_metrics(self, metrics: dict[str, float]) -> None:
        self._metrics.publish(encode_channels(metrics, self._now_ns()))
        for name, value in metrics.items():
            self.diag.set(name, value)

    def _tell(self, sentence: str) -> None:
        self.get_logger().info(sentence)
        self.diag.level(Level.OK, sentence)

    def _warn(self, sentence: str) -> None:
        self.get_logger().warning(sentence)
        self.diag.level(Level.WARN, sentence)

    def _fail(self, sentence: str) -> None:
        # The arm does not depend on it; the operator decides when to start it again.
        self.get_logger().error(f"nothing is learned any more: {sentence}")
        self.diag.level(Level.ERROR, f"nothing is learned any more: {sentence}")

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main() -> int:
    """Run the node."""
    return run(LearnerNode)


if __name__ == "__main__":
    raise SystemExit(main())
