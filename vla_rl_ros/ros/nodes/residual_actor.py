# SPDX-License-Identifier: Apache-2.0
"""Owns the control tick: plays the plan, adds the bounded residual, proposes an action.

Every chunk says how it is to be executed. A tick for which the plan has no element proposes
nothing; the gate then holds. Weights arrive between ticks; without weights that fit, and wherever
a learner says so, the base is proposed as it is.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.chunking import Step, Verdict
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction, PolicyAction
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.ticks import TickGrid
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.learning.acting_residual import ActingResidual
from vla_rl_ros.learning.actor_bytes import decode_actor, read_actor
from vla_rl_ros.learning.actor_view import ActorView
from vla_rl_ros.ros.action_codecs import (
    decode_features,
    encode_observation,
    encode_policy_action,
)
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.chunk_codec import decode_chunk
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Sender
from vla_rl_ros.ros.episode_node import EpisodeNode
from vla_rl_ros.ros.residual_actor_config import ResidualActorConfig
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.state_reader import StateLimits, StateReader
from vla_rl_ros.ros.timing import Window
from vla_rl_ros.ros.urgency import Urgency
from vla_rl_ros.ros.weights_report import WeightsReport

NO_RESIDUAL = np.zeros(ACTION_DIM)
# The timer calls this long before the tick: through the executor it takes 0.4 ms, and code that
# has not run for a tenth of a second takes twice as long.
_LEAD_NS = 900_000
_LATE = (Verdict.LATER_THAN_PROMISED, Verdict.TOO_LATE)


class ResidualActorNode(EpisodeNode[ResidualActorConfig]):
    """Publishes `policy/observation` at every running tick and `policy/action` where it may."""

    _action: Sender
    _observation: Sender
    _state: StateReader

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("residual_actor", ResidualActorConfig, overrides)
        self._plan: ChunkPlan | None = None

    def setup(self) -> None:
        """Create topics, and read the weights to begin with."""
        config = self.config
        self._period_ns = round(config.control_period_s * NS_PER_S)
        self._spec = ActionSpec(control_period_s=config.control_period_s)
        self._residual = ActingResidual(self._spec)
        if config.residual:
            self._residual.take(read_actor(Path(config.residual).expanduser()))
        self._view = ActorView()
        self._weights_shown = WeightsReport(self.diag, self._residual)
        self._rng = np.random.default_rng([config.explore_seed, 3])
        self._plan = ChunkPlan(self._period_ns, is_shadow=config.shadow)
        self._plan.reset(self.episode.epoch)
        self._grid = TickGrid(self._period_ns)
        limits = StateLimits(
            max_age_s=config.max_state_age_s, max_gripper_age_s=config.max_gripper_age_s, depth=4
        )
        self._state = StateReader(self.sampler, limits)
        self._action = self.endpoints.publisher("policy/action")
        self._observation = self.endpoints.publisher("policy/observation")
        self.follow_episodes()
        # Before the chunks, so that of two that wait the features are taken first.
        self.endpoints.reader("policy/features", self._on_features)
        self.endpoints.reader("policy/chunk", self._on_chunk)
        self.endpoints.reader("learner/actor", self._on_weights)

    def start(self) -> None:
        """Begin to tick on an absolute schedule."""
        self._lateness_ms, self._age_ms, self._cost_ms = Window(600), Window(600), Window(600)
        self._was_playing = True
        self._played_id: int | None = None
        self._tick = self.start_timer(self.config.control_period_s, self._on_tick)

    def on_episode(self, before: EpisodeState) -> None:
        """Forget the plan of the last episode."""
        plan = self._running()
        if self.episode.epoch != plan.epoch:
            plan.reset(self.episode.epoch)
            self._view.reset()
            self._residual.begin_episode()

    def on_executed(self, row: ExecutedAction) -> None:
        """Learn what became of the proposals; a human who drives ends the plan."""
        verdict = self._running().on_executed(row)
        if verdict is Verdict.BEFORE_TAKEOVER:
            self.diag.count("takeovers")
        elif verdict is not None:
            self.diag.count(f"chunks.{verdict.value}")

    def _on_features(self, message: JointState) -> None:
        try:
            self._view.on_features(*decode_features(message))
        except InvalidCommandError as error:
            self.diag.count(f"rejected.features.{error.reason}")

    def _on_weights(self, message: UInt8MultiArray) -> None:
        try:
            self._residual.take(decode_actor(bytes(message.data)))
        except InvalidCommandError as error:
            self._weights_shown.refused(error)
            self.get_logger().error(
                f"weights refused, the old ones act on: {error}", throttle_duration_sec=1.0
            )
            return
        self._weights_shown.taken()

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            chunk = decode_chunk(message, self._period_ns)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.chunk.{error.reason}")
            return
        next_ns = self._grid.next_ns or self.now_ns()
        verdict = self._running().offer(chunk, next_ns)
        self.diag.count(f"chunks.{verdict.value}")
        if verdict in _LATE:
            self.get_logger().warning(
                f"chunk {chunk.chunk_id} for a delay of {chunk.delay_ticks} of {chunk.horizon} "
                "ticks is too late",
                throttle_duration_sec=1.0,
            )

    def _on_tick(self) -> None:
        self._weights_shown.show(self._view.spec, self.config.residual_scale, self.now_ns())
        if self.episode.phase is Phase.RUNNING:
            self._state.rehearse(self.now_ns())
        tick_ns = self._await_tick()
        if self.episode.phase is not Phase.RUNNING:
            return
        plan = self._running()
        self.diag.count("ticks")
        try:
            state = self._state.read(tick_ns)
        except InvalidCommandError as error:
            plan.hold(tick_ns)
            self.diag.count("ticks_blind")
            self.diag.count(f"rejected.{error.reason}")
            self._show(is_playing=False, sentence=str(error))
            return
        step = plan.play(tick_ns)
        vector, is_whole = self._view.observe(state, step)
        if step is None:
            self.diag.count("underflows")
            self._show(is_playing=False, sentence="no element of a chunk for this tick")
        else:
            self._propose(tick_ns, step, vector if is_whole else None)
            self._show(is_playing=True, sentence="active")
        if step is None or is_whole:
            # Features of another chunk would make a row that never was; the tick counts as lost.
            self._observation.publish(encode_observation(self._view.spec, vector, tick_ns))

    def _propose(self, tick_ns: int, step: Step, vector: Float32Array | None) -> None:
        base = clip_action(step.action, self._spec)
        action = PolicyAction(
            stamp_ns=tick_ns,
            epoch=step.chunk.epoch,
            chunk_id=step.chunk.chunk_id,
            chunk_step=step.index,
            delay_ticks=step.chunk.delay_ticks,
            base=base,
            residual=self._residual_of(vector, base),
        )
        self._action.publish(encode_policy_action(action))
        self._weights_shown.acted(action.residual)
        self._age_ms.add((tick_ns - step.chunk.stamp_ns) * 1e-6)
        self.diag.set("observation_age_p99_ms", self._age_ms.quantile(0.99))
        if step.chunk.chunk_id != self._played_id:
            self._played_id = step.chunk.chunk_id
            self.diag.count("chunks_played")
            self.diag.set("delay_ticks", step.index)

    def _residual_of(self, vector: Float32Array | None, base: FloatArray) -> FloatArray:
        """The residual of a tick; none where what the actor should have seen is missing."""
        if vector is None:
            self.diag.count("features_missing")
            return NO_RESIDUAL
        config, begin_s = self.config, time.perf_counter()
        rng = self._rng if config.explore else None
        added = self._residual.residual(
            self._view.spec, vector, base, cap=config.residual_scale, rng=rng
        )
        self._cost_ms.add((time.perf_counter() - begin_s) * 1e3)
        self.diag.set("residual_p99_ms", self._cost_ms.quantile(0.99))
        return added

    def _await_tick(self) -> int:
        """Sleep until the tick that the timer has announced; returns its stamp."""
        late_ns = self._lateness_ns()
        if late_ns < 0:
            time.sleep(-late_ns / NS_PER_S)
            late_ns = self._lateness_ns()
        self._lateness_ms.add(late_ns * 1e-6)
        self.diag.set("tick_late_p99_ms", self._lateness_ms.quantile(0.99))
        stamp_ns = self._grid.stamp(self.now_ns() - late_ns)
        self.diag.set("ticks_skipped", float(self._grid.num_skipped))
        return stamp_ns

    def _lateness_ns(self) -> int:
        # The timer's schedule is absolute: what is left of this period says where we are.
        left_ns = self._tick.time_until_next_call()
        return (0 if left_ns is None else self._period_ns - left_ns) - _LEAD_NS

    def _running(self) -> ChunkPlan:
        assert self._plan is not None
        return self._plan

    def _show(self, *, is_playing: bool, sentence: str) -> None:
        if is_playing != self._was_playing:
            self._was_playing = is_playing
            self.diag.level(Level.OK if is_playing else Level.WARN, sentence)


def main() -> int:
    """Run the node."""
    return run(ResidualActorNode, urgency=Urgency.TICK)


if __name__ == "__main__":
    raise SystemExit(main())
