# SPDX-License-Identifier: Apache-2.0
"""What ends an episode, and who is said to have judged it."""

from __future__ import annotations

import pytest

from vla_rl_ros.core.episode import EpisodeMachine, Outcome, Phase
from vla_rl_ros.core.verdict import (
    CLASSIFIER,
    ENVIRONMENT,
    GROUND_TRUTH,
    OPERATOR,
    Evidence,
    SuccessHold,
    decide,
    judge_code,
)


def test_success_must_last_and_silence_adds_nothing() -> None:
    hold = SuccessHold(0.2)
    held = []
    for now_s, decided in [(0.0, True), (0.1, False), (0.2, True), (0.3, True), (0.4, True)]:
        hold.update(decided, now_s)
        held.append(hold.is_held)
    assert held == [False, False, False, False, True]
    hold.reset()
    assert not hold.is_held


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (Evidence(elapsed_s=1.0), None),
        (Evidence(elapsed_s=5.0), Outcome.TIMEOUT),
        (Evidence(elapsed_s=5.0, is_success=True), Outcome.SUCCESS),
        (Evidence(elapsed_s=1.0, lost="camera_front is silent"), Outcome.FAULT),
        (Evidence(elapsed_s=1.0, is_success=True, lost="camera_front"), Outcome.SUCCESS),
        (Evidence(elapsed_s=1.0, is_success=True, operator=False), Outcome.FAILURE),
        (Evidence(elapsed_s=1.0, operator=True), Outcome.SUCCESS),
    ],
)
def test_what_ends_an_episode(evidence: Evidence, outcome: Outcome | None) -> None:
    verdict = decide(evidence, time_limit_s=5.0)
    assert (verdict.outcome if verdict else None) is outcome


def test_the_operator_judged_where_he_had_the_last_word() -> None:
    measured = Evidence(elapsed_s=5.0, judge="classifier 0123 lift")
    timeout = decide(measured, time_limit_s=5.0)
    spoken = decide(Evidence(elapsed_s=1.0, judge=GROUND_TRUTH, operator=False), time_limit_s=5.0)
    assert [found and found.judge for found in (timeout, spoken)] == [
        "classifier 0123 lift",
        OPERATOR,
    ]


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(elapsed_s=1.0, judge=GROUND_TRUTH, lost="camera_front is silent"),
        Evidence(elapsed_s=5.0, judge=OPERATOR),
    ],
)
def test_where_nobody_spoke_nobody_judged(evidence: Evidence) -> None:
    verdict = decide(evidence, time_limit_s=5.0)
    assert verdict is not None
    assert verdict.judge == ""


def test_a_judge_stands_beside_an_outcome_only() -> None:
    machine = EpisodeMachine()
    machine.go(Phase.IDLE)
    machine.begin(episode_id="a", task="lift", instruction="lift it", seed=4)
    for phase in (Phase.READY, Phase.RUNNING):
        machine.go(phase, judge=OPERATOR)
        assert machine.state.judge == ""
    machine.go(Phase.ENDED, outcome=Outcome.FAILURE, judge=OPERATOR)
    assert machine.state.judge == OPERATOR
    machine.go(Phase.IDLE)
    assert machine.state.judge == ""


def test_codes_of_judges_are_two_bytes_that_follow_from_the_name() -> None:
    names = (GROUND_TRUTH, OPERATOR, ENVIRONMENT, f"{CLASSIFIER} 0123 lift")
    codes = [judge_code(name) for name in names]
    assert judge_code("") == 0
    assert len({0, *codes}) == 5
    assert max(codes) < 2**16
    # They stand in files: another way to compute them would make these tell lies.
    assert judge_code(GROUND_TRUTH) == 35978
