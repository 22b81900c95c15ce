# SPDX-License-Identifier: Apache-2.0
"""From one episode to the next: who resets, what is checked, who is asked, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from vla_rl_ros.core.episode import Outcome, ResetKind, TaskConfig
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reset_plan import ResetMode, ResetPlan
from vla_rl_ros.ros.episode_ports import EpisodeOrder
from vla_rl_ros.ros.episode_start import ArmRest, EpisodeStart
from vla_rl_ros.ros.scene_checks import make_check
from vla_rl_ros.ros.steps import FalseStartError, StepError, Steps

AT_REST = ArmRest(is_held=False, is_following=False)
UNDO = {"peg": "peg_out", "peg_out": "peg"}


@dataclass
class Cell:
    """Devices that remember what was asked of them."""

    mode: ResetMode = ResetMode.PAIR
    help_kind: ResetKind = ResetKind.SCRIPTED
    calls: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rest: ArmRest = AT_REST
    gives_up: bool = False
    refusal: str = ""
    now_s: float = 0.0
    has_simulator: bool = True
    task: str = ""

    def __post_init__(self) -> None:
        self.plan = ResetPlan(self.mode, self.help_kind)

    def home(self, name: str, task: TaskConfig, seed: int, home_timeout_s: float) -> Steps[None]:
        self.calls.append(f"home {name}")
        yield

    def arrange(self) -> Steps[None]:
        self.calls.append("arrange")
        yield

    def rearm(self) -> Steps[None]:
        self.calls.append("rearm")
        yield
        if self.refusal:
            raise StepError(self.refusal)

    def scene_problem(self, name: str) -> Steps[str]:
        self.calls.append(f"check {name}")
        yield
        return self.problems.pop(0) if self.problems else ""

    def ask(self, sentence: str) -> Steps[None]:
        self.asked.append(sentence)
        yield
        if self.gives_up:
            raise FalseStartError("the operator gave up the reset")

    def begin(self, check: str = "truth", judge: Judge | None = None) -> ResetKind:
        """Prepare the next episode as the supervisor would; returns who reset."""
        start = self.plan.next("peg", "peg_out")
        config = TaskConfig(instruction=start.task)
        order = EpisodeOrder(task=start.task, config=config, instruction="", seed=3, start=start)
        episode_start = EpisodeStart(
            self,
            self.plan,
            make_check(check, self, judge, self.clock),
            lambda: self.rest,
            lambda order: replace(
                order, task=UNDO[order.task], start=replace(order.start, task=UNDO[order.task])
            ),
            home_timeout_s=1.0,
            say=self.calls.append,
            clock=self.clock,
        )
        steps = episode_start.steps(order, self.ask)
        while True:
            try:
                next(steps)
            except StopIteration as end:  # noqa: PERF203 - that is how a generator returns
                self.task = end.value.order.task
                return end.value.reset

    def clock(self) -> float:
        self.now_s += 0.1
        return self.now_s

    def done(self, task: str, outcome: Outcome = Outcome.SUCCESS) -> None:
        self.calls.clear()
        self.plan.note(task, UNDO[task], outcome)


class Judge:
    """Says the same again and again, after a word on the last episode."""

    def __init__(self, *words: bool | None, old: bool = False) -> None:
        """Another word for each check; the last one is repeated."""
        self.coming, self.words = list(words), [old]
        self.word: bool | None = None
        self.num_forgotten = 0

    def forget_judgement(self) -> None:
        self.words = []
        if self.num_forgotten % 2 == 0:
            self.word = self.coming.pop(0) if len(self.coming) > 1 else self.coming[0]
        self.num_forgotten += 1

    def is_done_now(self) -> bool | None:
        return self.words[-1] if self.words else self.word


def moves(cell: Cell) -> list[str]:
    return [call for call in cell.calls if call.split()[0] in ("home", "arrange", "rearm")]


def test_a_pair_touches_nothing_but_the_arms_readiness_between_its_episodes() -> None:
    cell = Cell()
    assert cell.begin() is ResetKind.SCRIPTED
    assert moves(cell) == ["home peg", "arrange"]
    cell.done("peg")
    assert cell.begin() is ResetKind.NONE
    assert cell.calls == ["rearm", "check peg_out"]


def test_a_scene_that_nobody_can_start_from_is_helped_at_once() -> None:
    cell = Cell()
    cell.begin()
    cell.done("peg")
    cell.problems = ["the peg is not in the hole", "the peg is not in the hand"]
    assert cell.begin() is ResetKind.SCRIPTED
    assert moves(cell) == ["rearm", "home peg_out", "arrange"]
    assert any("the peg is not in the hole" in call for call in cell.calls)


def test_a_scene_in_the_start_of_the_other_task_begins_with_that_one() -> None:
    cell = Cell()
    cell.begin()
    cell.done("peg")
    cell.problems = ["the peg is not in the hole"]
    assert cell.begin() is ResetKind.NONE
    assert cell.task == "peg"
    assert moves(cell) == ["rearm"]
    cell.done("peg")
    assert cell.begin() is ResetKind.NONE
    assert cell.task == "peg_out"


def test_a_false_start_after_a_scripted_reset_is_refused_with_a_sentence() -> None:
    cell = Cell(mode=ResetMode.SCRIPTED)
    cell.problems = ["the cube does not lie on the table"]
    with pytest.raises(FalseStartError, match="false start refused: the cube does not lie"):
        cell.begin()


def test_a_person_is_asked_until_the_scene_is_in_its_start() -> None:
    cell = Cell(mode=ResetMode.HUMAN)
    cell.problems = ["the peg is not in the hand"]
    assert cell.begin() is ResetKind.HUMAN
    assert moves(cell) == ["home peg", "arrange", "arrange"]
    assert len(cell.asked) == 2
    assert "reset the scene for peg, then call supervisor/reset_done" in cell.asked[0]
    assert cell.asked[1].startswith("false start refused, the peg is not in the hand")


def test_a_pair_that_failed_twice_asks_the_person_and_says_why() -> None:
    cell = Cell(help_kind=ResetKind.HUMAN)
    cell.begin()
    cell.done("peg")
    for _ in range(2):
        cell.done("peg_out", Outcome.TIMEOUT)
    assert cell.begin() is ResetKind.HUMAN
    assert "peg_out failed twice in a row" in cell.asked[-1]


def test_a_person_may_give_up_and_is_asked_again_the_next_time() -> None:
    cell = Cell(help_kind=ResetKind.HUMAN, gives_up=True)
    with pytest.raises(FalseStartError, match="gave up"):
        cell.begin()
    cell.gives_up = False
    assert cell.begin() is ResetKind.HUMAN


def test_a_held_arm_is_not_released_by_the_next_episode() -> None:
    cell = Cell()
    cell.begin()
    cell.done("peg")
    cell.rest = ArmRest(is_held=True, is_following=False)
    with pytest.raises(StepError, match="held on request"):
        cell.begin()
    assert moves(cell) == []


def test_a_hold_that_was_not_heard_of_yet_is_found_by_the_controller() -> None:
    cell = Cell(refusal="impedance_controller/rearm refused: hold was asked for")
    cell.begin()
    cell.done("peg")
    with pytest.raises(StepError, match="hold was asked for"):
        cell.begin()
    assert cell.calls == ["rearm"]


def test_an_arm_that_still_follows_is_waited_for_and_then_named() -> None:
    cell = Cell()
    cell.begin()
    cell.done("peg")
    cell.rest = ArmRest(is_held=False, is_following=True)
    with pytest.raises(StepError, match="silence the gate"):
        cell.begin()
    assert moves(cell) == []


def test_the_judge_refuses_a_task_that_is_done_already() -> None:
    cell = Cell(mode=ResetMode.SCRIPTED, has_simulator=False)
    with pytest.raises(FalseStartError, match="peg is done already"):
        cell.begin("judge", Judge(True))
    assert cell.begin("judge", Judge(False, old=True)) is ResetKind.SCRIPTED
    assert cell.begin("judge", Judge(None, old=True)) is ResetKind.SCRIPTED


def test_a_judge_that_sees_the_task_done_lets_the_undoing_one_begin() -> None:
    cell = Cell(has_simulator=False)
    cell.begin("judge", Judge(False))
    cell.done("peg", Outcome.TIMEOUT)
    assert cell.begin("judge", Judge(True)) is ResetKind.NONE
    assert cell.task == "peg_out"
    assert moves(cell) == ["rearm"]


def test_a_judge_that_is_not_sure_has_a_pair_helped() -> None:
    cell = Cell(has_simulator=False)
    cell.begin("judge", Judge(False))
    cell.done("peg", Outcome.TIMEOUT)
    assert cell.begin("judge", Judge(True, False)) is ResetKind.SCRIPTED
    assert cell.task == "peg"


def test_the_operators_word_can_be_the_check() -> None:
    cell = Cell(mode=ResetMode.SCRIPTED, has_simulator=False)
    assert cell.begin("operator") is ResetKind.SCRIPTED
    assert "is the scene in the start of peg?" in cell.asked[0]
    cell.gives_up = True
    with pytest.raises(FalseStartError):
        cell.begin("operator")


def test_what_is_automatic_depends_on_what_the_cell_has() -> None:
    cell = Cell(mode=ResetMode.SCRIPTED)
    cell.begin("auto", Judge(True))
    assert "check peg" in cell.calls
    cell.has_simulator = False
    with pytest.raises(FalseStartError):
        cell.begin("auto", Judge(True))
    assert cell.begin("auto") is ResetKind.SCRIPTED


@pytest.mark.parametrize("name", ["truth", "judge"])
def test_a_check_that_the_cell_cannot_do_is_refused(name: str) -> None:
    cell = Cell(has_simulator=False)
    with pytest.raises(ConfigError, match=f"scene_check={name}"):
        make_check(name, cell, None, cell.clock)
