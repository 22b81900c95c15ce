# SPDX-License-Identifier: Apache-2.0
"""Order of phases, outcomes and names."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from vla_rl_ros.core.episode import (
    EpisodeMachine,
    EpisodeOrderError,
    Outcome,
    Phase,
    TaskConfig,
    episode_id,
    planned_task,
)
from vla_rl_ros.core.errors import ConfigError

START = {"episode_id": "a", "task": "lift", "instruction": "lift the red cube", "seed": 4}


def machine_at(phase: Phase) -> EpisodeMachine:
    machine = EpisodeMachine()
    if phase is not Phase.BRINGUP:
        machine.go(Phase.IDLE)
    path = {
        Phase.RESETTING: [],
        Phase.READY: [Phase.READY],
        Phase.RUNNING: [Phase.READY, Phase.RUNNING],
    }
    if phase in path:
        machine.begin(**START)
        for step in path[phase]:
            machine.go(step)
    if phase is Phase.FAULT:
        machine.go(Phase.FAULT, reason="reflex")
    if phase is Phase.ENDED:
        machine.begin(**START)
        machine.go(Phase.ENDED, outcome=Outcome.ABORTED)
    return machine


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (Phase.BRINGUP, Phase.RUNNING),
        (Phase.IDLE, Phase.RUNNING),
        (Phase.RESETTING, Phase.RUNNING),
        (Phase.RUNNING, Phase.IDLE),
        (Phase.FAULT, Phase.RESETTING),
        (Phase.FAULT, Phase.RUNNING),
    ],
)
def test_phases_cannot_be_skipped(start: Phase, end: Phase) -> None:
    with pytest.raises(EpisodeOrderError, match=f"from {start.value} to {end.value}"):
        machine_at(start).go(end)


@pytest.mark.parametrize("phase", [Phase.RESETTING, Phase.READY, Phase.RUNNING])
def test_a_fault_in_an_open_episode_is_its_outcome(phase: Phase) -> None:
    machine = machine_at(phase)
    machine.go(Phase.FAULT, reason="reflex")
    assert machine.state.outcome is Outcome.FAULT
    assert machine.state.reason == "reflex"


def test_a_fault_between_episodes_has_no_outcome() -> None:
    assert machine_at(Phase.FAULT).state.outcome is None


def test_an_end_needs_an_outcome_and_idle_forgets_it() -> None:
    machine = machine_at(Phase.RUNNING)
    with pytest.raises(EpisodeOrderError, match="needs an outcome"):
        machine.go(Phase.ENDED)
    machine.go(Phase.ENDED, outcome=Outcome.SUCCESS)
    machine.go(Phase.IDLE)
    assert machine.state.outcome is None


def test_each_episode_has_an_epoch_above_all_before() -> None:
    machine = EpisodeMachine(first_epoch=41)
    machine.go(Phase.IDLE)
    machine.begin(**START)
    assert machine.state.epoch == 42


def test_names_sort_by_time_and_are_safe_as_files() -> None:
    early = datetime(2026, 9, 8, 7, 6, 5, tzinfo=timezone.utc)
    late = datetime(2026, 9, 8, 17, 6, 5, tzinfo=timezone.utc)
    names = [episode_id(late, "button", 1), episode_id(early, "peg", 12)]
    assert sorted(names) == ["20260908T070605Z_peg_0012", "20260908T170605Z_button_0001"]


def test_tasks_take_turns_in_blocks() -> None:
    order = [planned_task(("a", "b"), 2, index) for index in range(6)]
    assert order == ["a", "a", "b", "b", "a", "a"]


def test_a_task_without_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="instruction"):
        TaskConfig(instruction=" ")
