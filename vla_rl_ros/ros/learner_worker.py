# SPDX-License-Identifier: Apache-2.0
"""The learner's thread: messages become rows, rows gradient steps, steps weights.

Owns everything that learns; the node beside it hands messages in and publishes what comes out.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import InvalidCommandError, ReplayError, VlaRlError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.learning.actor_bytes import encode_actor
from vla_rl_ros.learning.actor_observation import PHASE_CHANNEL, phase_of
from vla_rl_ros.learning.board import Board
from vla_rl_ros.learning.online_run import OnlineRun
from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionRows, session_layout
from vla_rl_ros.ros.action_codecs import decode_observation
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.learner_config import LearnerNodeConfig
from vla_rl_ros.ros.learner_intake import SessionIntake
from vla_rl_ros.ros.session_decoder import OBSERVATION, STATE, SessionDecoder

_IDLE_S = 0.02
_LAST_WORDS_S = 0.8
"""How long the end of an episode is waited for when the process is to end, which may be killed."""
_PAUSE_S = 0.5
_MAX_BEFORE_FIRST = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where the thread puts what it has; all are called in the thread.

    Attributes:
        now_ns: ROS time.
        weights: Sends bytes of weights.
        metrics: Sends named numbers.
        count: Counts a refused message, by reason.
        tell: Told what the operator should know.
        warn: Told what he should mend.
        fail: Told why nothing is learned any more.
    """

    now_ns: Callable[[], int]
    weights: Callable[[bytes], None]
    metrics: Callable[[dict[str, float]], None]
    count: Callable[[str], None]
    tell: Callable[[str], None]
    warn: Callable[[str], None]
    fail: Callable[[str], None]


