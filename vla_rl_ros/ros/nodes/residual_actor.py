# SPDX-License-Identifier: Apache-2.0
"""Owns the control tick: plays the plan, adds the bounded residual, proposes an action.

Every chunk says how it is to be executed. A tick for which the plan has no element proposes
nothing; the gate then holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.chunking import Step, Verdict
from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction, PolicyAction
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.residual import clip_action, residual_action
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.ticks import TickGrid
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.ros.action_codecs import encode_observation, encode_policy_action
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.codecs import decode_chunk
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Sender
from vla_rl_ros.ros.episode_node import EpisodeNode
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.state_reader import StateLimits, StateReader
from vla_rl_ros.ros.timing import Window

NO_RESIDUAL = np.zeros(ACTION_DIM)
_LATE = (Verdict.LATER_THAN_PROMISED, Verdict.TOO_LATE)


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


class ResidualActorNode(EpisodeNode[ResidualActorConfig]):
    """Publishes `policy/observation` and `policy/action` at every tick that has an element."""

    _action: Sender
    _observation: Sender
    _state: StateReader

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("residual_actor", ResidualActorConfig, overrides)
        self._plan: ChunkPlan | None = None

    def setup(self) -> None:
        """Create topics."""
        config = self.config
        self._period_ns = round(config.control_period_s * NS_PER_S)
        self._spec = ActionSpec(control_period_s=config.control_period_s)
        self._plan = ChunkPlan(self._period_ns)
        self._plan.reset(self.episode.epoch)
        self._grid = TickGrid(self._period_ns)
        limits = StateLimits(
            max_age_s=config.max_state_age_s, max_gripper_age_s=config.max_gripper_age_s, depth=4
        )
        self._state = StateReader(self.sampler, limits)
        self._action = self.endpoints.publisher("policy/action")
        self._observation = self.endpoints.publisher("policy/observation")
        self.follow_episodes()
        self.endpoints.reader("policy/chunk", self._on_chunk)

    def start(self) -> None:
        """Begin to tick on an absolute schedule."""
        self._lateness_ms, self._age_ms = Window(600), Window(600)
        self._was_playing = True
        self._played_id: int | None = None
        self._tick = self.start_timer(self.config.control_period_s, self._on_tick)

    def on_episode(self, before: EpisodeState) -> None:
        """Forget the plan of the last episode."""
        plan = self._running()
        if self.episode.epoch != plan.epoch:
            plan.reset(self.episode.epoch)

    def on_executed(self, row: ExecutedAction) -> None:
        """Learn what became of the proposals; a human who drives ends the plan."""
        verdict = self._running().on_executed(row)
        if verdict is Verdict.BEFORE_TAKEOVER:
            self.diag.count("takeovers")
        elif verdict is not None:
            self.diag.count(f"chunks.{verdict.value}")

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
        tick_ns = self._tick_stamp()
        if self.episode.phase is not Phase.RUNNING:
            return
        plan = self._running()
        self.diag.count("ticks")
        try:
            state = self._state.read(tick_ns)
        except InvalidCommandError as error:
            plan.hold(tick_ns)
            self.diag.count(f"rejected.{error.reason}")
            self._show(is_playing=False, sentence=str(error))
            return
        step = plan.play(tick_ns)
        if step is None:
            self.diag.count("underflows")
            self._show(is_playing=False, sentence="no element of a chunk for this tick")
            return
        self._propose(tick_ns, step, state)
        self._show(is_playing=True, sentence="active")

    def _propose(self, tick_ns: int, step: Step, state: FloatArray) -> None:
        base = clip_action(step.action, self._spec)
        action = PolicyAction(
            stamp_ns=tick_ns,
            epoch=step.chunk.epoch,
            chunk_id=step.chunk.chunk_id,
            chunk_step=step.index,
            delay_ticks=step.chunk.delay_ticks,
            base=base,
            residual=residual_action(base, NO_RESIDUAL, self.config.residual_scale, self._spec),
        )
        self._action.publish(encode_policy_action(action))
        self._observation.publish(encode_observation(state, tick_ns))
        self._age_ms.add((tick_ns - step.chunk.stamp_ns) * 1e-6)
        self.diag.set("observation_age_p99_ms", self._age_ms.quantile(0.99))
        if step.chunk.chunk_id != self._played_id:
            self._played_id = step.chunk.chunk_id
            self.diag.count("chunks_played")
            self.diag.set("delay_ticks", step.index)

    def _tick_stamp(self) -> int:
        # The timer's schedule is absolute: what is left of this period says how late we are.
        left_ns = self._tick.time_until_next_call()
        late_ns = 0 if left_ns is None else self._period_ns - left_ns
        self._lateness_ms.add(late_ns * 1e-6)
        self.diag.set("tick_late_p99_ms", self._lateness_ms.quantile(0.99))
        stamp_ns = self._grid.stamp(self.now_ns() - late_ns)
        self.diag.set("ticks_skipped", float(self._grid.num_skipped))
        return stamp_ns

    def _running(self) -> ChunkPlan:
        assert self._plan is not None
        return self._plan

    def _show(self, *, is_playing: bool, sentence: str) -> None:
        if is_playing != self._was_playing:
            self._was_playing = is_playing
            self.diag.level(Level.OK if is_playing else Level.WARN, sentence)


def main() -> int:
    """Run the node."""
    return run(ResidualActorNode)


if __name__ == "__main__":
    raise SystemExit(main())
