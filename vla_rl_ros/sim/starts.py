# SPDX-License-Identifier: Apache-2.0
"""Whether the scene is in the start state of a task, said as a sentence where it is not.

A start is a state the task can be done from and in which it is not done already; it is wider than
what a reset draws, because tasks that reset each other end in many places. Asked before every
episode, of live data between two steps or of a copy.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.sim.scene import CUBE_HALF_M
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.tasks import Task, is_peg_in_hand, is_peg_in_hole, is_success

_ON_TABLE_M = 0.01
_TABLE_MIDDLE_M = (0.5, 0.0)
_REACH_M = 0.3
_PEG_REACH_M = 0.15
_PEG_BEGUN_M = 0.005


def start_problem(task: Task, data: mujoco.MjData, ids: SceneIds) -> str:
    """Why the task cannot begin in the present state.

    Args:
        task: What is to be begun.
        data: State with current kinematics.
        ids: Addresses of the scene.

    Returns:
        A sentence for the operator, empty when it can begin.
    """
    if is_success(task, data, ids):
        return f"{task.value} is done already"
    if task is Task.LIFT:
        return _cube_problem(data, ids)
    if task is Task.BUTTON:
        return ""
    if not is_peg_in_hand(data, ids):
        return "the peg is not in the hand"
    if task is Task.PEG_OUT:
        return "" if is_peg_in_hole(data, ids, _PEG_BEGUN_M) else "the peg is not in the hole"
    distance_m = _distance_m(data, ids.bodies["peg"], data.xpos[ids.bodies["block"]][:2])
    return f"the peg is {distance_m:.2f} m from the hole" if distance_m > _PEG_REACH_M else ""


def _cube_problem(data: mujoco.MjData, ids: SceneIds) -> str:
    cube = ids.bodies["cube"]
    if abs(data.xpos[cube][2] - CUBE_HALF_M) > _ON_TABLE_M:
        return "the cube does not lie on the table"
    if _distance_m(data, cube, np.array(_TABLE_MIDDLE_M)) > _REACH_M:
        return "the cube is out of reach"
    return ""


def _distance_m(data: mujoco.MjData, body: int, place_m: np.ndarray) -> float:
    return float(np.linalg.norm(data.xpos[body][:2] - place_m))
