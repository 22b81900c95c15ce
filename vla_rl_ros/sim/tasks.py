# SPDX-License-Identifier: Apache-2.0
"""The tasks: what the arm is asked to do, and when it is solved.

Where things stand at the start is `sim.layouts`. Judging works on live data between two steps and
must run in the thread that steps the simulation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import mujoco
import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.sim.scene import (
    BLOCK_HALF_HEIGHT_M,
    PEG_HALF_LENGTH_M,
    PEG_HALF_WIDTH_M,
    PEG_IN_HAND_M,
)
from vla_rl_ros.sim.scene_ids import SceneIds

CUBE_LIFTED_M = 0.10
BUTTON_PRESSED_M = -0.007
PEG_INSERTED_M = 0.02
PEG_START_M = (0.15, 0.21)
"""Lowest and highest TCP with which `Task.PEG` starts."""

# What a scene's `start_spread_m` gives by default, and a little more.
_PEG_START_REACH_M = 0.065
_PEG_START_MARGIN_M = 0.02
_PEG_IN_HAND_ERROR_M = 0.01


class Task(enum.Enum):
    """What the arm is asked to do; the value is the name used on command lines and in topics."""

    LIFT = "lift"
    PEG = "peg"
    BUTTON = "button"
    PEG_OUT = "peg_out"
    """Undoes `PEG`: from the hole back to where `PEG` starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """Fixed facts about a task.

    Attributes:
        instruction: The sentence a language-conditioned policy gets.
        time_limit_s: Episodes end as failures after this time.
    """

    instruction: str
    time_limit_s: float


TASKS: dict[Task, TaskSpec] = {
    Task.LIFT: TaskSpec(instruction="lift the red cube", time_limit_s=12.0),
    Task.PEG: TaskSpec(instruction="insert the peg", time_limit_s=12.0),
    Task.BUTTON: TaskSpec(instruction="press the yellow button", time_limit_s=12.0),
    Task.PEG_OUT: TaskSpec(instruction="pull the peg out", time_limit_s=12.0),
}


def task_by_name(name: str) -> Task:
    """Return the task with this value.

    Raises:
        ConfigError: Lists the known names.
    """
    try:
        return Task(name)
    except ValueError:
        known = ", ".join(task.value for task in Task)
        raise ConfigError(f"unknown task '{name}', known are: {known}") from None


def is_success(task: Task, data: mujoco.MjData, ids: SceneIds) -> bool:
    """Whether the task is solved in the present state."""
    if task is Task.LIFT:
        return bool(data.xpos[ids.bodies["cube"]][2] > CUBE_LIFTED_M)
    if task is Task.BUTTON:
        return bool(data.qpos[ids.button_qpos] < BUTTON_PRESSED_M)
    if task is Task.PEG_OUT:
        return is_peg_in_hand(data, ids) and _is_at_peg_start(data, ids)
    return is_peg_in_hole(data, ids, PEG_INSERTED_M)


def is_peg_in_hole(data: mujoco.MjData, ids: SceneIds, depth_m: float) -> bool:
    """Whether the tip is at least so deep in the hole; beside the block it is as low, but not."""
    peg, block = ids.bodies["peg"], ids.bodies["block"]
    tip = data.xpos[peg] + PEG_HALF_LENGTH_M * data.xmat[peg].reshape(3, 3)[:, 2]
    offset = tip - data.xpos[block]
    depth = BLOCK_HALF_HEIGHT_M - offset[2]
    return bool(depth >= depth_m and np.max(np.abs(offset[:2])) < PEG_HALF_WIDTH_M)


def is_peg_in_hand(data: mujoco.MjData, ids: SceneIds) -> bool:
    """Whether the peg is where the fingers hold it."""
    tcp, axis = data.site_xpos[ids.tcp_site], data.site_xmat[ids.tcp_site].reshape(3, 3)[:, 2]
    error_m = data.xpos[ids.bodies["peg"]] - (tcp + PEG_IN_HAND_M * axis)
    return float(np.linalg.norm(error_m)) < _PEG_IN_HAND_ERROR_M


def _is_at_peg_start(data: mujoco.MjData, ids: SceneIds) -> bool:
    """Whether the TCP is where `layouts.sample_layout` lets `Task.PEG` begin, or close to it."""
    offset = data.site_xpos[ids.tcp_site] - data.xpos[ids.bodies["block"]]
    low, high = PEG_START_M
    height = data.site_xpos[ids.tcp_site][2]
    is_above = low <= height <= high + _PEG_START_MARGIN_M
    return bool(is_above and np.max(np.abs(offset[:2])) < _PEG_START_REACH_M)
