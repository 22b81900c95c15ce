# SPDX-License-Identifier: Apache-2.0
"""Open or close: the two-valued command behind the continuous gripper channel."""

from __future__ import annotations

from vla_rl_ros.core.types import GripperState


class GripperLatch:
    """Turns the continuous gripper channel into open and close, and says when to tell the hand.

    The wanted state is a level, so an edge survives missed ticks and lost messages. A press of a
    human's button that comes while the row that shows the last one is not out waits for it, so
    that each can be seen in the rows, however fast they follow one another.
    """

    def __init__(self, *, close_below: float = 0.4, open_above: float = 0.6) -> None:
        """Start undecided; the first value is judged against one half."""
        self._close_below = close_below
        self._open_above = open_above
        self.reset()

    def reset(self, *, is_hand_open: bool = True) -> None:
        """Forget the wanted state, so that the next value is sent as a change.

        Args:
            is_hand_open: How the hand is; its level until the first value.
        """
        self.is_open: bool | None = None
        self._sent: bool | None = None
        self._sent_s = 0.0
        self._is_hand_open = self._is_shown_open = is_hand_open
        self._num_presses = 0

    @property
    def level(self) -> bool:
        """Whether the hand is to be open; before the first value, whether it is."""
        return self._is_hand_open if self.is_open is None else self.is_open

    def press(self, times: int = 1) -> None:
        """The other state is wanted, so many times over."""
        self._num_presses += times
        self._follow_presses()

    def forget_presses(self) -> None:
        """Somebody else decides from now on."""
        self._num_presses = 0

    def shown(self) -> None:
        """A row with the present level is out."""
        self._is_shown_open = self.level
        self._follow_presses()

    def _follow_presses(self) -> None:
        if self._num_presses and self.level == self._is_shown_open:
            self._num_presses -= 1
            self.is_open = not self.level

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


def is_hand_open(fingers: GripperState | None, open_width_m: float) -> bool:
    """Whether a hand is open as far as anybody knows; one that is silent is taken to be.

    Args:
        fingers: What it says, None while it is silent.
        open_width_m: Width of an open one.
    """
    if fingers is None:
        return True
    # What a closed hand holds may be as wide as an open one is.
    return fingers.width_m > 0.5 * open_width_m and not fingers.is_grasped
