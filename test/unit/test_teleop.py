# SPDX-License-Identifier: Apache-2.0
"""From the operator's hand to an action: mapping, dead zone, thresholds, presses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop import Presses, Teleop
from vla_rl_ros.core.teleop_axes import axes_of, increment_of, with_dead_zone, without_dead_zone
from vla_rl_ros.core.teleop_config import AXES, BUTTONS, TeleopConfig

SPEC = ActionSpec()
NO_BUTTON = [0] * len(BUTTONS)
OPPOSITE = TeleopConfig(mapping=("-x", "-y", "z", "-rx", "-ry", "rz"))
axes6 = st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6).map(np.array)


def pushed(**axes: float) -> list[float]:
    return [axes.get(name, 0.0) for name in AXES]


def pressed(*names: str) -> list[int]:
    return [int(name in names) for name in BUTTONS]


def test_full_deflection_is_the_range_of_an_action() -> None:
    found = increment_of(np.ones(6), TeleopConfig(), SPEC)
    assert found == pytest.approx([0.02, 0.02, 0.02, 0.1, 0.1, 0.1])


def test_who_stands_opposite_pushes_the_arm_away_from_himself() -> None:
    found = increment_of(np.array(pushed(x=1.0, y=0.5, rz=1.0)), OPPOSITE, SPEC)
    assert found == pytest.approx([-0.02, -0.01, 0, 0, 0, 0.1])


def test_a_locked_axis_does_not_move_and_scale_is_per_axis() -> None:
    config = TeleopConfig(
        mapping=("x", "y", "none", "none", "none", "rz"), scale=(0.5, 1, 1, 1, 1, 0.1)
    )
    found = increment_of(np.ones(6), config, SPEC)
    assert found == pytest.approx([0.01, 0.02, 0, 0, 0, 0.01])


@given(axes=axes6, dead_zone=st.floats(0.0, 0.5))
def test_the_dead_zone_is_continuous_and_reaches_full_deflection(
    axes: np.ndarray, dead_zone: float
) -> None:
    cut = without_dead_zone(axes, dead_zone)
    assert np.all(np.abs(cut) <= 1.0)
    assert np.all(cut[np.abs(axes) <= dead_zone] == 0.0)
    assert np.all(np.sign(cut) * np.sign(axes) >= 0)
    assert without_dead_zone(np.sign(axes), dead_zone) == pytest.approx(np.sign(axes))
    near = without_dead_zone(np.full(6, dead_zone + 1e-6), dead_zone)
    assert np.all(near < 3e-6)


@given(
    axes=axes6,
    order=st.permutations(AXES),
    signs=st.lists(st.booleans(), min_size=6, max_size=6),
    dead_zone=st.floats(0.0, 0.4),
)
def test_frames_round_trip(
    axes: np.ndarray, order: list[str], signs: list[bool], dead_zone: float
) -> None:
    mapping = tuple(
        f"-{name}" if is_minus else name for name, is_minus in zip(order, signs, strict=True)
    )
    config = TeleopConfig(mapping=mapping, dead_zone=dead_zone)
    back = axes_of(increment_of(axes, config, SPEC), config, SPEC)
    assert np.abs(back - axes).max() <= 1e-9
    assert np.abs(without_dead_zone(with_dead_zone(axes, dead_zone), dead_zone) - axes).max() <= (
        1e-9
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mapping": ("x", "y", "z")}, "mapping"),
        ({"mapping": ("x", "y", "w", "rx", "ry", "rz")}, "mapping"),
        ({"mapping": ("x", "-x", "z", "rx", "ry", "rz")}, "mapping"),
        ({"scale": (1.0,)}, "scale"),
        ({"dead_zone": 0.9}, "dead_zone"),
        ({"buttons": ("LEFT=gripper",)}, "buttons"),
        ({"buttons": ("LEFT:explode",)}, "buttons"),
        ({"release_threshold": 0.5, "engage_threshold": 0.1}, "release_threshold"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes: dict, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        TeleopConfig(**changes)


def test_a_touch_below_the_threshold_moves_nothing() -> None:
    teleop = Teleop(TeleopConfig(), SPEC)
    teleop.update(pushed(x=0.09), NO_BUTTON, 0.0)
    command = teleop.command(0.0)
    assert not command.is_driving
    assert not command.increment.any()


def test_he_takes_over_at_once_and_lets_go_after_a_while() -> None:
    teleop = Teleop(TeleopConfig(release_after_s=0.3), SPEC)
    teleop.update(pushed(x=0.5), NO_BUTTON, 1.0)
    assert teleop.command(1.0).increment[0] == pytest.approx(0.01)
    # Below what takes over, above what lets go.
    teleop.update(pushed(x=0.07), NO_BUTTON, 1.1)
    assert teleop.command(5.0).is_driving
    teleop.update(pushed(x=0.0), NO_BUTTON, 5.0)
    for now_s, is_driving in ((5.0, True), (5.29, True), (5.31, False)):
        command = teleop.command(now_s)
        assert command.is_driving is is_driving
        assert not command.increment.any()
    teleop.update(pushed(x=0.07), NO_BUTTON, 5.4)
    assert not teleop.command(5.4).is_driving


def test_a_press_of_the_gripper_takes_over() -> None:
    teleop = Teleop(TeleopConfig(), SPEC)
    teleop.update(pushed(), pressed("mark"), 0.0)
    assert not teleop.command(0.0).is_driving
    teleop.update(pushed(), pressed("gripper"), 0.1)
    assert teleop.command(0.1).is_driving
    assert teleop.presses.take("gripper") == 1
    assert not teleop.command(0.5).is_driving


def test_a_lost_device_is_let_go_at_once() -> None:
    teleop = Teleop(TeleopConfig(release_after_s=5.0), SPEC)
    teleop.update(pushed(z=1.0), NO_BUTTON, 0.0)
    teleop.lost()
    command = teleop.command(0.01)
    assert not command.is_driving
    assert not command.increment.any()


@pytest.mark.parametrize(
    ("engage_after_s", "reports", "expected"),
    [
        (0.0, [(0.0, 0.5)], [True]),
        (0.0, [(0.0, 0.09)], [False]),
        (0.1, [(0.0, 0.5), (0.05, 0.5), (0.1, 0.5)], [False, False, True]),
        # A knock: what went back below the threshold begins anew.
        (0.1, [(0.0, 0.5), (0.08, 0.0), (0.1, 0.5), (0.15, 0.5)], [False] * 4),
        (0.1, [(0.0, 0.5), (0.08, 0.09), (0.1, 0.5), (0.2, 0.5)], [False, False, False, True]),
        # Once he has the arm, less is enough to keep it.
        (0.1, [(0.0, 0.5), (0.1, 0.5), (0.2, 0.07), (9.0, 0.07)], [False, True, True, True]),
    ],
)
def test_he_takes_over_when_the_deflection_has_lasted(
    engage_after_s: float, reports: list[tuple[float, float]], expected: list[bool]
) -> None:
    teleop = Teleop(TeleopConfig(engage_after_s=engage_after_s), SPEC)
    found = []
    for now_s, x in reports:
        teleop.update(pushed(x=x), NO_BUTTON, now_s)
        command = teleop.command(now_s)
        assert command.increment.any() == command.is_driving
        found.append(command.is_driving)
    assert found == expected


def test_a_loss_begins_the_time_to_take_over_anew() -> None:
    teleop = Teleop(TeleopConfig(engage_after_s=0.1), SPEC)
    teleop.update(pushed(x=0.5), NO_BUTTON, 0.0)
    assert teleop.is_pushed
    teleop.lost()
    assert not teleop.is_pushed
    teleop.update(pushed(x=0.5), NO_BUTTON, 0.2)
    assert not teleop.command(0.2).is_driving


def test_malformed_axes_change_no_deflection_and_hide_no_press() -> None:
    teleop = Teleop(TeleopConfig(), SPEC)
    teleop.update(pushed(y=0.5), NO_BUTTON, 0.0)
    for axes in ([0.1] * 5, [], [float("nan")] * 6):
        with pytest.raises(InvalidCommandError):
            teleop.update(axes, pressed("stop"), 0.1)
        assert teleop.presses.take("stop") == 1
        teleop.update(pushed(y=0.5), NO_BUTTON, 0.1)
    assert teleop.command(0.1).increment[1] == pytest.approx(0.01)
    teleop.update([9.0, 0, 0, 0, 0, 0, 7.0], NO_BUTTON, 0.2)
    assert teleop.command(0.2).increment[0] == pytest.approx(0.02)


@given(levels=st.lists(st.lists(st.integers(0, 1), max_size=7), max_size=40))
def test_each_press_is_counted_once(levels: list[list[int]]) -> None:
    presses = Presses()
    expected = dict.fromkeys(BUTTONS, 0)
    before = [0] * len(BUTTONS)
    for report in levels:
        now = (report + [0] * len(BUTTONS))[: len(BUTTONS)]
        for name, is_down, was_down in zip(BUTTONS, now, before, strict=True):
            expected[name] += is_down and not was_down
        before = now
        presses.update(report)
    assert {name: presses.take(name) for name in BUTTONS} == expected
    assert not any(presses.waiting.values())


def test_presses_that_nobody_took_can_be_forgotten() -> None:
    presses = Presses()
    presses.update(pressed("success", "gripper"))
    presses.clear()
    presses.update(pressed("success"))
    assert presses.take("success") == 0


def test_a_button_that_is_held_through_a_loss_is_no_press() -> None:
    teleop = Teleop(TeleopConfig(), SPEC)
    teleop.update(pushed(), pressed("gripper", "stop"), 0.0)
    teleop.presses.clear()
    teleop.lost()
    teleop.update(pushed(), pressed("gripper", "stop"), 1.0)
    assert not teleop.command(1.0).is_driving
    assert teleop.presses.take("stop") == 1  # one too many is safer than one too few
    assert not any(teleop.presses.waiting.values())
    teleop.update(pushed(), pressed(), 1.1)
    teleop.update(pushed(), pressed("gripper"), 1.2)
    assert teleop.presses.take("gripper") == 1


def test_of_levels_that_are_not_known_only_stop_is_a_press() -> None:
    presses = Presses()
    presses.forget_levels()
    assert presses.update([1] * len(BUTTONS)) == ("stop",)
    assert presses.update(pressed("stop")) == ()
    assert presses.update(pressed("stop", "gripper")) == ("gripper",)


def test_buttons_are_mapped_by_name_wherever_the_device_has_them() -> None:
    config = TeleopConfig(buttons=("LEFT:gripper", "BTN_1:gripper", "ESC:stop"))
    assert config.levels({"LEFT", "MENU"}) == tuple(pressed("gripper"))
    assert config.levels({"BTN_1", "ESC"}) == tuple(pressed("gripper", "stop"))
    assert config.levels({"RIGHT"}) == tuple(NO_BUTTON)
