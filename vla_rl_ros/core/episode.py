# SPDX-License-Identifier: Apache-2.0
"""Episode phases, outcomes, the rules of their order and what ends an episode.

Called by the supervisor, which brings the clock. Knows nothing of ROS, threads or files.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, VlaRlError


class Phase(enum.Enum):
    """Where the cell is in its cycle."""

    BRINGUP = "bringup"
    """Nodes are being configured and activated."""
    IDLE = "idle"
    """Everything runs, no episode."""
    RESETTING = "resetting"
    """The arm goes home and the scene is arranged."""
    READY = "ready"
    """The scene stands, recording starts, the policy is asked for its first chunk."""
    RUNNING = "running"
    """The gate lets the policy drive."""
    ENDED = "ended"
    """The outcome is known, recording closes."""
    FAULT = "fault"
    """Latched; only `recover` leads out."""


class Outcome(enum.Enum):
    """How an episode ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    FAULT = "fault"
    ABORTED = "aborted"


class ResetKind(enum.Enum):
    """Who put the scene into the start of an episode."""

    NONE = "none"
    """Nobody: it began where the last one ended."""
    SCRIPTED = "scripted"
    """The arm went home; a simulated scene was drawn anew."""
    HUMAN = "human"
    """A person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeState:
    """What `episode/state` carries.

    Attributes:
        phase: Present phase.
        episode_id: Unique and sortable; empty before the first episode.
        epoch: Bumped where an episode begins; chunks of older epochs are dropped.
        task: Task name.
        instruction: What the policy is told.
        seed: Seed of this episode's reset.
        reset: Who reset the scene for it; None until that is done.
        outcome: Set in ENDED and FAULT.
        reason: One sentence for the operator.
        is_waiting: Whether a person is asked for something; the reason says what.
    """

    phase: Phase = Phase.BRINGUP
    episode_id: str = ""
    epoch: int = 0
    task: str = ""
    instruction: str = ""
    seed: int = 0
    reset: ResetKind | None = None
    outcome: Outcome | None = None
    reason: str = ""
    is_waiting: bool = False


class EpisodeOrderError(VlaRlError):
    """A transition was asked for in a phase that does not allow it."""


_ALLOWED: dict[Phase, frozenset[Phase]] = {
    Phase.BRINGUP: frozenset({Phase.IDLE, Phase.FAULT}),
    Phase.IDLE: frozenset({Phase.RESETTING, Phase.FAULT, Phase.BRINGUP}),
    Phase.RESETTING: frozenset({Phase.READY, Phase.ENDED, Phase.FAULT}),
    Phase.READY: frozenset({Phase.RUNNING, Phase.ENDED, Phase.FAULT}),
    Phase.RUNNING: frozenset({Phase.ENDED, Phase.FAULT}),
    Phase.ENDED: frozenset({Phase.IDLE, Phase.RESETTING, Phase.FAULT}),
    Phase.FAULT: frozenset({Phase.IDLE, Phase.BRINGUP}),
}
_OPEN = frozenset({Phase.RESETTING, Phase.READY, Phase.RUNNING})


class EpisodeMachine:
    """Holds the present state and refuses transitions out of order."""

    def __init__(self, first_epoch: int = 0) -> None:
        """Start in BRINGUP.

        Args:
            first_epoch: Epoch before the first episode. A supervisor that was started again must
                begin above its predecessor's, or chunks of that one would pass as fresh.
        """
        self.state = EpisodeState(epoch=first_epoch)

    @property
    def is_open(self) -> bool:
        """Whether an episode has begun and has no outcome yet."""
        return self.state.phase in _OPEN

    def go(self, phase: Phase, *, reason: str = "", outcome: Outcome | None = None) -> None:
        """Change the phase.

        Args:
            phase: New phase.
            reason: Sentence for the operator.
            outcome: Needed for ENDED; FAULT during an episode sets FAULT itself.

        Raises:
            EpisodeOrderError: The present phase does not lead there.
        """
        if phase not in _ALLOWED[self.state.phase]:
            raise EpisodeOrderError(f"cannot go from {self.state.phase.value} to {phase.value}")
        if phase is Phase.ENDED and outcome is None:
            raise EpisodeOrderError("an ended episode needs an outcome")
        if phase is Phase.FAULT and self.is_open:
            outcome = Outcome.FAULT
        self.state = replace(
            self.state, phase=phase, reason=reason, outcome=outcome, is_waiting=False
        )

    def explain(self, reason: str, *, is_waiting: bool) -> None:
        """Say what happens within the phase.

        Args:
            reason: Sentence for the operator.
            is_waiting: Whether it asks a person for something.
        """
        self.state = replace(self.state, reason=reason, is_waiting=is_waiting)

    def note_reset(self, reset: ResetKind) -> None:
        """Remember who reset the scene for the open episode."""
        self.state = replace(self.state, reset=reset)

    def retask(self, *, episode_id: str, task: str, instruction: str) -> None:
        """Do another task in the episode that is being prepared.

        Raises:
            EpisodeOrderError: It is not being prepared any more.
        """
        if self.state.phase is not Phase.RESETTING:
            raise EpisodeOrderError(f"the task is settled in phase {self.state.phase.value}")
        self.state = replace(self.state, episode_id=episode_id, task=task, instruction=instruction)

    def tell(self, instruction: str) -> bool:
        """Change what the policy is told in the open episode; returns whether that is a change."""
        if not self.is_open or instruction == self.state.instruction:
            return False
        self.state = replace(self.state, instruction=instruction)
        return True

    def begin(self, *, episode_id: str, task: str, instruction: str, seed: int) -> None:
        """Enter RESETTING for a new episode with a new epoch.

        Raises:
            EpisodeOrderError: An episode is open or a fault is latched.
        """
        self.go(Phase.RESETTING)
        self.state = replace(
            self.state,
            episode_id=episode_id,
            epoch=self.state.epoch + 1,
            task=task,
            instruction=instruction,
            seed=seed,
            reset=None,
        )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What the cell has to know of a task; one file per task in `config/tasks/`."""

    instruction: str = param(doc="What the policy is told.")
    time_limit_s: float = param(
        20.0, doc="Running time after which the episode ends.", unit="s", low=0.5, high=600.0
    )
    home_gripper_width_m: float = param(
        0.08, doc="Finger distance at the start.", unit="m", low=0.0, high=0.08
    )
    reset_offset_max_m: float = param(
        0.02,
        doc="Bound per axis of the random start offset where no simulator decides it.",
        unit="m",
        low=0.0,
        high=0.1,
    )
    undone_by: str = param(
        "", doc="Task that leads from the end of this one back to its start; empty for none."
    )

    def __post_init__(self) -> None:
        """Check bounds and that there is something to say."""
        check_bounds(self)
        if not self.instruction.strip():
            raise ConfigError("TaskConfig.instruction is empty")


