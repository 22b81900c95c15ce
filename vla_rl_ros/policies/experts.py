# SPDX-License-Identifier: Apache-2.0
"""Scripted experts: one closed-loop rule per task, a function of the present state alone.

They see true object poses, which only the simulator has, and answer with the same SI actions as
any policy. Having no memory, they recover from whatever happened before: a missed grasp is seen as
closed fingers without a cube. Used to make demonstrations, to test the cell, and as the stand-in
for a learned policy.
"""

from __future__ import annotations

import math

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.expert_view import (
    FINGERTIP_M,
    HELD_WIDTH_M,
    PEG_TOLERANCE_M,
    ExpertView,
    is_around_cube,
    is_holding_cube,
    peg_errors,
    rotation_matrix,
)

EXPERT_TASKS = ("lift", "peg", "button", "peg_out")

_GAIN = 0.8
_MAX_STEP_M = 0.014
_MAX_YAW_STEP_RAD = 0.08
_MAX_LEVEL_STEP_RAD = 0.05

_GRASP_Z_M = 0.018
_LIFT_Z_M = 0.20
_OPEN_ENOUGH_M = 0.065

_PRESS_STEP_M = 0.014

_PEG_GAIN = 1.0
_INSIDE_M = 0.005
_SEARCH_PRESS_M = 0.005
_SEARCH_RADIUS_M = 0.003
_SEARCH_TICKS = 40
_CLEAR_M = 0.012
"""Tip above the block from which it may move sideways."""
_PULLED_OUT_M = 0.185
_START_SPREAD_M = 0.045


def expert_action(task: str, view: ExpertView) -> FloatArray:
    """The next action for a task.

    Args:
        task: One of `EXPERT_TASKS`.
        view: Present state.

    Returns:
        SI channels of `core.spec.ACTION_CHANNELS`, shape (7,).

    Raises:
        ConfigError: Unknown task; lists the known ones.
    """
    try:
        rule = _RULES[task]
    except KeyError:
        raise ConfigError(f"no expert for '{task}', known are: {', '.join(_RULES)}") from None
    return rule(view)


def _action(
    view: ExpertView,
    move_m: FloatArray,
    *,
    yaw_rad: float = 0.0,
    axis: FloatArray | None = None,
    is_open: bool,
) -> FloatArray:
    """Limit a wanted move, turn `axis` (the tool's) straight down, the hand to a yaw."""
    action = np.empty(ACTION_DIM)
    np.clip(move_m, -_MAX_STEP_M, _MAX_STEP_M, out=action[:3])
    tool, x_axis = view.rotation[:, 2] if axis is None else axis, view.rotation[:, 0]
    yaw_error = _wrapped(yaw_rad - math.atan2(x_axis[1], x_axis[0]))
    # The cross product of the tool axis with straight down turns the one into the other.
    level = _GAIN * np.array([-tool[1], tool[0]])
    action[3:5] = np.clip(level, -_MAX_LEVEL_STEP_RAD, _MAX_LEVEL_STEP_RAD)
    action[5] = min(max(_GAIN * yaw_error, -_MAX_YAW_STEP_RAD), _MAX_YAW_STEP_RAD)
    action[GRIPPER_INDEX] = float(is_open)
    return action


def _wrapped(angle_rad: float) -> float:
    return (angle_rad + math.pi) % (2.0 * math.pi) - math.pi


def _funnel(distance_m: float, tolerance_m: float, slope: float, top_m: float) -> float:
    """Height to keep above the goal: none within the tolerance, growing with the distance."""
    return min(max(slope * (distance_m - tolerance_m), 0.0), top_m)


def _lift(view: ExpertView) -> FloatArray:
    """Above the cube, down, close, wait for the fingers, up; open again after a miss."""
    cube, tcp = view.objects["cube"], view.tcp.position_m
    x_axis = rotation_matrix(cube.quat_xyzw)[:, 0]
    # A square looks the same every quarter turn: take the smallest turn of the hand.
    yaw = (math.atan2(x_axis[1], x_axis[0]) + math.pi / 4) % (math.pi / 2) - math.pi / 4
    offset = cube.position_m - tcp
    distance = math.hypot(offset[0], offset[1])
    if is_holding_cube(view):
        goal = np.array([tcp[0], tcp[1], _LIFT_Z_M])
        return _action(view, _GAIN * (goal - tcp), yaw_rad=yaw, is_open=False)
    is_closed_on_nothing = not view.is_gripper_open and view.gripper_width_m < HELD_WIDTH_M[0]
    is_closing = not view.is_gripper_open and not is_closed_on_nothing and is_around_cube(view)
    is_in_place = distance < 0.005 and tcp[2] - cube.position_m[2] < 0.004
    if is_closing or (is_in_place and view.gripper_width_m > _OPEN_ENOUGH_M):
        goal = np.array([*cube.position_m[:2], _GRASP_Z_M])
        return _action(view, _GAIN * (goal - tcp), yaw_rad=yaw, is_open=False)
    bottom = max(cube.position_m[2] - 0.002, _GRASP_Z_M)
    height = _funnel(distance, 0.008, 2.5, 0.10)
    if view.gripper_width_m < _OPEN_ENOUGH_M:
        height = max(height, 0.06)
    goal = np.array([*cube.position_m[:2], bottom + height])
    return _action(view, _GAIN * (goal - tcp), yaw_rad=yaw, is_open=True)


