# SPDX-License-Identifier: Apache-2.0
"""Owns the control tick: plays the active chunk, adds the bounded residual, proposes an action.

A tick for which the chunk has no element proposes nothing; the gate then holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.timer import Timer
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.chunking import ChunkSchedule, Step, Verdict
from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import PolicyAction
from vla_rl_ros.core.residual import clip_action, residual_action
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.ticks import TickGrid
from vla_rl_ros.ros.action_codecs import encode_observation, encode_policy_action
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.codecs import decode_chunk, decode_episode
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.sampler import Sampler
from vla_rl_ros.ros.state_reader import StateReader
from vla_rl_ros.ros.timing import Window

NO_RESIDUAL = np.zeros(ACTION_DIM)


@dataclass(frozen=True, kw_only=True)
class ResidualActorConfig:
    """Control rate and residual bound."""

    control_period_s: float = param(
        0.1, doc="Time between two ticks.", unit="s", low=0.02, high=1.0
    )
    residual_scale: float = param(
        0.15,
        doc="Largest residual per channel, as a share of the action's range.",
        low=0.0,
        high=1.0,
        live=True,
    )
    max_state_age_s: float = param(
        0.1, doc="Largest age of the arm's state at a tick.", unit="s", low=0.01, high=1.0
    )
    max_gripper_age_s: float = param(
        0.5, doc="Largest age of the gripper's state at a tick.", unit="s", low=0.02, high=2.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


class ResidualActorNode(ManagedNode[ResidualActorConfig]):
    """Publishes `policy/observation` and `policy/action` at every tick that has an element."""

    _action: Sender
    _observation: Sender
    _state: StateReader

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("residual_actor", ResidualActorConfig, overrides)
        self._steady = steady_clock()
        self._endpoints = Endpoints(self)
        self._sampler = Sampler(self)
        self._timer: Timer | None = None
        self._episode = EpisodeState()

    def setup(self) -> None:
        """Create topics."""
        config = self.config
        self._period_ns = round(config.control_period_s * NS_PER_S)
        self._spec = ActionSpec(control_period_s=config.control_period_s)
        self._schedule = ChunkSchedule(self._period_ns)
        self._grid = TickGrid(self._period_ns)
        self._state = StateReader(
            self._sampler,
            max_age_s=config.max_state_age_s,
            max_gripper_age_s=config.max_gripper_age_s,
            depth=4,
        )
        self._action = self._endpoints.publisher("policy/action")
        self._observation = self._endpoints.publisher("policy/observation")
        self._endpoints.reader("episode/state", self._on_episode)
        self._endpoints.reader("policy/chunk", self._on_chunk)

    def start(self) -> None:
        """Begin to tick on an absolute schedule."""
        self._lateness_ms = Window(600)
        self._was_playing = True
        self._played_id: int | None = None
        self._timer = self.create_timer(
            self.config.control_period_s, self._on_tick, clock=self._steady
        )

    def stop(self, reason: str) -> None:
        """Stop ticking; silence makes the gate hold."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def teardown(self) -> None:
        """Leave the topics."""
        self._endpoints.destroy()
        self._sampler.destroy()

    def _on_episode(self, message: DiagnosticArray) -> None:
        try:
            episode = decode_episode(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.episode.{error.reason}")
            return
        if episode.epoch != self._schedule.epoch:
            self._schedule.reset(episode.epoch)
        self._episode = episode

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            chunk = decode_chunk(message, self._period_ns)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.chunk.{error.reason}")
            return
        next_ns = self._grid.next_ns or self.get_clock().now().nanoseconds
        verdict = self._schedule.offer(chunk, next_ns)
        self.diag.count(f"chunks.{verdict.value}")
        if verdict is Verdict.TOO_LATE:
            self.get_logger().warning(
                f"chunk {chunk.chunk_id} is too late for its {chunk.horizon} elements",
                throttle_duration_sec=1.0,
            )

    def _on_tick(self) -> None:
        tick_ns = self._tick_stamp()
        if self._episode.phase is not Phase.RUNNING:
            return
        self.diag.count("ticks")
        step = self._schedule.at(tick_ns)
        if step is None:
            self.diag.count("underflows")
            self._show(is_playing=False, sentence="no element of a chunk for this tick")
            return
        try:
            state = self._state.read(tick_ns)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self._show(is_playing=False, sentence=str(error))
            return
        self._action.publish(encode_policy_action(self._propose(tick_ns, step)))
        self._observation.publish(encode_observation(state, tick_ns))
        self._show(is_playing=True, sentence="active")

    def _propose(self, tick_ns: int, step: Step) -> PolicyAction:
        if step.chunk.chunk_id != self._played_id:
            self._played_id = step.chunk.chunk_id
            self.diag.count("chunks_played")
            self.diag.set("delay_ticks", step.index)
        base = clip_action(step.action, self._spec)
        return PolicyAction(
            stamp_ns=tick_ns,
            epoch=step.chunk.epoch,
            chunk_id=step.chunk.chunk_id,
            chunk_step=step.index,
            delay_ticks=step.chunk.delay_ticks,
            base=base,
            residual=residual_action(base, NO_RESIDUAL, self.config.residual_scale, self._spec),
        )

    def _tick_stamp(self) -> int:
        assert self._timer is not None
        # The timer's schedule is absolute: what is left of this period says how late we are.
        left_ns = self._timer.time_until_next_call()
        late_ns = 0 if left_ns is None else self._period_ns - left_ns
        self._lateness_ms.add(late_ns * 1e-6)
        self.diag.set("tick_late_p99_ms", self._lateness_ms.quantile(0.99))
        stamp_ns = self._grid.stamp(self.get_clock().now().nanoseconds - late_ns)
        self.diag.set("ticks_skipped", float(self._grid.num_skipped))
        return stamp_ns

    def _show(self, *, is_playing: bool, sentence: str) -> None:
        if is_playing != self._was_playing:
            self._was_playing = is_playing
            self.diag.level(Level.OK if is_playing else Level.WARN, sentence)


def main() -> int:
    """Run the node."""
    return run(ResidualActorNode)


if __name__ == "__main__":
    raise SystemExit(main())
