# SPDX-License-Identifier: Apache-2.0
"""A human at the gate: takeover at any time, no jump, a row per tick, no lost press."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.teleop_world import HOME, SPEC, STEP_NS, T0, P, TeleopWorld

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.geometry import angle_between_rad, offset_pose
from vla_rl_ros.core.intervention import NO_STEP, Anchor, PolicyAction, Source
from vla_rl_ros.core.takeover import SLIP_M, SLIP_RAD

JUMP_M, JUMP_RAD = 0.002, math.radians(0.5)
FORTH = np.array([0.01, 0, 0, 0, 0, 0, 1.0])
STILL = np.zeros(6)


def proposal(stamp_ns: int) -> PolicyAction:
    world = TeleopWorld(policy=FORTH)
    return world.proposal(stamp_ns)


def left(speed: float = 1.0) -> np.ndarray:
    return np.array([0.0, 0.01 * speed, 0.0, 0.0, 0.0, 0.05 * speed])


def stamps(world: TeleopWorld) -> list[int]:
    return [row.stamp_ns for row in world.rows]


def sources(world: TeleopWorld) -> str:
    letters = {Source.VLA: "v", Source.HUMAN: "h", Source.HOLD: "o", Source.RESIDUAL: "r"}
    return "".join(letters[row.source] for row in world.rows)


def uncommanded(world: TeleopWorld, begin_ns: int, rate: np.ndarray) -> tuple[float, float]:
    """Largest way of the reference in the tick after `begin_ns` beyond what `rate` asked for."""
    first = next(pose for now_ns, pose in world.references if now_ns >= begin_ns)
    worst_m = worst_rad = 0.0
    for now_ns, pose in world.references:
        if begin_ns <= now_ns < begin_ns + P:
            share = (now_ns - begin_ns) / P
            wanted = offset_pose(first, share * rate[:3], share * rate[3:6])
            worst_m = max(worst_m, float(np.linalg.norm(pose.position_m - wanted.position_m)))
            worst_rad = max(worst_rad, angle_between_rad(pose.quat_xyzw, wanted.quat_xyzw))
    return worst_m, worst_rad


def test_a_hand_moves_the_target_at_once_and_from_the_measured_pose() -> None:
    world = TeleopWorld()
    world.run(0.25)
    world.hand = left()
    world.run(0.01)
    assert world.gate.target is not None
    assert np.allclose(world.gate.target.position_m, HOME.position_m + left()[:3])


def test_rows_of_a_human_are_what_the_reference_did_in_each_tick() -> None:
    world = TeleopWorld(lag_s=1e-4)
    world.hand = left()
    world.run(0.6)
    human = [row for row in world.rows if row.source is Source.HUMAN]
    assert len(human) >= 4
    for row in human[1:]:
        assert row.executed[:6] == pytest.approx(left(), abs=1e-6)
        assert row.executed[6] == 1.0
        assert row.chunk_step == NO_STEP
        assert not row.base.any()


def test_a_human_has_the_speed_of_a_policy_that_wants_the_same() -> None:
    ends = []
    for is_human in (True, False):
        world = TeleopWorld()
        world.hand = np.array([0.01, 0, 0, 0, 0, 0]) if is_human else None
        world.policy = None if is_human else FORTH
        world.run(2.0)
        ends.append(world.measured.position_m[0])
    assert ends[0] - 0.5 == pytest.approx(ends[1] - 0.5, rel=0.1)


def test_letting_go_rests_where_the_reference_is_until_a_proposal_comes() -> None:
    world = TeleopWorld()
    world.hand = left()
    world.run(0.53)
    world.hand = None
    world.run(0.01)
    rest = world.reference.position_m
    world.run(0.5)
    assert world.reference.position_m == pytest.approx(rest, abs=1e-9)
    text = sources(world)
    assert text.strip("o").strip("h") == ""
    assert text.endswith("oooo")
    world.policy = FORTH
    world.run(0.3)
    assert sources(world).endswith("vv")


def test_a_proposal_for_a_tick_of_the_human_is_its_base_and_nothing_else() -> None:
    world = TeleopWorld()
    world.policy = FORTH
    world.run(0.3)
    world.hand = left()
    world.run(0.4)
    human = [row for row in world.rows if row.source is Source.HUMAN]
    assert human
    for row in human:
        assert np.array_equal(row.base, FORTH)
        assert (row.chunk_id, row.chunk_step) == (5, 0)
        assert row.executed[0] < 0.005
    with pytest.raises(InvalidCommandError, match="human_drives"):
        world.gate.accept(world.proposal(world.now_ns + P), world.measured)


def test_a_pushing_arm_goes_on_pushing_and_lets_up_slowly() -> None:
    for anchor in Anchor:
        world = TeleopWorld(anchor=anchor, lag_s=1e9)
        world.policy = np.array([0, 0, -0.02, 0, 0, 0, 1.0])
        world.run(0.5)
        depth_m = HOME.position_m[2] - world.reference.position_m[2]
        assert depth_m > 0.015
        world.policy, world.hand = None, STILL
        world.run(0.5)
        assert HOME.position_m[2] - world.reference.position_m[2] == pytest.approx(depth_m)
        world.hand = left(0.1)
        world.run(0.105)
        given_up_m = depth_m - (HOME.position_m[2] - world.reference.position_m[2])
        assert 0.5 * SLIP_M < given_up_m <= JUMP_M
        world.run(4.0)
        assert world.reference.position_m[2] == pytest.approx(HOME.position_m[2], abs=1e-6)


@pytest.mark.parametrize("anchor", list(Anchor))
@pytest.mark.parametrize("before", ["nobody", "policy", "hand"])
def test_under_a_resting_hand_an_arm_that_sags_does_not_creep(anchor: Anchor, before: str) -> None:
    world = TeleopWorld(anchor=anchor, sag_m=0.004)
    world.policy = FORTH if before == "policy" else None
    world.hand = left() if before == "hand" else None
    world.run(0.33)
    world.policy, world.hand = None, STILL
    world.run(0.02)
    begin = world.reference
    world.run(10.0)
    assert np.linalg.norm(world.reference.position_m - begin.position_m) < 1e-3
    assert angle_between_rad(world.reference.quat_xyzw, begin.quat_xyzw) < 1e-3


@pytest.mark.parametrize("anchor", list(Anchor))
def test_under_a_moving_hand_an_arm_that_sags_sinks_once_and_no_further(anchor: Anchor) -> None:
    world = TeleopWorld(anchor=anchor, sag_m=0.003)
    world.policy = FORTH
    world.run(0.33)
    world.policy, world.hand = None, np.array([0.0, 0.004, 0.0, 0.0, 0.0, 0.0])
    begin_m = world.reference.position_m[2]
    world.run(1.0)
    # It begins at the measured pose, in steps that nobody feels.
    low_m = world.reference.position_m[2]
    assert begin_m - 0.0041 < low_m < begin_m
    for _ in range(5):
        world.hand = STILL
        world.run(0.3)
        world.hand = np.array([0.0, 0.004, 0.0, 0.0, 0.0, 0.0])
        world.run(1.5)
    assert world.reference.position_m[2] == pytest.approx(low_m, abs=1e-6)
    # And he can lift it as slowly as he likes without it going down first.
    world.hand = np.array([0.0, 0.0, 0.002, 0.0, 0.0, 0.0])
    heights = []
    for _ in range(20):
        world.run(0.1)
        heights.append(world.reference.position_m[2])
    assert np.min(np.diff([low_m, *heights])) >= -1e-9
    world.hand = np.array([0.0, 0.0, 0.006, 0.0, 0.0, 0.0])
    world.run(1.0)
    assert world.reference.position_m[2] > heights[-1] + 0.02
    # What was done is what a row says: from the measured pose to where the reference went.
    for row in world.rows[-5:]:
        assert row.source is Source.HUMAN
        assert not row.limits


@pytest.mark.parametrize("after_s", [0.0, 0.15, 1.5])
def test_pressing_back_onto_an_obstacle_does_not_wind_up(after_s: float) -> None:
    up = np.array([0.0, 0.0, 0.008, 0.0, 0.0, 0.0])
    world = TeleopWorld(hand=up)
    world.run(1.0)
    # Between where he took over and where he is, something is in the way now.
    world.floor_m = float(world.measured.position_m[2]) - 0.002
    world.hand = STILL if after_s else None
    world.run(after_s)
    world.hand = np.array([0.0, 0.0, -0.004, 0.0, 0.0, 0.0])
    world.run(2.0)
    lead_m = world.measured.position_m[2] - world.reference.position_m[2]
    assert 0.0 < lead_m <= 0.008
    assert not any(row.limits for row in world.rows[-10:])
    # And it comes free at once.
    world.hand = up
    world.run(0.2)
    assert world.reference.position_m[2] > world.floor_m


def test_of_a_chunk_of_before_a_takeover_nothing_passes() -> None:
    def proposal_of(observed_ns: int, tick: int) -> PolicyAction:
        stamp_ns = T0 + tick * P
        step = (stamp_ns - observed_ns) // P
        return replace(world.proposal(stamp_ns), chunk_step=step, base=FORTH)

    world = TeleopWorld(policy=FORTH, lag_s=1e-4)
    gate = world.gate
    for tick in (1, 2):
        gate.on_tick(T0 + tick * P)
        gate.accept(proposal_of(T0, tick), HOME)
    # One row is his, and the actor has not heard of it when it proposes for the next tick.
    taken_ns = T0 + 2 * P + 30_000_000
    gate.take_over(taken_ns, HOME)
    gate.steer(left(), taken_ns, HOME)
    gate.release(taken_ns + 20_000_000, HOME)
    assert gate.hold(T0 + 3 * P, HOME) is None
    gate.note(proposal_of(T0, 3))
    row = gate.hold(T0 + 4 * P, HOME)
    assert row is not None
    assert (row.source, row.stamp_ns) == (Source.HUMAN, T0 + 3 * P)
    for observed_ns in (T0, T0 + 3 * P):
        with pytest.raises(InvalidCommandError, match="before_takeover"):
            gate.accept(proposal_of(observed_ns, 4), HOME)
    held = gate.hold(T0 + 4 * P + 60_000_000, HOME)
    assert held is not None
    assert held.source is Source.HOLD
    assert gate.accept(proposal_of(T0 + 4 * P, 5), HOME).source is Source.VLA
    # The next episode knows nothing of it.
    gate.close()
    gate.open(2, T0 + 6 * P)
    gate.accept(replace(proposal_of(T0, 7), epoch=2), HOME)


def test_pressing_the_gripper_alone_does_not_move_an_arm_that_sags() -> None:
    world = TeleopWorld(sag_m=0.004)
    world.policy = FORTH
    world.run(0.33)
    world.policy = None
    world.run(0.12)
    begin = world.reference
    # A press has the arm for `release_after_s`, without any deflection.
    for _ in range(10):
        world.hand = STILL
        world.run(0.01)
        world.gate.gripper.press()
        world.run(0.3)
        world.hand = None
        world.run(0.7)
    assert world.gate.gripper.is_open is not None
    assert np.linalg.norm(world.reference.position_m - begin.position_m) < 1e-3


@pytest.mark.parametrize("taken_s", [0.01, 0.05, 0.085])
def test_a_takeover_within_one_tick_has_a_row_of_its_own(taken_s: float) -> None:
    world = TeleopWorld()
    world.policy = FORTH
    world.run(0.3 + taken_s)
    world.hand = left()
    world.run(0.01)
    world.hand = None
    world.run(0.5)
    text = sources(world)
    assert text.count("h") == 1
    assert text.strip("v") == "h"
    assert np.all(np.diff(stamps(world)) == P)


@pytest.mark.parametrize("who", ["hand", "policy", "nobody"])
def test_after_the_clock_was_set_back_rows_and_actions_go_on(who: str) -> None:
    gate, back_ns = TeleopWorld().gate, 5 * 36 * P
    now_ns, num_rows, sag = T0, [], np.array([0, 0, -0.004])
    for step in range(120):
        now_ns = T0 + step * 10_000_000 - (back_ns if step >= 60 else 0)
        made = 0
        measured = HOME if gate.target is None else offset_pose(gate.target, sag, np.zeros(3))
        while (row := gate.hold(now_ns, measured)) is not None:
            assert step < 60 or abs(row.stamp_ns - now_ns) <= 2 * P
            made += 1
        if who == "hand":
            gate.take_over(now_ns, measured)
            gate.steer(STILL, now_ns, measured)
            assert gate.target is not None
            assert gate.target.position_m == pytest.approx(HOME.position_m, abs=1e-3)
        elif who == "policy" and step % 10 == 0:
            gate.accept(proposal(now_ns), measured)
            made += 1
        num_rows.append(made)
    assert sum(num_rows[:60]) >= 4
    assert 4 <= sum(num_rows[60:]) <= 7


def test_setting_the_clock_back_does_not_move_the_reference_of_a_human() -> None:
    gate = TeleopWorld().gate
    gate.take_over(T0, HOME)
    for step in range(25):
        now_ns = T0 + step * 10_000_000
        gate.hold(now_ns, HOME)
        gate.steer(left(), now_ns, HOME)
    before = gate.target
    assert before is not None
    now_ns -= 3600 * 10 * P
    gate.hold(now_ns, HOME)
    gate.steer(STILL, now_ns, HOME)
    assert gate.target is not None
    assert gate.target.position_m == pytest.approx(before.position_m, abs=1e-9)


def test_closing_gives_out_the_tick_that_a_human_drives() -> None:
    world = TeleopWorld(lag_s=1e-4)
    world.hand = left()
    world.run(0.45)
    row = world.gate.close(world.now_ns)
    assert row is not None
    assert row.source is Source.HUMAN
    assert row.stamp_ns == world.rows[-1].stamp_ns + P
    assert row.stamp_ns <= world.now_ns
    # As far as it went.
    assert 0.3 < row.executed[1] / left()[1] < 0.6
    assert world.gate.epoch is None
    assert world.gate.close(world.now_ns) is None


def test_closing_gives_out_nothing_where_the_row_is_out_or_not_due() -> None:
    world = TeleopWorld()
    world.policy = FORTH
    world.run(0.34)
    world.hand = left()
    world.run(0.02)
    assert world.gate.close(world.now_ns) is None
    other = TeleopWorld()
    other.policy = FORTH
    other.run(0.34)
    assert other.gate.close(other.now_ns) is None


def test_rows_stay_in_the_range_and_say_that_they_were_cut() -> None:
    for hand in (None, left()):
        world = TeleopWorld(sag_m=0.03)
        world.hand = left()
        world.run(0.45)
        world.hand = None
        world.run(0.02)
        world.hand, world.policy = hand, FORTH
        begin = len(world.rows)
        world.run(0.35)
        cut = [row for row in world.rows[begin:] if "range" in row.limits]
        assert {row.source for row in cut} >= {Source.VLA if hand is None else Source.HUMAN}
        for row in cut:
            assert np.all(np.abs(SPEC.to_normalised(row.executed)) <= 1.0 + 1e-9)


def test_a_hand_that_stops_does_not_pull_the_reference_back() -> None:
    world = TeleopWorld(lag_s=0.2)
    world.hand = left()
    world.run(0.85)
    assert np.linalg.norm(world.reference.position_m - world.measured.position_m) > 0.004
    world.hand = STILL
    world.run(0.01)
    begin_ns = world.now_ns
    world.run(0.2)
    beyond_m, beyond_rad = uncommanded(world, begin_ns, np.zeros(6))
    assert beyond_m <= JUMP_M
    assert beyond_rad <= JUMP_RAD


@settings(max_examples=25)
@given(
    anchor=st.sampled_from(list(Anchor)),
    begin=st.integers(40, 80),
    lasts=st.integers(4, 50),
    lag_s=st.floats(0.01, 0.3),
    policy=st.lists(st.floats(-0.02, 0.02), min_size=6, max_size=6),
    speed=st.floats(-1.0, 1.0),
)
def test_no_jump_at_takeover_and_hand_back(
    anchor: Anchor, begin: int, lasts: int, lag_s: float, policy: list[float], speed: float
) -> None:
    world = TeleopWorld(anchor=anchor, lag_s=lag_s)
    wanted = np.array([0.3 * value for value in policy] + [1.0])
    world.policy = wanted
    world.run(begin * 2 * STEP_NS * 1e-9)
    world.policy, world.hand = None, left(speed)
    taken_ns = world.now_ns + STEP_NS
    world.run(lasts * 2 * STEP_NS * 1e-9)
    if lasts * 2 * STEP_NS > 2 * P:
        beyond_m, beyond_rad = uncommanded(world, taken_ns, left(speed))
        assert beyond_m <= JUMP_M
        assert beyond_rad <= JUMP_RAD
    world.hand = None
    world.run(0.02)
    rest_ns = world.now_ns
    world.run(0.5)
    beyond_m, beyond_rad = uncommanded(world, rest_ns, np.zeros(6))
    assert beyond_m < 1e-9
    assert beyond_rad < 1e-6
    world.policy = wanted
    while world.rows[-1].source is not Source.VLA:
        world.step()
    back_ns = world.now_ns
    world.run(0.15)
    beyond_m, beyond_rad = uncommanded(world, back_ns, wanted)
    assert beyond_m <= JUMP_M
    assert beyond_rad <= JUMP_RAD


@settings(max_examples=25)
@given(
    script=st.lists(
        st.tuples(st.sampled_from("ph-b"), st.integers(1, 50)), min_size=1, max_size=8
    ),
    phase=st.integers(0, 19),
    hears=st.booleans(),
)
def test_every_tick_has_exactly_one_row(
    script: list[tuple[str, int]], phase: int, hears: bool
) -> None:
    world = TeleopWorld(phase_ns=phase * STEP_NS, hears_ticks=hears)
    for mode, steps in script:
        world.policy = FORTH if mode in "pb" else None
        world.hand = left() if mode in "hb" else None
        world.run(steps * STEP_NS * 1e-9)
    world.policy = world.hand = None
    world.run(0.5)
    gaps = np.diff(stamps(world))
    assert np.all(gaps > 0)
    if hears:
        # On the grid of the actor's ticks, from its first one on.
        later = [stamp - T0 for stamp in stamps(world)][1:]
        assert all((stamp - phase * STEP_NS) % P == 0 for stamp in later)
        assert np.all(gaps[1:] == P)
    for row in world.rows:
        assert np.all(np.abs(SPEC.to_normalised(row.executed)) <= 1.0 + 1e-9) or (
            row.source is not Source.HUMAN
        )


@settings(max_examples=25)
@given(
    presses=st.lists(st.integers(0, 40), min_size=1, max_size=15),
    is_open=st.booleans(),
)
def test_no_press_of_the_gripper_is_lost(presses: list[int], is_open: bool) -> None:
    world = TeleopWorld()
    world.gate.open(1, world.now_ns, is_hand_open=is_open)
    world.hand = STILL
    world.run(0.05)
    for steps in presses:
        world.gate.gripper.press()
        world.run(steps * STEP_NS * 1e-9)
    world.run(0.1 * (len(presses) + 3))
    levels = [is_open, *(bool(row.executed[6] > 0.5) for row in world.rows)]
    assert np.count_nonzero(np.diff(levels)) == len(presses)
    assert levels[-1] is (is_open if len(presses) % 2 == 0 else not is_open)
    told = [is_open, *world.commands]
    assert np.count_nonzero(np.diff(told)) == len(presses)


def test_after_the_pose_was_lost_the_human_goes_on_from_where_the_arm_is() -> None:
    world = TeleopWorld()
    world.hand = left()
    world.run(0.34)
    world.gate.interrupt()
    assert world.gate.target is None
    elsewhere = offset_pose(HOME, np.array([0.05, 0.0, 0.05]), np.zeros(3))
    world.gate.steer(left(), world.now_ns, elsewhere)
    assert world.gate.target is not None
    assert np.allclose(world.gate.target.position_m, elsewhere.position_m + left()[:3])


def test_outside_an_episode_nobody_takes_over() -> None:
    world = TeleopWorld()
    world.gate.close()
    with pytest.raises(InvalidCommandError, match="not_running"):
        world.gate.take_over(world.now_ns, HOME)
    world.gate.steer(left(), world.now_ns, HOME)
    world.gate.release(world.now_ns, HOME)
    assert world.gate.target is None
    assert world.gate.hold(world.now_ns + 9 * P, HOME) is None


def test_slip_stays_below_what_may_jump() -> None:
    assert SLIP_M < JUMP_M
    assert SLIP_RAD < JUMP_RAD