def _button(view: ExpertView) -> FloatArray:
    """Above the button with closed fingers, then down, and keep pressing."""
    tcp = view.tcp.position_m
    offset = view.objects["button"].position_m - tcp
    distance = math.hypot(offset[0], offset[1])
    if distance < 0.012 and view.gripper_width_m < 0.04:
        down = max(-_PRESS_STEP_M, _GAIN * (offset[2] - 0.02))
    else:
        down = _GAIN * (offset[2] + FINGERTIP_M + 0.025 + _funnel(distance, 0.012, 2.5, 0.06))
    return _action(view, np.array([_GAIN * offset[0], _GAIN * offset[1], down]), is_open=False)


def _peg(view: ExpertView) -> FloatArray:
    """Tip over the hole, down; on the rim press lightly and circle until it drops in."""
    error, height = peg_errors(view)
    distance = math.hypot(error[0], error[1])
    lateral, axis = _PEG_GAIN * error, rotation_matrix(view.objects["peg"].quat_xyzw)[:, 2]
    if height < -0.002:
        # Beside the hole this low means the peg has tilted out: back up.
        down = _MAX_STEP_M if distance < _INSIDE_M else -_MAX_STEP_M
    elif height < 0.002 and distance < _INSIDE_M:
        lateral, down = lateral + _search_offset(view.tick), _SEARCH_PRESS_M
    elif distance < PEG_TOLERANCE_M:
        # Slowly onto the rim: a peg that only friction holds tips when it hits.
        down = _SEARCH_PRESS_M + 0.5 * max(height, 0.0)
    else:
        down = min(height - 0.005 - 2.0 * distance, _MAX_STEP_M)
        if distance < _INSIDE_M and height < 0.02:
            # So near and not there: dry friction holds the arm, and circling breaks it loose.
            lateral = lateral + _search_offset(view.tick)
    move = np.array([lateral[0], lateral[1], -down])
    return _action(view, move, axis=axis, is_open=False)


def _search_offset(tick: int) -> FloatArray:
    """Point of a spiral that starts again every few seconds, shape (2,)."""
    phase = tick % _SEARCH_TICKS
    radius = _SEARCH_RADIUS_M * phase / _SEARCH_TICKS
    return radius * np.array([math.cos(1.1 * phase), math.sin(1.1 * phase)])


def _peg_out(view: ExpertView) -> FloatArray:
    """Straight up until the tip is clear, sideways, then up to where inserting it begins.

    Each episode ends beside another point, so that what follows starts in many places.
    """
    error, height = peg_errors(view)
    tcp, hole = view.tcp.position_m, view.objects["hole"].position_m
    goal = hole[:2] + _START_SPREAD_M * _spread(view.episode)
    lateral = _GAIN * (goal - tcp[:2])
    up = _GAIN * (_PULLED_OUT_M - tcp[2])
    if height < 0.0:
        # A hand that is not above the hole presses the peg against its wall.
        lateral, up = _GAIN * error, _MAX_STEP_M
    elif height < _CLEAR_M:
        lateral, up = np.zeros(2), _MAX_STEP_M
    elif math.hypot(*(goal - tcp[:2])) > 0.01:
        up = _GAIN * (_CLEAR_M + 0.008 - height)
    return _action(view, np.array([*lateral, up]), is_open=False)


def _spread(index: int) -> FloatArray:
    """Point of an evenly spread sequence in [-1, 1]^2 (R2, M. Roberts 2018), shape (2,)."""
    plastic = 1.32471795724474602596
    return 2.0 * np.mod(0.5 + index * np.array([1.0 / plastic, 1.0 / plastic**2]), 1.0) - 1.0


_RULES = {"lift": _lift, "peg": _peg, "button": _button, "peg_out": _peg_out}
