# SPDX-License-Identifier: Apache-2.0
"""Chunks of a scripted expert: its rule, rolled forward on a guess of what its actions will do.

The guess is kinematic, with the simplest notion of contact. Called by the policy `scripted` and by
`vla-rl-ros bench experts`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.policies.expert_view import (
    FINGERTIP_M,
    PEG_TOLERANCE_M,
    ExpertView,
    is_around_cube,
    is_holding_cube,
    peg_errors,
)
from vla_rl_ros.policies.experts import expert_action

# How far the arm gets on one action, as part of it. Guessed low on purpose: a chunk whose own
# prediction leaves nothing to do stalls an executor that never executes element 0.
_RESPONSE = 0.6
_CUBE_WIDTH_M = 0.039
_FINGER_STEP_M = 0.01
_MAX_WIDTH_M = 0.08


def expert_chunk(
    task: str, view: ExpertView, horizon: int, prefix: FloatArray | None = None
) -> FloatArray:
    """Roll the expert forward on a kinematic guess of what its actions will do.

    Args:
        task: One of `EXPERT_TASKS`.
        view: Present state, to which element 0 belongs.
        horizon: Number of actions.
        prefix: Actions that will be executed whatever the answer is, shape (d, 7); they are
            repeated as the first elements and the rest continues from where they lead.

    Returns:
        SI actions, shape (horizon, 7). Executing element 1 one tick later works about as well as
        element 0 now, with a prefix or without.
    """
    actions = np.empty((horizon, ACTION_DIM))
    fixed = np.empty((0, ACTION_DIM)) if prefix is None else prefix
    for i in range(horizon):
        actions[i] = fixed[i] if i < len(fixed) else expert_action(task, view)
        if i + 1 < horizon:
            view = _predicted(task, view, actions[i])
    return actions


def _predicted(task: str, view: ExpertView, action: FloatArray) -> ExpertView:
    """The view one tick after `action`, by kinematics and the simplest notion of contact."""
    is_open = bool(action[GRIPPER_INDEX] >= 0.5)
    move_m = _RESPONSE * action[:3]
    objects = dict(view.objects)
    width = view.gripper_width_m + (_FINGER_STEP_M if is_open else -_FINGER_STEP_M)
    stop = _CUBE_WIDTH_M if task == "lift" and is_around_cube(view) else 0.0
    width = min(max(width, min(stop, view.gripper_width_m)), _MAX_WIDTH_M)
    if task == "lift" and is_holding_cube(view):
        objects["cube"] = _shifted(objects["cube"], move_m)
    elif task in ("peg", "peg_out"):
        move_m = _blocked_by_rim(view, move_m)
        objects["peg"] = _shifted(objects["peg"], move_m)
    elif task == "button":
        button = objects["button"]
        sunk = view.tcp.position_m[2] + move_m[2] - FINGERTIP_M - button.position_m[2]
        objects["button"] = _shifted(button, np.array([0.0, 0.0, min(sunk, 0.0)]))
    return dataclasses.replace(
        view,
        tcp=offset_pose(view.tcp, move_m, _RESPONSE * action[3:6]),
        gripper_width_m=width,
        is_gripper_open=is_open,
        objects=objects,
        tick=view.tick + 1,
    )


def _blocked_by_rim(view: ExpertView, move_m: FloatArray) -> FloatArray:
    error, height = peg_errors(view)
    if height < 0.0 or math.hypot(error[0], error[1]) < PEG_TOLERANCE_M:
        return move_m
    return np.array([move_m[0], move_m[1], max(move_m[2], -height)])


def _shifted(pose: Pose, move_m: FloatArray) -> Pose:
    return Pose(pose.position_m + move_m, pose.quat_xyzw)
