# SPDX-License-Identifier: Apache-2.0
"""Events of a session become rows: the one function for the live stream and for recordings.

What a row holds depends on the content of messages alone: ticks are told apart by their stamps,
and an episode is put together only after it has ended. So rows do not depend on the order in which
topics arrive, and those of a recording equal those made live, bit for bit. Knows no ROS and no
clock. Called by the `learner` node and by `ros/bag_rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.core.reward import Reward, make_reward
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.learning.episode_rows import assemble
from vla_rl_ros.learning.rows import Float32Array, Row, RowLayout, Source

_NS_PER_S = 1_000_000_000
_RUNNING = (Phase.RESETTING, Phase.READY, Phase.RUNNING)
_STARTED = (Phase.READY, Phase.RUNNING)
_ENDED = (Phase.ENDED, Phase.FAULT)


def session_layout(obs_dim: int, obs_version: str, *, reward: Reward | None = None) -> RowLayout:
    """Layout of the rows of a session.

    Args:
        obs_dim: Width of `policy/observation`.
        obs_version: `ActorObservationSpec.version`.
        reward: Whose terms the rows hold; the task's alone if left out.
    """
    reward = reward or make_reward()
    return RowLayout(
        obs_dim=obs_dim,
        action_dim=ACTION_DIM,
        reward_terms=reward.names,
        reward_version=reward.version,
        obs_version=obs_version,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeRows:
    """One episode that has ended.

    Attributes:
        state: The supervisor's last word; its outcome is None where that was never heard.
        rows: Ticks in order and a closing row, to be stored together.
        num_human_ticks: Ticks a human chose; with any, the policy did not succeed unaided.
    """

    state: EpisodeState
    rows: tuple[Row, ...]
    num_human_ticks: int

    @property
    def is_success(self) -> bool:
        """Whether the task was done."""
        return self.state.outcome is Outcome.SUCCESS


@dataclass(slots=True)
class SessionCounters:
    """What became of the messages.

    Attributes:
        episodes: Given out.
        ticks: Rows given out, closing ones not counted.
        lost_ticks: Within episodes, without observation or without executed action.
        doubled: Messages that came twice.
        late: Messages of episodes that had been given out before.
        clock_steps: Times the grid of ticks began anew within an episode.
        without_outcome: Episodes whose end the supervisor never told; they count as aborted.
        empty: Episodes without ticks, or too short to learn from.
    """

    episodes: int = 0
    ticks: int = 0
    lost_ticks: int = 0
    doubled: int = 0
    late: int = 0
    clock_steps: int = 0
    without_outcome: int = 0
    empty: int = 0

    def add(self, other: SessionCounters) -> None:
        """Count the messages of another session, too."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class _Open:
    """What has arrived of an episode."""

    state: EpisodeState
    executed: dict[int, ExecutedAction] = field(default_factory=dict)
    over_ns: int | None = None


