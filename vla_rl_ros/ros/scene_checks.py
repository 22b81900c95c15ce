# SPDX-License-Identifier: Apache-2.0
"""Ways to find out whether the scene is in the start state of a task, by name.

Each is a `episode_start.SceneCheck`; `make_check` picks one. A cell with its own sensors adds one
here and its name to `CHECKS`.
"""

from __future__ import annotations

from typing import Protocol

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.cell_reset import CellReset
from vla_rl_ros.ros.episode_ports import AskHuman
from vla_rl_ros.ros.episode_start import DONE, GIVE_UP, SceneCheck
from vla_rl_ros.ros.steps import Clock, Steps, pause, wait_for

CHECKS = ("auto", "truth", "judge", "operator", "none")
# A judgement of the last episode may still be on its way.
SETTLE_S = 0.3
# Judges debounce: that a task is done they say after some looks at it.
WATCH_S = 1.2


class Judge(Protocol):
    """What is used of whoever measures success."""

    def forget_judgement(self) -> None:
        """Take what was said so far for old."""

    def is_done_now(self) -> bool | None:
        """Whether the task is done, None while nothing new was said."""


def make_check(
    name: str,
    devices: CellReset,
    judge: Judge | None,
    clock: Clock,
) -> SceneCheck:
    """The check of this name.

    Args:
        name: One of `CHECKS`; ``auto`` takes the truth of a simulator, else the judge of success,
            else nothing.
        devices: Knows the simulator.
        judge: Measures success of the task of the episode; None where only the operator knows.
        clock: Monotonic time.

    Raises:
        ConfigError: The cell has nothing to check with.
    """
    if name == "auto":
        name = "truth" if devices.has_simulator else "judge" if judge is not None else "none"
    if name == "truth":
        if not devices.has_simulator:
            raise ConfigError("scene_check=truth needs a simulated cell; try judge or operator")
        return lambda task, _announced, _ask: devices.scene_problem(task)
    if name == "judge":
        if judge is None:
            raise ConfigError("scene_check=judge needs an outcome_source other than operator")
        return lambda task, announced, _: _judged(task, announced, judge, clock)
    return _operator if name == "operator" else _nothing


def _judged(task: str, announced: str, judge: Judge, clock: Clock) -> Steps[str]:
    """Judges know the announced task only; where that is done, the one that undoes it may begin.

    A task that is done already was not reset; who is silent has nothing against it.
    """
    judge.forget_judgement()
    yield from pause(SETTLE_S, clock)
    judge.forget_judgement()
    is_done = yield from wait_for(lambda: judge.is_done_now() is True, WATCH_S, clock)
    if task != announced:
        return "" if is_done else f"{announced} is not done"
    return f"{task} is done already" if is_done else ""


def _operator(task: str, _announced: str, ask: AskHuman) -> Steps[str]:
    yield from ask(f"is the scene in the start of {task}? If so, {DONE}, {GIVE_UP} if not")
    return ""


def _nothing(_task: str, _announced: str, _ask: AskHuman) -> Steps[str]:
    yield from ()
    return ""
