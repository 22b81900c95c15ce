# SPDX-License-Identifier: Apache-2.0
"""The whole life of the cell without ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import pytest

from vla_rl_ros.core.episode import (
    EpisodeOrderError,
    EpisodeState,
    Outcome,
    Phase,
    ResetKind,
    TaskConfig,
)
from vla_rl_ros.core.reset_plan import Start
from vla_rl_ros.ros.episode_ports import AskHuman, EpisodeOrder, Ports, Prepared, Timing
from vla_rl_ros.ros.episode_runner import EpisodeRunner
from vla_rl_ros.ros.steps import StepError, Steps


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Cell:
    """A graph that does what a test says."""

    clock: FakeTime = field(default_factory=FakeTime)
    phases: list[str] = field(default_factory=list)
    states: list[EpisodeState] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    answers: list[tuple[bool, str]] = field(default_factory=list)
    autorun: int = 0
    has_chunk: bool = True
    is_success: bool = False
    judge: str = "classifier 0123 lift"
    fault: str = ""
    lost: str = ""
    stopped: str = ""
    bringup_error: str = ""
    reset_error: str = ""
    recovers: bool = True
    asks: str = ""
    other: str = ""
    prompts: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        ports = Ports(
            bring_up=lambda: self.step(self.bringup_error),
            bring_down=lambda: self.step(""),
            reset=self.reset,
            recover_arm=self.recover,
            next_order=self.next_order,
            asked_order=self.order,
            begin_watch=lambda: None,
            is_success=lambda: self.is_success,
            judge=lambda: self.judge,
            has_chunk=lambda epoch: self.has_chunk,
            policy_says=lambda: "no image",
            arm_fault=lambda: self.fault,
            lost=lambda: self.lost,
            stopped=lambda: self.stopped,
            prompted=self.prompts.append,
            publish=self.publish,
            say=self.said.append,
            clock=self.clock,
            utc_now=lambda: datetime(2026, 1, 2, tzinfo=timezone.utc),
        )
        self.runner = EpisodeRunner(ports, Timing())

    def order(self) -> EpisodeOrder:
        config = TaskConfig(instruction="lift the red cube", time_limit_s=2.0)
        return EpisodeOrder(
            task="lift",
            config=config,
            instruction=config.instruction,
            seed=7,
            start=Start(task="lift", reset=ResetKind.SCRIPTED),
        )

    def next_order(self) -> EpisodeOrder | None:
        self.autorun -= 1
        return self.order() if self.autorun >= 0 else None

    def step(self, error: str) -> Steps[None]:
        yield
        if error:
            raise StepError(error)

    def reset(self, order: EpisodeOrder, ask: AskHuman) -> Steps[Prepared]:
        yield from self.step(self.reset_error)
        if self.asks:
            yield from ask(self.asks)
        if self.other:
            order = replace(order, task=self.other, instruction="undo it")
        return Prepared(order=order, reset=order.start.reset)

    def recover(self) -> Steps[str]:
        yield
        if self.recovers:
            self.fault = ""
        return "recovered"

    def publish(self, state: EpisodeState) -> None:
        self.phases.append(state.phase.value)
        self.states.append(state)

    def until(self, is_done: Callable[[], bool], limit_s: float = 30.0) -> None:
        end_s = self.clock.now_s + limit_s
        while not is_done():
            assert self.clock.now_s < end_s, self.phases
            self.runner.tick()
            self.clock.now_s += 0.02

    def until_phase(self, phase: Phase) -> None:
        self.until(lambda: self.runner.state.phase is phase)

    def recover_and_wait(self) -> tuple[bool, str]:
        self.runner.ask_recover(lambda ok, text: self.answers.append((ok, text)))
        self.until(lambda: bool(self.answers))
        return self.answers.pop()


def test_an_episode_runs_from_start_to_success() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    assert cell.runner.ask_start() == "lift with seed 7"
    assert cell.runner.ask_start() == "lift with seed 7"
    cell.until_phase(Phase.RUNNING)
    with pytest.raises(EpisodeOrderError, match="running, not idle"):
        cell.runner.ask_start()
    cell.is_success = True
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.outcome is Outcome.SUCCESS
    assert cell.runner.state.judge == cell.judge
    cell.until_phase(Phase.IDLE)
    assert cell.phases == ["bringup", "idle", "resetting", "ready", "running", "ended", "idle"]
    assert cell.runner.state.episode_id == "20260102T000000Z_lift_0000"


def test_episodes_follow_each_other_unasked_and_time_out() -> None:
    cell = Cell(autorun=2)
    cell.until(lambda: cell.phases.count("ended") == 2)
    outcomes = [state.outcome for state in cell.states if state.phase is Phase.ENDED]
    assert outcomes == [Outcome.TIMEOUT] * 2
    assert [s.epoch for s in cell.states if s.phase is Phase.RUNNING] == [1, 2]


def test_a_policy_without_a_chunk_ends_the_episode_and_is_named() -> None:
    cell = Cell(autorun=1, has_chunk=False)
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.outcome is Outcome.FAULT
    assert "vla_inference sent no chunk within 5 s: no image" in cell.runner.state.reason
    assert "running" not in cell.phases


def test_a_failed_reset_ends_the_episode_but_latches_nothing() -> None:
    cell = Cell(autorun=1, reset_error="arm/home refused: busy")
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.reason == "arm/home refused: busy"
    cell.until_phase(Phase.IDLE)


def test_a_reset_that_fails_because_of_the_arm_latches_its_fault() -> None:
    cell = Cell(autorun=1, reset_error="arm/home refused: link lost")
    cell.until_phase(Phase.RESETTING)
    cell.runner.tick()
    cell.clock.now_s += 0.5
    cell.fault = "arm: link lost"
    cell.until_phase(Phase.FAULT)
    assert cell.runner.state.outcome is Outcome.FAULT
    assert "ended" not in cell.phases


@pytest.mark.parametrize("attribute", ["lost", "stopped"])
def test_a_lost_node_ends_the_episode_and_bars_the_next(attribute: str) -> None:
    cell = Cell(autorun=1)
    cell.until_phase(Phase.RUNNING)
    setattr(cell, attribute, "camera_front has been silent for 3.1 s")
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.outcome is Outcome.FAULT
    cell.until_phase(Phase.IDLE)
    if attribute == "lost":
        with pytest.raises(EpisodeOrderError, match="camera_front"):
            cell.runner.ask_start()


def test_a_reflex_is_latched_and_recovered_and_the_next_episode_runs() -> None:
    cell = Cell(autorun=2)
    cell.until_phase(Phase.RUNNING)
    cell.fault = "arm: reflex"
    cell.until_phase(Phase.FAULT)
    assert cell.runner.state.outcome is Outcome.FAULT
    cell.fault = "arm: reflex"
    before_s = cell.clock.now_s
    assert cell.recover_and_wait() == (True, "recovered")
    assert cell.clock.now_s - before_s < 1.0
    cell.until_phase(Phase.RUNNING)


def test_a_fault_that_does_not_clear_stays_latched() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    cell.fault = "arm: reflex"
    cell.until_phase(Phase.FAULT)
    cell.recovers = False
    is_done, sentence = cell.recover_and_wait()
    assert not is_done
    assert "still: arm: reflex" in sentence
    assert cell.runner.state.phase is Phase.FAULT
    cell.recovers = True
    assert cell.recover_and_wait()[0]


def test_a_failed_bring_up_is_a_fault_that_recover_tries_again() -> None:
    cell = Cell(bringup_error="camera_front could not configure: no device")
    cell.until_phase(Phase.FAULT)
    assert "camera_front" in cell.runner.state.reason
    cell.bringup_error = ""
    assert cell.recover_and_wait()[0]
    assert cell.runner.state.phase is Phase.IDLE


def test_two_recoveries_at_a_time_are_one_too_many() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    cell.fault = "arm: reflex"
    cell.until_phase(Phase.FAULT)
    answers: list[tuple[bool, str]] = []
    for _ in range(2):
        cell.runner.ask_recover(lambda ok, text: answers.append((ok, text)))
        cell.runner.tick()
    assert answers == [(False, "a recovery is already running")]


def test_every_recovery_of_an_idle_cell_is_answered() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    answers: list[tuple[str, bool, str]] = []
    for name in ("first", "second"):
        cell.runner.ask_recover(lambda ok, text, name=name: answers.append((name, ok, text)))
    assert answers == [("second", False, "a recovery is already running")]
    with pytest.raises(EpisodeOrderError, match="a recovery is already running"):
        cell.runner.ask_down(lambda ok, text: None)
    cell.until(lambda: len(answers) == 2)
    assert answers[1] == ("first", True, "recovered")
    assert cell.recover_and_wait() == (True, "recovered")


@pytest.mark.parametrize("num_ticks", [0, 1])
@pytest.mark.parametrize("begin", ["ask_recover", "ask_down"])
def test_a_supervisor_that_stops_answers_whoever_waits(begin: str, num_ticks: int) -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    getattr(cell.runner, begin)(lambda ok, text: cell.answers.append((ok, text)))
    for _ in range(num_ticks):
        cell.runner.tick()
    cell.runner.close()
    assert cell.answers == [(False, "the supervisor stops")]


def test_a_fault_that_cuts_a_recovery_off_answers_it() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    cell.runner.ask_recover(lambda ok, text: cell.answers.append((ok, text)))
    cell.runner.tick()
    cell.fault = "arm: reflex"
    cell.runner.tick()
    assert cell.answers == [(False, "arm: reflex")]
    cell.answers.clear()
    assert cell.recover_and_wait() == (True, "recovered")


def test_the_operator_decides_only_while_an_episode_runs() -> None:
    cell = Cell(autorun=1)
    with pytest.raises(EpisodeOrderError, match="no episode runs"):
        cell.runner.ask_end(is_success=True)
    cell.until_phase(Phase.RUNNING)
    cell.runner.ask_end(is_success=False)
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.outcome is Outcome.FAILURE


def test_closing_ends_an_open_episode_as_aborted() -> None:
    cell = Cell(autorun=1)
    cell.until_phase(Phase.RUNNING)
    cell.runner.close()
    assert cell.states[-1].outcome is Outcome.ABORTED
    cell.runner.tick()
    assert cell.runner.state.phase is Phase.ENDED


def test_nodes_can_be_brought_down_and_up_again() -> None:
    cell = Cell()
    cell.until_phase(Phase.IDLE)
    cell.runner.ask_down(lambda ok, text: cell.answers.append((ok, text)))
    cell.until(lambda: bool(cell.answers))
    assert cell.runner.state.phase is Phase.BRINGUP
    cell.runner.ask_recover(lambda ok, text: None)
    cell.until_phase(Phase.IDLE)


def test_a_prompt_waits_for_the_operator_and_is_told_and_closed() -> None:
    cell = Cell(autorun=1, asks="put the cube back")
    cell.until(lambda: cell.prompts == [True])
    for _ in range(200):
        cell.runner.tick()
    state = cell.runner.state
    assert (state.phase, state.is_waiting) == (Phase.RESETTING, True)
    assert cell.states[-1].reason == "put the cube back"
    with pytest.raises(EpisodeOrderError, match="no episode runs"):
        cell.runner.ask_end(is_success=True)
    cell.runner.ask_reset_done()
    cell.until_phase(Phase.RUNNING)
    assert cell.prompts == [True, False]
    assert not cell.runner.state.is_waiting
    assert cell.runner.state.reset is ResetKind.SCRIPTED
    with pytest.raises(EpisodeOrderError, match="nobody was asked"):
        cell.runner.ask_reset_done()


def test_a_prompt_can_be_given_up_and_a_fault_closes_it() -> None:
    cell = Cell(autorun=2, asks="put the cube back")
    cell.until(lambda: cell.prompts == [True])
    cell.runner.ask_end(is_success=False)
    cell.until_phase(Phase.ENDED)
    assert cell.runner.state.outcome is Outcome.ABORTED
    assert cell.runner.state.reason == "the operator gave up the reset"
    cell.until(lambda: cell.prompts == [True, False, True])
    cell.fault = "arm: reflex"
    cell.until_phase(Phase.FAULT)
    assert cell.prompts == [True, False, True, False]
    assert not cell.states[-1].is_waiting


def test_the_scene_may_allow_another_task_than_the_one_ordered() -> None:
    cell = Cell(autorun=1, other="drop")
    cell.until_phase(Phase.READY)
    state = cell.runner.state
    assert (state.task, state.instruction) == ("drop", "undo it")
    assert state.episode_id == "20260102T000000Z_drop_0000"
    assert state.epoch == 1
