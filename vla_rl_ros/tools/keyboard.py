# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros teleop keyboard`: the keyboard as a hand device, for who has no SpaceMouse.

Publishes `teleop/joy` while it runs, so the gate's `device` must be ``joy``. A terminal tells when
a key goes down and repeats it, but never that it came up: a deflection lasts `HOLD_S` beyond the
newest repetition, and no key for longer is a hand off the device.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.teleop_config import AXES, BUTTONS

HOLD_S = 0.6
"""Longer than a terminal waits before it repeats a key."""
RATE_HZ = 50.0
KEYS = {
    "w": ("x", 1.0),
    "s": ("x", -1.0),
    "a": ("y", 1.0),
    "d": ("y", -1.0),
    "r": ("z", 1.0),
    "f": ("z", -1.0),
    "u": ("rx", 1.0),
    "o": ("rx", -1.0),
    "i": ("ry", 1.0),
    "k": ("ry", -1.0),
    "j": ("rz", 1.0),
    "l": ("rz", -1.0),
}
BUTTON_KEYS = {" ": "gripper", "\r": "success", "\n": "success", "x": "failure", "m": "mark"}
STOP_KEY, QUIT_KEYS = "\x1b", ("q", "\x03", "\x04")
HELP = """\
  w s   away, towards you      u o   roll       space  open or close the hand
  a d   left, right            i k   pitch      enter  success; starts the next episode
  r f   up, down               j l   yaw        x      failure       m  mark
  + -   faster, slower         any other: stop pushing
  esc   stop the arm           q     quit
"""


@dataclass(slots=True)
class KeyHand:
    """A hand on the keyboard.

    Attributes:
        speed: Deflection of a pressed key, in (0, 1].
    """

    speed: float = 0.4
    _axes: dict[str, tuple[float, float]] = field(default_factory=dict)
    _buttons: dict[str, float] = field(default_factory=dict)

    def press(self, key: str, now_s: float) -> None:
        """Take a key."""
        if key in KEYS:
            axis, sign = KEYS[key]
            self._axes[axis] = (sign, now_s + HOLD_S)
        elif key == STOP_KEY:
            self._axes.clear()
            self._buttons["stop"] = now_s + HOLD_S
        elif key in BUTTON_KEYS:
            # A repeated key is one press.
            self._buttons[BUTTON_KEYS[key]] = now_s + HOLD_S
        elif key in ("+", "="):
            self.speed = min(1.0, self.speed * 1.25)
        elif key == "-":
            self.speed = max(0.1, self.speed / 1.25)
        else:
            self._axes.clear()

    def axes(self, now_s: float) -> list[float]:
        """Deflections in the order of `core.teleop_config.AXES`."""
        self._axes = {name: held for name, held in self._axes.items() if held[1] > now_s}
        return [self.speed * self._axes.get(name, (0.0, 0.0))[0] for name in AXES]

    def buttons(self, now_s: float) -> list[int]:
        """Levels in the order of `core.teleop_config.BUTTONS`."""
        self._buttons = {name: until for name, until in self._buttons.items() if until > now_s}
        return [int(name in self._buttons) for name in BUTTONS]


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser("teleop", help="drive the arm by hand")
    kinds = parser.add_subparsers(dest="kind", metavar="WITH", required=True)
    keyboard = kinds.add_parser(
        "keyboard",
        help="with the keyboard",
        description="Publish teleop/joy from the keyboard; start the graph with --operator joy.",
        epilog=f"keys:\n{HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keyboard.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    if not sys.stdin.isatty():
        raise ConfigError("the keyboard is not a terminal: run it in one")
    from vla_rl_ros.ros.joy_talker import JoyTalker

    print(HELP, end="", flush=True)
    hand = KeyHand()
    with _raw_terminal(), JoyTalker("keyboard") as talker:
        while True:
            deadline_s = time.monotonic() + 1.0 / RATE_HZ
            for key in _keys(deadline_s):
                if key in QUIT_KEYS:
                    return 0
                hand.press(key, time.monotonic())
            now_s = time.monotonic()
            talker.say(hand.axes(now_s), hand.buttons(now_s))


def _keys(deadline_s: float) -> Iterator[str]:
    """Keys until a time."""
    while (left_s := deadline_s - time.monotonic()) > 0.0:
        ready, _, _ = select.select([sys.stdin], [], [], left_s)
        if ready:
            yield from os.read(sys.stdin.fileno(), 64).decode(errors="ignore")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys one by one and unseen."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
