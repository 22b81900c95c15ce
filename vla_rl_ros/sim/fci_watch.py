# SPDX-License-Identifier: Apache-2.0
"""How faithfully control commands arrive while a motion runs."""

from __future__ import annotations

# What the control box counts its success rate over.
_HISTORY_TICKS = 100
_ALL_RECEIVED = (1 << _HISTORY_TICKS) - 1
_PATIENCE_TICKS = 20


class CommandWatch:
    """Counts received and missed commands, one `note` per tick of a motion.

    Attributes:
        limit: Commands in a row that may stay out, 0 for any number.
        num_missed: Missed commands since the server started.
    """

    def __init__(self, limit: int = 0) -> None:
        """Start with nothing missed.

        Args:
            limit: See the attribute. A real arm allows 20; a loaded test machine needs no limit.
        """
        self.limit = limit
        self.num_missed = 0
        self._history = _ALL_RECEIVED
        self._missed_in_a_row = 0
        self._has_begun = False

    def start(self) -> None:
        """Begin a motion; its first command has yet to come and is not missed before it does."""
        self._history = _ALL_RECEIVED
        self._missed_in_a_row = 0
        self._has_begun = False

    def note(self, *, is_received: bool) -> None:
        """End a tick."""
        self._history = ((self._history << 1) | is_received) & _ALL_RECEIVED
        if is_received:
            self._has_begun, self._missed_in_a_row = True, 0
        elif self._has_begun:
            self._missed_in_a_row += 1
            self.num_missed += 1

    @property
    def is_limit_exceeded(self) -> bool:
        """Whether the motion must be aborted."""
        return 0 < self.limit < self._missed_in_a_row

    @property
    def is_client_attentive(self) -> bool:
        """Whether it is worth waiting for the next command."""
        return self._has_begun and self._missed_in_a_row < _PATIENCE_TICKS

    @property
    def success_rate(self) -> float:
        """Part of the last hundred commands that arrived."""
        return self._history.bit_count() / _HISTORY_TICKS