class LearnerWorker:
    """Learns in a thread of its own until it is stopped."""

    def __init__(self, config: LearnerNodeConfig, intake: SessionIntake, outlets: Outlets) -> None:
        """Start the thread.

        Args:
            config: What the node was given.
            intake: Where messages come from.
            outlets: Where everything goes.
        """
        self._learner, self._schedule, self._settings, self._reward = config.parts()
        self._config, self._intake, self._outlets = config, intake, outlets
        self._run: OnlineRun | None = None
        self._rows: SessionRows | None = None
        self._decoder: SessionDecoder | None = None
        self._board: Board | None = None
        self._early: list[tuple[str, Any]] = []
        self._made_ns, self._begin_ns, self._stored_epoch = 0, outlets.now_ns(), -1
        self._sent_s = self._measured_s = float("-inf")
        self._sent_updates = self._measured_updates = -1
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="learner", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the thread is gone, and with it all it had open."""
        return not self._thread.is_alive()

    def stop(self, timeout_s: float) -> bool:
        """Save and end; returns whether that was done in time. It goes on where it was not."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return self.has_ended

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._work():
                    self._stopping.wait(_IDLE_S)
            self._store_what_has_ended()
            if self._run is not None:
                self._run.state.save()
        except (VlaRlError, OSError) as error:
            self._outlets.fail(str(error))
        except Exception:  # noqa: BLE001 - last line of defence of the thread: tell the operator
            self._outlets.fail(traceback.format_exc())
        finally:
            self._close()

    def _close(self) -> None:
        if self._run is not None:
            self._run.state.close()
        if self._board is not None:
            self._board.close()

    def _work(self) -> bool:
        """Take what has come, do at most one update; returns whether there was one."""
        self._take_messages()
        run = self._run
        if run is None:
            return False
        did = run.update()
        if did:
            self._made_ns = self._outlets.now_ns()
        now_s, period_s = time.monotonic(), self._config.publish_period_s
        is_new = run.state.learner.num_updates != self._sent_updates
        # Before a pause, what was learned goes out: it would be old at the end of the period.
        wait_s = period_s if did else min(period_s, _PAUSE_S)
        if run.is_urgent or (is_new and now_s - self._sent_s >= wait_s):
            self._send(run)
            self._sent_s = now_s
        if now_s - self._measured_s >= period_s:
            self._measure(run, now_s)
        return did

    def _send(self, run: OnlineRun) -> None:
        made_ns = self._made_ns or self._outlets.now_ns()
        if run.is_urgent and run.state.learner.num_updates == self._sent_updates:
            # Not the weights are new but who drives.
            made_ns = self._outlets.now_ns()
        self._outlets.weights(encode_actor(run.weights(made_ns)))
        self._sent_updates = run.state.learner.num_updates

    def _measure(self, run: OnlineRun, now_s: float) -> None:
        num_updates = run.state.learner.num_updates
        found = run.metrics()
        if self._measured_updates >= 0:
            passed_s = max(1e-3, now_s - self._measured_s)
            found["updates_per_s"] = (num_updates - self._measured_updates) / passed_s
        if self._rows is not None:
            counters = asdict(self._rows.counters)
            found |= {f"session.{name}": float(value) for name, value in counters.items()}
            found["session.epoch"] = float(self._rows.settled_epoch)
        self._measured_s, self._measured_updates = now_s, num_updates
        self._outlets.metrics(found)
        if self._board is not None:
            self._board.add(run.state.progress.ticks, found)

    # Messages.

    def _take_messages(self) -> None:
        was_past = self._intake.is_catching_up
        for topic, message in self._intake.take():
            self._try(topic, message)
        if was_past and not self._intake.is_catching_up and self._intake.behind_s:
            self._outlets.warn(
                f"the clock of who publishes the session lies {self._intake.behind_s:.0f} s "
                "behind this one: what a learner missed may be taken too early; set the clocks"
            )

    def _try(self, topic: str, message: Any) -> None:  # noqa: ANN401 - of any topic
        """Take a message; the others count all the same if it is refused."""
        try:
            self._take(topic, message)
        except InvalidCommandError as error:
            self._outlets.count(error.reason)

    def _take(self, topic: str, message: Any) -> None:  # noqa: ANN401 - of any topic
        if self._decoder is None:
            self._early = [*self._early[-_MAX_BEFORE_FIRST:], (topic, message)]
            if topic == OBSERVATION:
                self._begin(message)
            return
        for episode in self._decoder.take(topic, message):
            self._store(episode)
        if topic == STATE:
            self._warn_of_stored(message)

    def _warn_of_stored(self, message: Any) -> None:  # noqa: ANN401 - of a recording as well
        """Tell, once, of an episode that runs now and is taken for one that was stored before.

        The supervisor numbers episodes by the second in which it began.
        """
        state, stamp_ns = decode_episode(message), from_stamp(message.header.stamp)
        is_live = state.phase is Phase.RUNNING and stamp_ns >= self._begin_ns
        if is_live and state.epoch <= self._stored_epoch:
            self._outlets.warn(
                f"episode {state.epoch} is taken for a stored one, for {self._config.directory} "
                f"holds episode {self._stored_epoch}, of a clock that was ahead: nothing is "
                "learned; use another directory"
            )
            self._stored_epoch = -1

    def _begin(self, first: Any) -> None:  # noqa: ANN401 - a JointState
        """The first observation with a chunk says what the learner is made for."""
        seen = decode_observation(first)
        phase = dict(zip(seen.names, seen.vector.tolist(), strict=True)).get(PHASE_CHANNEL, 1.0)
        if phase == phase_of(None, 1):
            # An actor that has just started does not know the features before a chunk comes.
            return
        config, learner = self._config, self._learner
        obs_dim = len(seen.names)
        reward = RewardPlan(
            learner,
            self._reward,
            obs_dim=obs_dim,
            obs_version=seen.version,
            seed=self._settings.seed,
        )
        layout = session_layout(obs_dim, seen.version, reward=reward.episode())
        out = Path(config.directory).expanduser()
        state = OnlineState(
            out,
            layout,
            seen.names,
            config=learner,
            schedule=self._schedule,
            settings=self._settings,
            reward=reward,
        )
        self._run = OnlineRun(state, self._outlets.tell)
        self._board = Board(out / "tensorboard")
        self._rows = SessionRows(
            ActionSpec(control_period_s=config.control_period_s),
            make_reward=reward.episode,
            after_epoch=state.last_epoch,
        )
        self._decoder = SessionDecoder(self._rows, seen.version, seen.names)
        self._outlets.tell(
            f"{'goes on' if state.online.num_rows else 'begins'} in {out} with "
            f"{state.online.num_rows} rows at update {state.learner.num_updates}"
        )
        self._stored_epoch = state.last_epoch
        early, self._early = self._early, []
        for topic, message in early:
            self._try(topic, message)

    def _store_what_has_ended(self) -> None:
        """Store episodes that are over but held back for late messages; no others.

        Where the whole graph goes down, their publishers keep them for nobody.
        """
        intake = self._intake
        asked_s = intake.now_s()
        self._take_messages()
        while intake.holds_back(asked_s) and intake.now_s() - asked_s < _LAST_WORDS_S:
            time.sleep(_IDLE_S)
            self._take_messages()
        for topic, message in intake.rest():
            self._try(topic, message)
        for episode in [] if self._rows is None else self._rows.finish_ended():
            self._store(episode)

    def _store(self, episode: EpisodeRows) -> None:
        assert self._run is not None
        try:
            rows = self._run.state.online.layout.pack(episode.rows)
        except ReplayError as error:
            # Nothing was written: an episode without sense must not end what others teach.
            self._outlets.count("episode")
            self._outlets.warn(f"an episode is left out: {error}")
            return
        self._run.store(rows, episode.state.judge)
