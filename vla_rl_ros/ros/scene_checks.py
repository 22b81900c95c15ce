# SPDX-License-Identifier: Apache-2.0
"""Ways to find out whether the scene is in the start state of a task, by name.

Each is a `episode_start.SceneCheck`; `make_check` picks one. A cell with its own sensors adds one
here and its name to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.cell_reset import CellReset
from vla_rl_ros.ros.episode_ports import AskHuman
from vla_rl_ros.ros.episode_start import DONE, GIVE_UP, SceneCheck
from vla_rl_ros.ros.steps import Clock, Steps, wait_for

CHECKS = ("auto", "truth", "judge", "operator", "none")
JUDGE_TIMEOUT_S = 1.5


def make_check(
    name: str,
    devices: CellReset,
    is_done: Callable[[], bool | None] | None,
    clock: Clock,
) -> SceneCheck:
    """The check of this name.

    Args:
        name: One of `CHECKS`; ``auto`` takes the truth of a simulator, else the judge of success,
            else nothing.
        devices: Knows the simulator.
        is_done: Whether the judge of success calls the task done now, None while it is silent;
            None where there is no judge.
        clock: Monotonic time.

    Raises:
        ConfigError: The cell has nothing to check with.
    """
    if name == "auto":
        name = "truth" if devices.has_simulator else "judge" if is_done is not None else "none"
    if name == "truth":
        if not devices.has_simulator:
            raise ConfigError("scene_check=truth needs a simulated cell; try judge or operator")
        return lambda task, _: devices.scene_problem(task)
    if name == "judge":
        if is_done is None:
            raise ConfigError("scene_check=judge needs an outcome_source other than operator")
        return lambda task, _: _judged(task, is_done, clock)
    return _operator if name == "operator" else _nothing


def _judged(task: str, is_done: Callable[[], bool | None], clock: Clock) -> Steps[str]:
    """A task that is done already was not reset; who is silent has nothing against it."""
    yield from wait_for(lambda: is_done() is not None, JUDGE_TIMEOUT_S, clock)
    return f"{task} is done already" if is_done() else ""


def _operator(task: str, ask: AskHuman) -> Steps[str]:
    yield from ask(f"is the scene in the start of {task}? If so, {DONE}, {GIVE_UP} if not")
    return ""


def _nothing(_task: str, _ask: AskHuman) -> Steps[str]:
    yield from ()
    return ""
