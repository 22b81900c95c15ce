# SPDX-License-Identifier: Apache-2.0
"""A node that takes part in episodes: it knows the phase and owns its topics and its tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.sampler import Sampler

C = TypeVar("C")


class EpisodeNode(ManagedNode[C]):
    """Base of the nodes between observation and action.

    A subclass calls `follow_episodes` in its `setup` and may override `on_episode` and
    `on_executed`, which get valid messages only.

    Attributes:
        episode: The newest state of the episode.
        endpoints: Publishers and subscriptions, destroyed in `teardown`.
        sampler: Subscriptions that are read when somebody asks, destroyed in `teardown`.
    """

    def __init__(
        self, name: str, config_type: type[C], overrides: dict[str, object] | None = None
    ) -> None:
        """Declare parameters; arguments as `ManagedNode`."""
        super().__init__(name, config_type, overrides)
        self.episode = EpisodeState()
        self.endpoints = Endpoints(self)
        self.sampler = Sampler(self)
        self._steady = steady_clock()
        self._timer: Timer | None = None
        self._said = ""

    def follow_episodes(self, *, with_rows: bool = True) -> None:
        """Listen to the supervisor and to what is executed.

        Args:
            with_rows: Whether `on_executed` is called; the gate need not hear its own rows.
        """
        self.endpoints.reader("episode/state", self._on_episode)
        if with_rows:
            self.endpoints.reader("action/executed", self._on_executed)

    def on_episode(self, before: EpisodeState) -> None:
        """React to a state of the episode, which `episode` holds already.

        Args:
            before: The state before.
        """

    def on_executed(self, row: ExecutedAction) -> None:
        """React to an executed tick."""

    def start_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call back on an absolute schedule of the steady clock until `stop`."""
        self._timer = self.create_timer(period_s, callback, clock=self._steady)
        return self._timer

    def stop(self, reason: str) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def teardown(self) -> None:
        """Leave the topics."""
        self.endpoints.destroy()
        self.sampler.destroy()

    def say(self, level: Level, sentence: str) -> None:
        """Show a sentence in diagnostics, once until another one is said."""
        if sentence != self._said:
            self._said = sentence
            self.diag.level(level, sentence)

    def now_ns(self) -> int:
        """Present ROS time, which stamps carry."""
        return int(self.get_clock().now().nanoseconds)

    def now_s(self) -> float:
        """Present steady time, which no one sets."""
        return float(self._steady.now().nanoseconds * 1e-9)

    def _on_episode(self, message: DiagnosticArray) -> None:
        try:
            episode = decode_episode(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.episode.{error.reason}")
            return
        before, self.episode = self.episode, episode
        self.on_episode(before)

    def _on_executed(self, message: JointState) -> None:
        if not self.is_running:
            return
        try:
            row = decode_executed(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.executed.{error.reason}")
            return
        self.on_executed(row)
