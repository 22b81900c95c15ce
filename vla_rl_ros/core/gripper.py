# SPDX-License-Identifier: Apache-2.0
"""Open or close: the two-valued command behind the continuous gripper channel."""

from __future__ import annotations


class GripperLatch:
    """Turns the continuous gripper channel into open and close, and says when to tell the hand.

    The wanted state is a level, so an edge survives missed ticks and lost messages.
    """

    def __init__(self, *, close_below: float = 0.4, open_above: float = 0.6) -> None:
        """Start undecided; the first value is judged against one half."""
        self._close_below = close_below
        self._open_above = open_above
        self.reset()

    def reset(self) -> None:
        """Forget the wanted state, so that the next value is sent as a change."""
        self.is_open: bool | None = None
        self._sent: bool | None = None
        self._sent_s = 0.0

    def update(self, value: float) -> None:
        """Follow the gripper channel, 0 for closed to 1 for open."""
        if self.is_open is None:
            self.is_open = value >= 0.5
        elif value > self._open_above:
            self.is_open = True
        elif value < self._close_below:
            self.is_open = False

    def take_due(self, now_s: float, repeat_s: float) -> bool | None:
        """Wanted state if it has to be sent now, None otherwise.

        Args:
            now_s: Present time of the caller's clock.
            repeat_s: Time after which an unchanged state is sent again.
        """
        is_repeat = self.is_open is self._sent
        if self.is_open is None or (is_repeat and now_s - self._sent_s < repeat_s):
            return None
        self._sent, self._sent_s = self.is_open, now_s
        return self.is_open
