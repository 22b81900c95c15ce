# SPDX-License-Identifier: Apache-2.0
"""A session of the graph as events, with everything that goes wrong in one; made by the gate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.intervention import Anchor, ExecutedAction, GateSettings, PolicyAction
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import Pose
from vla_rl_ros.core.verdict import GROUND_TRUTH, OPERATOR
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.rows import Float32Array, RowArray, RowLayout
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionRows, session_layout

PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
SPEC = ActionSpec()
OBSERVATION = ActorObservationSpec(feature_dim=3, tower_hash="0123")
LAYOUT: RowLayout = session_layout(OBSERVATION.dim, OBSERVATION.version)
CLASSIFIER_JUDGE = "classifier 0123456789ab lift"
_HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))

Observed = tuple[int, Float32Array]
Told = tuple[int, EpisodeState]
Event = Observed | Told | ExecutedAction


@dataclass
class Session:
    """Events by topic, each in the order of sending, with the time of sending."""

    seed: int = 0
    observations: list[tuple[int, Observed]] = field(default_factory=list)
    executed: list[tuple[int, ExecutedAction]] = field(default_factory=list)
    states: list[tuple[int, Told]] = field(default_factory=list)
    epoch: int = 1_700_000_000
    now_ns: int = START_NS

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        limits = ReferenceLimits()
        self.gate = Gate(GateSettings(anchor=Anchor.MEASURED, limits=limits, spec=SPEC))

    def state(self, phase: Phase, outcome: Outcome | None = None, judge: str = "") -> None:
        made = EpisodeState(
            phase=phase,
            episode_id=f"e{self.epoch}",
            epoch=self.epoch,
            task="lift",
            instruction="lift the red cube",
            seed=self.epoch % 100,
            outcome=outcome,
            judge=judge,
        )
        self.states.append((self.now_ns, (self.now_ns, made)))

    def begin(self) -> None:
        self.epoch += 1
        self.state(Phase.RESETTING)
        self.now_ns += 10 * PERIOD_NS
        self.state(Phase.READY)
        self.now_ns += 5 * PERIOD_NS + 3_210_000
        self.state(Phase.RUNNING)
        self.gate.open(self.epoch, self.now_ns)
        self.now_ns += 41_000_000

    def tick(self, *, acts: bool = True, sees: bool = True, human: bool = False) -> None:
        """One period: what the actor sees and proposes, and what the gate makes of it."""
        stamp_ns, rng = self.now_ns, self.rng
        if sees:
            vector = OBSERVATION.vector(rng.normal(size=20), 0.25, rng.normal(size=3))
            self.observations.append((stamp_ns, (stamp_ns, vector)))
        if acts:
            base = SPEC.to_si(rng.uniform(-0.8, 0.8, 7))
            residual = 0.01 * rng.normal(size=7) * (rng.random() < 0.7)
            action = PolicyAction(
                stamp_ns=stamp_ns, epoch=self.epoch, chunk_id=1, chunk_step=4, delay_ticks=1,
                base=base, residual=residual,
            )  # fmt: skip
            steered = SPEC.to_si(rng.uniform(-0.8, 0.8, 7)) if human else None
            made = self.gate.accept(action, _HOME, steered)
            self.executed.append((stamp_ns + 2_000_000, made))
        else:
            now_ns = stamp_ns + PERIOD_NS // 2 + 1_000_000
            while (held := self.gate.hold(now_ns, _HOME)) is not None:
                self.executed.append((now_ns, held))
        self.now_ns += PERIOD_NS
        if rng.random() < 0.5:
            self.states.append((self.now_ns, (self.now_ns, self.states[-1][1][1])))

    def end(self, outcome: Outcome, phase: Phase = Phase.ENDED, judge: str = GROUND_TRUTH) -> None:
        is_judged = outcome not in (Outcome.FAULT, Outcome.ABORTED)
        self.state(phase, outcome, judge if is_judged else "")
        self.gate.close()
        self.now_ns += 10 * PERIOD_NS
        if phase is Phase.ENDED:
            self.state(Phase.IDLE)

    @property
    def topics(self) -> list[list[tuple[int, Event]]]:
        return [list(self.observations), list(self.executed), list(self.states)]

    def in_order(self) -> list[Event]:
        """All events by the time they were sent."""
        together = itertools.chain.from_iterable(self.topics)
        return [event for _, event in sorted(together, key=lambda pair: pair[0])]

    def shuffled(self, seed: int, jitter_ns: int = 300_000_000) -> list[Event]:
        """Topics delayed against each other at random; each keeps its own order."""
        rng = np.random.default_rng(seed)
        arrivals = []
        for topic in self.topics:
            latest_ns = 0
            for sent_ns, event in topic:
                latest_ns = max(latest_ns + 1, sent_ns + int(rng.integers(jitter_ns)))
                arrivals.append((latest_ns, event))
        return [event for _, event in sorted(arrivals, key=lambda row: row[0])]


def full_session(seed: int = 0) -> Session:
    """Success, late chunks, fault, abort in the reset, a dead supervisor, a human, lost ticks."""
    made = Session(seed)
    made.state(Phase.BRINGUP)
    made.begin()
    for _ in range(12):
        made.tick()
    made.end(Outcome.SUCCESS)
    made.begin()  # Chunks are late: the first ticks and some in the middle are held.
    for number in range(15):
        made.tick(acts=number > 1 and number not in (6, 7, 8))
    made.end(Outcome.TIMEOUT, judge=CLASSIFIER_JUDGE)
    made.begin()  # The arm's state is lost, then the arm is.
    for number in range(9):
        made.tick(acts=number < 5, sees=number < 5)
    made.end(Outcome.FAULT, Phase.FAULT)
    made.now_ns += 20 * PERIOD_NS
    made.state(Phase.IDLE)
    made.begin()  # Stopped before the first tick.
    made.end(Outcome.ABORTED)
    made.begin()  # A human helps.
    for number in range(14):
        made.tick(human=4 <= number < 8)
    made.end(Outcome.SUCCESS, judge=OPERATOR)
    made.begin()  # The supervisor dies, and another one begins above its epochs.
    for _ in range(6):
        made.tick()
    made.gate.close()
    made.epoch += 50
    made.now_ns += 40 * PERIOD_NS
    made.state(Phase.BRINGUP)
    made.begin()  # Messages lost and doubled.
    for _ in range(20):
        made.tick()
    del made.observations[-12], made.executed[-9]
    made.executed.append(made.executed[-1])
    made.end(Outcome.SUCCESS)
    return made


def tell(rows: SessionRows, events: Iterable[Event]) -> list[EpisodeRows]:
    """Give events to rows; more may come."""
    found: list[EpisodeRows] = []
    for event in events:
        if isinstance(event, ExecutedAction):
            rows.on_executed(event)
        elif isinstance(event[1], EpisodeState):
            found += rows.on_state(event[0], event[1])
        else:
            rows.on_observation(*event)
    return found


def feed(rows: SessionRows, events: Iterable[Event]) -> list[EpisodeRows]:
    """Give events to rows, and end them."""
    return tell(rows, events) + rows.finish()


def packed(episodes: Iterable[EpisodeRows]) -> RowArray:
    """Rows of episodes as they are stored."""
    return np.concatenate([LAYOUT.pack(episode.rows) for episode in episodes])


def rows_of(events: Iterable[Event]) -> RowArray:
    """Packed rows of a session."""
    return packed(feed(SessionRows(SPEC), events))
