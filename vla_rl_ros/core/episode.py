# SPDX-License-Identifier: Apache-2.0
"""Episode phases, outcomes and the rules of their order.

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
        judge: Who decided the outcome, see `core.verdict`; empty where nobody did, as at a fault.
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
    judge: str = ""
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

    def go(
        self, phase: Phase, *, reason: str = "", outcome: Outcome | None = None, judge: str = ""
    ) -> None:
        """Change the phase.

        Args:
            phase: New phase.
            reason: Sentence for the operator.
            outcome: Needed for ENDED; FAULT during an episode sets FAULT itself.
            judge: Who decided the outcome.

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
            self.state,
            phase=phase,
            reason=reason,
            outcome=outcome,
            judge="" if outcome is None else judge,
            is_waiting=False,
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
