# SPDX-License-Identifier: Apache-2.0
"""The keyboard as a hand device."""

from __future__ import annotations

import sys

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.teleop_config import AXES, BUTTONS
from vla_rl_ros.tools.cli import main
from vla_rl_ros.tools.keyboard import HOLD_S, KeyHand, run


def test_a_key_pushes_until_it_is_not_repeated_any_more() -> None:
    hand = KeyHand(speed=0.5)
    hand.press("w", 0.0)
    assert hand.axes(0.0)[AXES.index("x")] == 0.5
    hand.press("w", 0.5)
    assert hand.axes(0.5 + HOLD_S - 0.01)[0] == 0.5
    assert hand.axes(0.5 + HOLD_S + 0.01) == [0.0] * 6


def test_opposite_keys_replace_each_other_and_others_add_up() -> None:
    hand = KeyHand(speed=1.0)
    for key in "asl":
        hand.press(key, 0.0)
    hand.press("d", 0.1)
    pushed = dict(zip(AXES, hand.axes(0.1), strict=True))
    assert (pushed["x"], pushed["y"], pushed["rz"]) == (-1.0, -1.0, -1.0)


def test_a_held_button_is_one_press() -> None:
    hand = KeyHand()
    levels = []
    for step in range(10):
        hand.press(" ", 0.03 * step)
        levels.append(hand.buttons(0.03 * step)[BUTTONS.index("gripper")])
    assert levels == [1] * 10
    assert hand.buttons(0.27 + HOLD_S + 0.01) == [0] * len(BUTTONS)


def test_escape_stops_and_any_other_key_lets_go() -> None:
    hand = KeyHand()
    hand.press("r", 0.0)
    hand.press("z", 0.1)
    assert hand.axes(0.1) == [0.0] * 6
    hand.press("r", 0.2)
    hand.press("\x1b", 0.3)
    assert hand.axes(0.3) == [0.0] * 6
    assert hand.buttons(0.3)[BUTTONS.index("stop")] == 1


def test_speed_stays_in_range() -> None:
    hand = KeyHand()
    for key in "+" * 20:
        hand.press(key, 0.0)
    assert hand.speed == 1.0
    for key in "-" * 40:
        hand.press(key, 0.0)
    assert hand.speed == 0.1


def test_without_a_terminal_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="terminal"):
        run(None)
    assert main(["teleop", "keyboard"]) == 1
    assert "terminal" in capsys.readouterr().err
