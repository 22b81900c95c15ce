# SPDX-License-Identifier: Apache-2.0
"""Episode phases, outcomes and the rules of their order. Knows nothing of ROS or clocks."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from vla_rl_ros.core.errors import VlaRlError


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeState:
    """What `episode/state` carries.

    Attributes:
        phase: Present phase.
        episode_id: Unique and sortable; empty before the first episode.
        epoch: Bumped at each reset and takeover; chunks of older epochs are dropped.
        task: Task name.
        instruction: What the policy is told.
        seed: Seed of this episode's reset.
        outcome: Set in ENDED and FAULT.
        reason: One sentence for the operator.
    """

    phase: Phase = Phase.BRINGUP
    episode_id: str = ""
    epoch: int = 0
    task: str = ""
    instruction: str = ""
    seed: int = 0
    outcome: Outcome | None = None
    reason: str = ""


class EpisodeOrderError(VlaRlError):
    """A transition was asked for in a phase that does not allow it."""


_ALLOWED: dict[Phase, frozenset[Phase]] = {
    Phase.BRINGUP: frozenset({Phase.IDLE, Phase.FAULT}),
    Phase.IDLE: frozenset({Phase.RESETTING, Phase.FAULT, Phase.BRINGUP}),
    Phase.RESETTING: frozenset({Phase.READY, Phase.ENDED, Phase.FAULT}),
    Phase.READY: frozenset({Phase.RUNNING, Phase.ENDED, Phase.FAULT}),
    Phase.RUNNING: frozenset({Phase.ENDED, Phase.FAULT}),
    Phase.ENDED: frozenset({Phase.IDLE, Phase.RESETTING, Phase.FAULT}),
    Phase.FAULT: frozenset({Phase.IDLE}),
}


class EpisodeMachine:
    """Holds the present state and refuses transitions out of order."""

    def __init__(self) -> None:
        """Start in BRINGUP."""
        self.state = EpisodeState()

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
        is_open = self.state.phase in (Phase.RESETTING, Phase.READY, Phase.RUNNING)
        if phase is Phase.FAULT and is_open:
            outcome = Outcome.FAULT
        self.state = replace(self.state, phase=phase, reason=reason, outcome=outcome)

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
        )
