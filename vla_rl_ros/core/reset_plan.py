# SPDX-License-Identifier: Apache-2.0
"""Which task comes next, and who puts the scene into its start.

Three ways: a script before every episode, a person before every episode, or two tasks that undo
each other, so that each leaves the scene where the other begins and nothing outside is needed
(forward and backward controllers of Eysenbach et al., Leave No Trace, arXiv 1711.06782; as in
SERL, arXiv 2401.16013). Called by the supervisor between episodes. Knows no clock and no scene.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vla_rl_ros.core.episode import Outcome, ResetKind

MAX_FAILURES = 2
"""So many failures in a row of one direction, and help is asked."""


class ResetMode(enum.Enum):
    """How the scene gets into the start of an episode."""

    SCRIPTED = "scripted"
    """The arm goes home with an offset; a simulated scene is drawn anew."""
    PAIR = "pair"
    """The task and the one that undoes it take turns; nothing else touches the scene."""
    HUMAN = "human"
    """A person arranges it and says when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How the next episode begins.

    Attributes:
        task: Task name.
        reset: Who prepares the scene.
        reason: Why help is asked; empty without help.
    """

    task: str
    reset: ResetKind
    reason: str = ""


class ResetPlan:
    """Remembers the outcomes that decide the next start.

    Example:
        With `ResetMode.PAIR`, a task ``in`` that ``out`` undoes: in (help), out, in, out fails,
        out fails again, in (help), out, ...
    """

    def __init__(self, mode: ResetMode, help_kind: ResetKind) -> None:
        """Start without a past.

        Args:
            mode: How scenes are reset.
            help_kind: Who helps a pair that cannot go on alone.

        Raises:
            ValueError: Nobody is no help.
        """
        if help_kind is ResetKind.NONE:
            raise ValueError("a pair that is stuck needs somebody's help")
        self.mode = mode
        self.help_kind = help_kind
        self._pair: frozenset[str] = frozenset()
        self._direction = ""
        self._failures = 0

    def next(self, task: str, undone_by: str) -> Start:
        """The next start; asking changes nothing but which pair is worked on.

        Args:
            task: The task that was asked for; the one that a pair begins with.
            undone_by: The task that undoes it, empty when none does.
        """
        if self.mode is ResetMode.HUMAN:
            return Start(task=task, reset=ResetKind.HUMAN, reason=f"set the scene up for {task}")
        if self.mode is ResetMode.SCRIPTED or not undone_by:
            return Start(task=task, reset=ResetKind.SCRIPTED)
        pair = frozenset({task, undone_by})
        if pair != self._pair:
            self._pair, self._direction, self._failures = pair, "", 0
        if not self._direction:
            reason = f"{task} and {undone_by} begin"
            return Start(task=task, reset=self.help_kind, reason=reason)
        if self._failures >= MAX_FAILURES:
            reason = f"{self._direction} failed twice in a row or could not begin"
            return Start(task=task, reset=self.help_kind, reason=reason)
        return Start(task=self._direction, reset=ResetKind.NONE)

    def refuse(self) -> None:
        """Take it that the scene was not in its start: a pair cannot go on without help."""
        self._failures = MAX_FAILURES

    def note(self, task: str, undone_by: str, outcome: Outcome) -> None:
        """Take the outcome of an episode.

        Args:
            task: What was done.
            undone_by: The task that undoes it.
            outcome: How it ended. An aborted episode is nobody's failure.
        """
        if frozenset({task, undone_by}) != self._pair or outcome is Outcome.ABORTED:
            return
        if outcome is Outcome.SUCCESS:
            self._direction, self._failures = undone_by, 0
            return
        self._failures = self._failures + 1 if task == self._direction else 1
        self._direction = task
