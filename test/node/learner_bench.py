# SPDX-License-Identifier: Apache-2.0
"""A learner in this process beside a session that is told to it, and what it left on disk."""

from __future__ import annotations

from pathlib import Path

from node.learner_session import SessionStub
from node.weights_stub import SEEN
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray

from vla_rl_ros.learning.actor_bytes import decode_actor
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.schedule import Driver
from vla_rl_ros.learning.session_rows import session_layout
from vla_rl_ros.ros.nodes.learner import LearnerNode
from vla_rl_ros.ros.qos import LATCHED
from vla_rl_ros.ros.testing import spin_until

SETTINGS = (
    "learner.hidden=16,16 learner.batch_size=16 learner.base_episodes=2 "
    "learner.warm_up_steps=0 learner.critic_only_updates=5 run.max_utd=1"
)


class Bench:
    """A session, a learner and an ear on what it sends."""

    def __init__(self, executor, directory: Path) -> None:
        self.executor, self.directory = executor, directory
        self.session = SessionStub(executor)
        self.weights: list[bytes] = []
        self.metrics: list[dict[str, float]] = []
        self.session.create_subscription(
            UInt8MultiArray, "learner/actor", lambda m: self.weights.append(bytes(m.data)), LATCHED
        )
        self.session.create_subscription(
            JointState,
            "learner/metrics",
            lambda m: self.metrics.append(dict(zip(m.name, m.position, strict=True))),
            QoSProfile(depth=50),
        )
        self.node: LearnerNode | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if self.node is not None:
            self.stop()

    def start(self, **parameters: object) -> None:
        values = {"settings": SETTINGS, "publish_period_s": 0.2, **parameters}
        self.node = LearnerNode({"autostart": False, "directory": str(self.directory), **values})
        self.executor.add_node(self.node)
        self.node.trigger_configure()
        self.node.trigger_activate()
        assert self.node.is_running

    def stop(self) -> None:
        assert self.node is not None
        self.executor.remove_node(self.node)
        self.node.trigger_shutdown()
        self.node.destroy_node()
        self.node = None

    def until(self, predicate, timeout_s: float = 20.0) -> bool:
        return spin_until(self.executor, predicate, timeout_s)

    def latest(self, name: str) -> float:
        return self.metrics[-1].get(name, float("nan")) if self.metrics else float("nan")

    def updates_sent(self) -> int:
        """Updates behind the latest weights; of two sent at once the older may never be heard."""
        return decode_actor(self.weights[-1]).updates if self.weights else -1

    def driver_sent(self) -> Driver | None:
        """Who is to drive, None before any weights were heard."""
        return decode_actor(self.weights[-1]).driver if self.weights else None

    def stored(self):
        """Rows on disk; the learner must have ended."""
        layout = session_layout(SEEN.dim, SEEN.version)
        replay = Replay(self.directory / "replay" / "online", layout, n_step=5, gamma=0.99)
        rows = replay.rows.copy()
        replay.close()
        return rows
