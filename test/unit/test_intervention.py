# SPDX-License-Identifier: Apache-2.0
"""The rules of the gate: who drives, from where, how far, and what stands in for silence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.gripper import GripperLatch
from vla_rl_ros.core.intervention import (
    NO_STEP,
    Anchor,
    GateSettings,
    PolicyAction,
    Source,
    choose,
)
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import Pose

P = 100_000_000
T0 = 1_700_000_000_000_000_000
HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
SETTINGS = GateSettings(anchor=Anchor.MEASURED, limits=ReferenceLimits(), spec=ActionSpec())
ZEROS = np.zeros(7)


def action(stamp_ns: int, base: object = ZEROS, **changes: object) -> PolicyAction:
    made = PolicyAction(
        stamp_ns=stamp_ns,
        epoch=1,
        chunk_id=5,
        chunk_step=2,
        delay_ticks=1,
        base=np.asarray(base, dtype=np.float64),
        residual=ZEROS,
    )
    return replace(made, **changes)


def opened(settings: GateSettings = SETTINGS) -> Gate:
    gate = Gate(settings)
    gate.open(1, T0)
    return gate


def test_first_target_starts_at_the_measured_pose() -> None:
    for anchor in Anchor:
        gate = opened(replace(SETTINGS, anchor=anchor))
        gate.accept(action(T0 + P, [0.01, 0, 0, 0, 0, 0, 1]), HOME)
        assert gate.target is not None
        assert np.allclose(gate.target.position_m, [0.51, 0.0, 0.3])


def test_unlimited_action_is_executed_bit_for_bit() -> None:
    base = np.array([0.011, -0.007, 0.003, 0.05, -0.02, 0.01, 1.0])
    row = opened().accept(action(T0 + P, base), HOME)
    assert row.executed.tobytes() == base.tobytes()
    assert row.source is Source.VLA
    assert row.limits == ()
    assert (row.stamp_ns, row.chunk_id, row.chunk_step, row.epoch) == (T0 + P, 5, 2, 1)


def test_anchor_decides_whether_the_lag_of_the_arm_is_made_up() -> None:
    step = [0.01, 0, 0, 0, 0, 0, 1]
    lagging = offset_pose(HOME, np.array([0.004, 0.0, 0.0]), np.zeros(3))
    ends = {}
    for anchor in Anchor:
        gate = opened(replace(SETTINGS, anchor=anchor))
        gate.accept(action(T0 + P, step), HOME)
        gate.accept(action(T0 + 2 * P, step), lagging)
        assert gate.target is not None
        ends[anchor] = gate.target.position_m[0]
    assert ends[Anchor.MEASURED] == pytest.approx(0.514)
    assert ends[Anchor.LAST_TARGET] == pytest.approx(0.52)


def test_executed_is_what_is_left_after_the_limits() -> None:
    low = Pose(np.array([0.5, 0.0, 0.01]), HOME.quat_xyzw)
    row = opened().accept(action(T0 + P, [0, 0, -0.02, 0, 0, 0, 0]), low)
    assert row.limits == ("box",)
    assert row.executed[2] == pytest.approx(-0.005)
    assert row.base[2] == -0.02


def test_nine_metres_become_one_step_of_the_range() -> None:
    gate = opened()
    row = gate.accept(action(T0 + P, [9, 0, 0, 0, 0, 0, 9]), HOME)
    assert "range" in row.limits
    assert row.executed[0] == 0.02
    assert gate.target is not None
    assert gate.target.position_m[0] == pytest.approx(0.52)


def test_a_row_that_a_limit_pushed_out_of_the_range_is_cut_and_says_so() -> None:
    gate = opened(replace(SETTINGS, anchor=Anchor.LAST_TARGET))
    gate.accept(action(T0 + P), HOME)
    # The arm was pushed away, and a target may lie no more than a step from it.
    pushed = offset_pose(HOME, np.array([0.1, 0.0, 0.0]), np.zeros(3))
    row = gate.accept(action(T0 + 2 * P), pushed)
    assert row.limits == ("step", "range")
    assert row.executed[0] == 0.02
    assert gate.target is not None
    assert gate.target.position_m[0] == pytest.approx(0.55)


def test_targets_anchored_at_targets_never_run_away_from_the_arm() -> None:
    limits = ReferenceLimits()
    gate = opened(replace(SETTINGS, anchor=Anchor.LAST_TARGET, limits=limits))
    for n in range(1, 30):
        gate.accept(action(T0 + n * P, [0.02, 0, 0, 0, 0, 0, 1]), HOME)
    assert gate.target is not None
    assert gate.target.position_m[0] - 0.5 == pytest.approx(limits.max_step_m)


def test_a_closed_gate_and_a_foreign_epoch_refuse() -> None:
    gate = Gate(SETTINGS)
    for is_opened, reason in ((False, "not_running"), (True, "wrong_epoch")):
        if is_opened:
            gate.open(2, T0)
        with pytest.raises(InvalidCommandError) as caught:
            gate.accept(action(T0 + P), HOME)
        assert caught.value.reason == reason
        assert gate.target is None
    gate.close()
    assert gate.epoch is None
    assert gate.hold(T0 + 99 * P, HOME) is None


def test_replays_and_floods_are_refused() -> None:
    gate = opened()
    gate.accept(action(T0 + P), HOME)
    for stamp_ns in (T0 + P, T0, T0 + P + P // 3):
        with pytest.raises(InvalidCommandError) as caught:
            gate.accept(action(stamp_ns), HOME)
        assert caught.value.reason == "out_of_order"
    gate.accept(action(T0 + 2 * P), HOME)


def test_not_a_number_cannot_even_be_built() -> None:
    with pytest.raises(InvalidCommandError) as caught:
        action(T0, [np.nan] * 7)
    assert caught.value.reason == "not_finite"


def test_a_missing_tick_gets_a_hold_row_and_comes_too_late_afterwards() -> None:
    gate = opened()
    gate.accept(action(T0 + P, [0.01, 0, 0, 0, 0, 0, 1]), HOME)
    target = gate.target
    assert gate.hold(T0 + 2 * P + P // 2, HOME) is None
    row = gate.hold(T0 + 2 * P + P // 2 + 1, HOME)
    assert row is not None
    assert (row.stamp_ns, row.source, row.chunk_step) == (T0 + 2 * P, Source.HOLD, NO_STEP)
    assert row.executed == pytest.approx([0.01, 0, 0, 0, 0, 0, 1])
    assert gate.target is target
    with pytest.raises(InvalidCommandError, match="out_of_order"):
        gate.accept(action(T0 + 2 * P), HOME)
    gate.accept(action(T0 + 3 * P), HOME)


def test_before_the_first_action_holding_asks_for_nothing() -> None:
    gate = opened()
    row = gate.hold(T0 + 2 * P, HOME)
    assert row is not None
    assert np.array_equal(row.executed[:6], ZEROS[:6])
    assert row.executed[6] == 1.0
    assert gate.target is None


def test_before_the_first_action_rows_say_how_the_reset_left_the_hand() -> None:
    gate = opened()
    gate.open(2, T0, is_hand_open=False)
    row = gate.hold(T0 + 2 * P, HOME)
    assert row is not None
    assert row.executed[6] == 0.0


def test_a_clock_that_was_set_forward_makes_few_rows() -> None:
    gate = opened()
    late_ns, rows = T0 + 36_000 * P, []
    while (row := gate.hold(late_ns, HOME)) is not None:
        rows.append(row)
    assert 1 <= len(rows) <= 3
    assert abs(rows[-1].stamp_ns - late_ns) <= 2 * P
    assert (rows[-1].stamp_ns - T0) % P == 0


@settings(max_examples=40, deadline=None)
@given(
    actions=st.sets(st.integers(1, 40), max_size=40),
    checks=st.lists(st.integers(0, 100), min_size=64, max_size=64),
    phase=st.integers(0, P - 1),
)
def test_rows_never_leave_a_gap_whatever_is_missing(
    actions: set[int], checks: list[int], phase: int
) -> None:
    gate, stamps = opened(), []
    events = [(T0 + phase + n * P + 1_000_000, n) for n in actions]
    events += [(T0 + n * P * 2 // 3 + check * 100_000, 0) for n, check in enumerate(checks)]
    for now_ns, n in sorted(events):
        if n:
            try:
                row = gate.accept(action(T0 + phase + n * P), HOME)
            except InvalidCommandError:
                continue
            stamps.append(row.stamp_ns)
        while (held := gate.hold(now_ns, HOME)) is not None:
            stamps.append(held.stamp_ns)
    steps = np.diff([T0, *stamps])
    assert np.all(steps > 0)
    # A tick is given up half a period after its stamp, and the check comes once per 0.67.
    assert np.all(steps < 2.3 * P)


def test_interrupting_forgets_the_target_and_starts_again_at_the_measured_pose() -> None:
    gate = opened(replace(SETTINGS, anchor=Anchor.LAST_TARGET))
    gate.accept(action(T0 + P, [0.02, 0, 0, 0, 0, 0, 1]), HOME)
    gate.interrupt()
    assert gate.target is None
    elsewhere = Pose(np.array([0.6, 0.1, 0.2]), HOME.quat_xyzw)
    gate.accept(action(T0 + 2 * P), elsewhere)
    assert gate.target is not None
    assert np.allclose(gate.target.position_m, elsewhere.position_m)


def test_human_goes_before_residual_before_policy() -> None:
    spec = ActionSpec()
    proposal = action(T0, [0.01, 0, 0, 0, 0, 0, 1])
    assert choose(proposal, None, spec)[1] is Source.VLA
    corrected = replace(proposal, residual=np.full(7, 0.001))
    wanted, source, limits = choose(corrected, None, spec)
    assert source is Source.RESIDUAL
    assert wanted[0] == pytest.approx(0.011)
    assert limits == ("range",)
    human = np.array([-0.01, 0, 0, 0, 0, 0, 0.0])
    wanted, source, _ = choose(corrected, human, spec)
    assert source is Source.HUMAN
    assert np.array_equal(wanted, human)
    row = opened().accept(action(T0 + P), HOME, human)
    assert row.source is Source.HUMAN
    assert np.array_equal(row.executed, human)


def test_gripper_follows_with_hysteresis() -> None:
    latch = GripperLatch()
    states = []
    for value in (0.55, 0.45, 0.39, 0.55, 0.61, 0.41, 0.0):
        latch.update(value)
        states.append(latch.is_open)
    assert states == [True, True, False, False, True, True, False]


def test_gripper_is_told_on_change_and_once_per_repeat() -> None:
    latch = GripperLatch()
    assert latch.take_due(0.0, 1.0) is None
    latch.update(1.0)
    assert latch.take_due(0.1, 1.0) is True
    assert latch.take_due(1.0, 1.0) is None
    assert latch.take_due(1.1, 1.0) is True
    latch.update(0.0)
    assert latch.take_due(1.2, 1.0) is False
    latch.reset()
    latch.update(0.0)
    assert latch.take_due(1.3, 1.0) is False


def test_a_new_episode_tells_the_gripper_again() -> None:
    gate = opened()
    gate.accept(action(T0 + P, [0, 0, 0, 0, 0, 0, 1]), HOME)
    assert gate.gripper.take_due(0.0, 1.0) is True
    gate.open(1, T0 + 2 * P)
    assert gate.gripper.is_open is None
    gate.accept(action(T0 + 3 * P, [0, 0, 0, 0, 0, 0, 1]), HOME)
    assert gate.gripper.take_due(0.3, 1.0) is True