class SessionRows:
    """Collects the events of a session and gives out whole episodes.

    Attributes:
        counters: What became of the messages so far.
    """

    def __init__(
        self,
        spec: ActionSpec,
        *,
        make_reward: Callable[[], Reward] = make_reward,
        grace_s: float = 0.5,
        after_epoch: int = -1,
    ) -> None:
        """Start without an episode.

        Args:
            spec: Range of actions, and the control period.
            make_reward: Makes the reward of an episode.
            grace_s: How long after its end the last messages of an episode are waited for.
            after_epoch: Epoch of the newest episode that was given out before, by another one.
        """
        self.counters = SessionCounters()
        self._spec, self._make_reward = spec, make_reward
        self._grace_ns = round(grace_s * _NS_PER_S)
        self._open: dict[int, _Open] = {}
        self._observations: dict[int, Float32Array] = {}
        self._given_epoch = after_epoch
        self._given_ns = range(0)

    @property
    def settled_epoch(self) -> int:
        """Up to this epoch, episodes were given out or hold nothing to learn from."""
        return self._given_epoch

    def on_observation(self, stamp_ns: int, obs: Float32Array) -> None:
        """Take `policy/observation` of a tick, shape (O,)."""
        if stamp_ns in self._given_ns:
            self.counters.late += 1
        elif stamp_ns in self._observations:
            self.counters.doubled += 1
        else:
            self._observations[stamp_ns] = obs

    def on_executed(self, action: ExecutedAction) -> None:
        """Take `action/executed` of a tick."""
        if action.epoch <= self._given_epoch:
            self.counters.late += 1
            return
        executed = self._episode(action.epoch).executed
        if action.stamp_ns in executed:
            self.counters.doubled += 1
        else:
            executed[action.stamp_ns] = action

    def on_state(self, stamp_ns: int, state: EpisodeState) -> list[EpisodeRows]:
        """Take `episode/state`, changes as well as heartbeats, which tell the time.

        Returns:
            Episodes that are complete now, in order.
        """
        has_ended = state.phase in _ENDED and state.outcome is not None
        if (has_ended or state.phase in _RUNNING) and state.epoch > self._given_epoch:
            known = self._episode(state.epoch)
            # By its stamp, a heartbeat of before may come after the end: a clock was set back.
            if not has_ended and known.state.outcome is None:
                known.state = state
        for epoch, episode in self._open.items():
            is_over = state.epoch > epoch
            if state.epoch == epoch and state.phase not in _RUNNING:
                is_over = True
                # A fault that follows an end does not change how it went.
                if state.phase in _ENDED and episode.state.outcome is None:
                    episode.state = state
            if is_over and episode.over_ns is None:
                episode.over_ns = stamp_ns
        settled = [
            epoch
            for epoch, episode in self._open.items()
            if episode.over_ns is not None
            and (
                stamp_ns >= episode.over_ns + self._grace_ns
                or (state.epoch > epoch and state.phase in _STARTED)
            )
        ]
        return self._give_out(settled)

    def finish_ended(self) -> list[EpisodeRows]:
        """Give out episodes that are over without waiting for their last messages any longer."""
        over = [epoch for epoch, episode in self._open.items() if episode.over_ns is not None]
        return self._give_out(over)

    def finish(self) -> list[EpisodeRows]:
        """No more events will come: give out what is left, as aborted where its end is unknown."""
        return self._give_out(list(self._open))

    def _episode(self, epoch: int) -> _Open:
        return self._open.setdefault(epoch, _Open(EpisodeState(epoch=epoch)))

    def _give_out(self, epochs: list[int]) -> list[EpisodeRows]:
        found = []
        for epoch in sorted(epochs):
            episode = self._open.pop(epoch)
            self._given_epoch = max(self._given_epoch, epoch)
            rows = self._rows(episode)
            self._forget(episode)
            if not rows:
                self.counters.empty += 1
                continue
            self.counters.episodes += 1
            self.counters.ticks += len(rows) - 1
            self.counters.without_outcome += episode.state.outcome is None
            humans = sum(row.source is Source.HUMAN for row in rows)
            found.append(EpisodeRows(state=episode.state, rows=rows, num_human_ticks=humans))
        return found

    def _rows(self, episode: _Open) -> tuple[Row, ...]:
        over_ns = episode.over_ns
        found = assemble(
            # What was executed after the verdict is not part of the episode.
            [
                action
                for stamp_ns, action in sorted(episode.executed.items())
                if over_ns is None or stamp_ns <= over_ns
            ],
            self._observations,
            spec=self._spec,
            reward=self._make_reward(),
            seed=episode.state.seed,
            is_success=episode.state.outcome is Outcome.SUCCESS,
            judge=episode.state.judge,
        )
        self.counters.lost_ticks += found.num_lost
        self.counters.clock_steps += found.num_clock_steps
        return found.rows

    def _forget(self, episode: _Open) -> None:
        stamps_ns = [*episode.executed, *([] if episode.over_ns is None else [episode.over_ns])]
        if stamps_ns:
            self._given_ns = range(min(stamps_ns), max(stamps_ns) + 1)
            self._observations = {
                stamp_ns: obs
                for stamp_ns, obs in self._observations.items()
                if stamp_ns > self._given_ns[-1]
            }
