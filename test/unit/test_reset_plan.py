# SPDX-License-Identifier: Apache-2.0
"""Which task comes next and who resets, as a table and as rules that hold for every history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.episode import Outcome, ResetKind
from vla_rl_ros.core.reset_plan import MAX_FAILURES, ResetMode, ResetPlan, Start

UNDO = {"in": "out", "out": "in", "lift": ""}


def pair(help_kind: ResetKind = ResetKind.SCRIPTED) -> ResetPlan:
    return ResetPlan(ResetMode.PAIR, help_kind)


def start(plan: ResetPlan, task: str = "in") -> Start:
    return plan.next(task, UNDO[task])


def play(plan: ResetPlan, outcome: Outcome, task: str = "in") -> Start:
    """One episode as the plan wants it; returns how it began."""
    begun = start(plan, task)
    plan.note(begun.task, UNDO[begun.task], outcome)
    return begun


def test_scripts_and_people_reset_before_every_episode() -> None:
    for mode, kind in (
        (ResetMode.SCRIPTED, ResetKind.SCRIPTED),
        (ResetMode.HUMAN, ResetKind.HUMAN),
    ):
        plan = ResetPlan(mode, ResetKind.HUMAN)
        for outcome in (Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.SUCCESS):
            begun = play(plan, outcome)
            assert (begun.task, begun.reset) == ("in", kind)


def test_a_pair_takes_turns_and_is_helped_only_at_the_beginning() -> None:
    plan = pair()
    begun = [play(plan, Outcome.SUCCESS) for _ in range(5)]
    assert [each.task for each in begun] == ["in", "out", "in", "out", "in"]
    assert [each.reset for each in begun] == [ResetKind.SCRIPTED] + [ResetKind.NONE] * 4
    assert begun[0].reason
    assert not begun[1].reason


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT, Outcome.FAULT])
def test_a_direction_that_fails_twice_in_a_row_asks_for_help(outcome: Outcome) -> None:
    plan = pair(ResetKind.HUMAN)
    play(plan, Outcome.SUCCESS)
    assert play(plan, outcome) == Start(task="out", reset=ResetKind.NONE)
    assert play(plan, outcome) == Start(task="out", reset=ResetKind.NONE)
    helped = play(plan, Outcome.SUCCESS)
    assert (helped.task, helped.reset) == ("in", ResetKind.HUMAN)
    assert "out failed twice" in helped.reason
    assert start(plan) == Start(task="out", reset=ResetKind.NONE)


def test_one_failure_is_forgiven_by_a_success() -> None:
    plan = pair()
    for outcome in (Outcome.TIMEOUT, Outcome.SUCCESS) * 4:
        play(plan, outcome)
    assert start(plan).reset is ResetKind.NONE


def test_an_aborted_episode_is_nobodys_failure() -> None:
    plan = pair()
    play(plan, Outcome.SUCCESS)
    for _ in range(5):
        play(plan, Outcome.ABORTED)
    assert start(plan) == Start(task="out", reset=ResetKind.NONE)


def test_a_refused_start_asks_for_help() -> None:
    plan = pair()
    play(plan, Outcome.SUCCESS)
    plan.refuse()
    assert start(plan).reset is ResetKind.SCRIPTED


def test_a_task_that_nothing_undoes_is_reset_by_a_script_and_another_pair_begins_anew() -> None:
    plan = pair()
    assert start(plan, "lift") == Start(task="lift", reset=ResetKind.SCRIPTED)
    play(plan, Outcome.SUCCESS)
    plan.note("lift", "", Outcome.SUCCESS)
    assert start(plan).task == "out"
    assert plan.next("open", "close").reset is ResetKind.SCRIPTED
    assert start(plan).reset is ResetKind.SCRIPTED


def test_nobody_is_no_help() -> None:
    with pytest.raises(ValueError, match="help"):
        ResetPlan(ResetMode.PAIR, ResetKind.NONE)


@given(st.lists(st.sampled_from(list(Outcome)), max_size=60))
def test_help_comes_exactly_at_the_beginning_and_after_two_failures(
    outcomes: list[Outcome],
) -> None:
    plan, failures, direction = pair(), 0, ""
    for outcome in outcomes:
        begun = play(plan, outcome)
        needs_help = not direction or failures >= MAX_FAILURES
        assert (begun.reset is not ResetKind.NONE) == needs_help
        assert begun.task == ("in" if needs_help else direction)
        if outcome is Outcome.SUCCESS:
            direction, failures = UNDO[begun.task], 0
        elif outcome is not Outcome.ABORTED:
            failures = failures + 1 if begun.task == direction else 1
            direction = begun.task
