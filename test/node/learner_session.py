# SPDX-License-Identifier: Apache-2.0
"""Episodes as the rest of the graph tells them to a learner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from node.weights_stub import SEEN
from rclpy.node import Node
from sensor_msgs.msg import JointState

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.intervention import ExecutedAction, Source
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.ros.action_codecs import encode_executed, encode_observation
from vla_rl_ros.ros.endpoints import message_type
from vla_rl_ros.ros.episode_codec import encode_episode
from vla_rl_ros.ros.graph import TOPIC_BY_NAME
from vla_rl_ros.ros.qos import PUBLISHER_QOS

P = 100_000_000
_TOPICS = ("policy/observation", "action/executed", "episode/state", "episode/outcome")


class SessionStub(Node):
    """Actor, gate and supervisor of a session whose time runs as fast as it is told."""

    def __init__(self, executor) -> None:
        super().__init__("session_stub")
        executor.add_node(self)
        self._senders = {
            name: self.create_publisher(
                message_type(TOPIC_BY_NAME[name].type),
                name,
                PUBLISHER_QOS[TOPIC_BY_NAME[name].qos],
            )
            for name in _TOPICS
        }
        self._now_ns = int(self.get_clock().now().nanoseconds) - 10**12
        self._epoch, self._phase = 100, Phase.IDLE
        self._rng = np.random.default_rng(0)
        self.num_ticks = 0
        self.create_timer(0.1, self._beat)

    def number_from(self, epoch: int) -> None:
        """The next episode has the number behind this one."""
        self._epoch = epoch

    def state(self, phase: Phase, outcome: Outcome | None = None) -> EpisodeState:
        return EpisodeState(
            phase=phase,
            episode_id=f"e{self._epoch}",
            epoch=self._epoch,
            task="lift",
            instruction="lift the red cube",
            seed=self._epoch,
            outcome=outcome,
        )

    def episode(
        self, ticks: int = 20, *, success: bool = True, source: Source = Source.VLA
    ) -> None:
        """Tell a whole episode."""
        self.begin()
        self.ticks(ticks, source=source)
        self.end(success=success)

    def begin(self) -> None:
        self._epoch += 1
        self._now_ns += P
        self._tell(Phase.RUNNING)

    def ticks(
        self,
        count: int,
        *,
        source: Source = Source.VLA,
        spoil: Callable[[JointState], None] | None = None,
    ) -> None:
        """Tell ticks, their observations spoilt where that is asked."""
        for _ in range(count):
            self._now_ns += P
            vector = SEEN.vector(self._rng.normal(size=20), 0.5, self._rng.normal(size=2))
            row = ExecutedAction(
                stamp_ns=self._now_ns,
                epoch=self._epoch,
                source=source,
                executed=np.array([*self._rng.uniform(-0.01, 0.01, 6), 1.0]),
                base=np.array([*self._rng.uniform(-0.01, 0.01, 6), 1.0]),
                residual=np.zeros(7),
                chunk_id=1,
                chunk_step=1,
            )
            seen = encode_observation(SEEN, vector, self._now_ns)
            if spoil is not None:
                spoil(seen)
            self._send("policy/observation", seen)
            self._send("action/executed", encode_executed(row))
            self.num_ticks += 1

    def blind_tick(self) -> None:
        """A tick that an actor saw right after its start: no chunk, and no features known."""
        fresh = ActorObservationSpec()
        self._now_ns += P
        vector = fresh.vector(np.zeros(20), 1.0)
        self._send("policy/observation", encode_observation(fresh, vector, self._now_ns))

    def to_present(self) -> None:
        """Leave the past: what is told from now on has stamps of now and of a moment later."""
        self._now_ns = int(self.get_clock().now().nanoseconds)

    def end(self, *, success: bool = True) -> None:
        self.verdict(success=success)
        self._now_ns += 10**9
        self._tell(Phase.IDLE)

    def verdict(self, *, success: bool = True) -> None:
        """Tell how the episode ended, and nothing of what comes after it."""
        self._now_ns += P // 2
        outcome = Outcome.SUCCESS if success else Outcome.TIMEOUT
        ended = self.state(Phase.ENDED, outcome)
        self._send("episode/outcome", encode_episode(ended, self._now_ns))
        self._tell(Phase.ENDED, outcome)

    def _tell(self, phase: Phase, outcome: Outcome | None = None) -> None:
        self._phase = phase
        self._send("episode/state", encode_episode(self.state(phase, outcome), self._now_ns))

    def _beat(self) -> None:
        # The session lies in the past, and its present goes on. So by its stamp a heartbeat of a
        # running episode comes after the end of it, as if a clock had been set back.
        if self._phase in (Phase.IDLE, Phase.RUNNING):
            now_ns = max(self._now_ns, int(self.get_clock().now().nanoseconds))
            self._send("episode/state", encode_episode(self.state(self._phase), now_ns))

    def _send(self, name: str, message: object) -> None:
        self._senders[name].publish(message)