class SuccessHold:
    """Success that must last: one decided sample is not enough.

    Example:
        With a hold of 0.2 s, "decided" at t = 0, 0.1 and 0.2 s is success at 0.2 s; an undecided
        sample at 0.1 s starts the count anew.
    """

    def __init__(self, hold_s: float) -> None:
        """Start undecided.

        Args:
            hold_s: How long success must last without interruption.
        """
        self._hold_s = hold_s
        self._since_s: float | None = None
        self._latest_s = 0.0

    def reset(self) -> None:
        """Forget what was seen."""
        self._since_s = None

    def update(self, is_decided: bool, now_s: float) -> None:
        """Take one sample of the judge."""
        if not is_decided:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = now_s
        self._latest_s = now_s

    @property
    def is_held(self) -> bool:
        """Whether the samples seen span the hold time; silence of the judge adds nothing."""
        # Stamps are multiples of the judge's period, so compare with a microsecond to spare.
        return self._since_s is not None and self._latest_s - self._since_s >= self._hold_s - 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known at one moment of a running episode.

    Attributes:
        elapsed_s: Time in RUNNING.
        is_success: Whether success has held long enough.
        operator: The operator's word, None when nothing was said.
        lost: Why the episode cannot go on, e.g. a silent camera; empty when it can.
    """

    elapsed_s: float
    is_success: bool = False
    operator: bool | None = None
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an episode ended and why, in one sentence."""

    outcome: Outcome
    reason: str


def judge(evidence: Evidence, time_limit_s: float) -> Verdict | None:
    """Decide whether an episode is over; the operator outranks what is measured.

    Returns:
        The verdict, None while the episode goes on.
    """
    if evidence.operator is not None:
        outcome = Outcome.SUCCESS if evidence.operator else Outcome.FAILURE
        return Verdict(outcome=outcome, reason=f"the operator said {outcome.value}")
    if evidence.is_success:
        return Verdict(outcome=Outcome.SUCCESS, reason="the task is done")
    if evidence.lost:
        return Verdict(outcome=Outcome.FAULT, reason=evidence.lost)
    if evidence.elapsed_s >= time_limit_s:
        return Verdict(outcome=Outcome.TIMEOUT, reason=f"not done within {time_limit_s:g} s")
    return None


def episode_id(when: datetime, task: str, index: int) -> str:
    """Name of an episode and of its bag: sortable by time, safe as a file name.

    Args:
        when: Start of the episode, UTC.
        task: Task name.
        index: Counts the episodes of a supervisor.
    """
    return f"{when:%Y%m%dT%H%M%SZ}_{task}_{index:04d}"


def planned_task(tasks: Sequence[str], episodes_per_task: int, index: int) -> str:
    """Task of episode `index` when tasks take turns in blocks.

    Example:
        Tasks a and b with two episodes each run as a a b b a a b b.
    """
    return tasks[index // episodes_per_task % len(tasks)]
