# SPDX-License-Identifier: Apache-2.0
"""Scripted experts: one closed-loop rule per task, a function of the present state alone.

They see true object poses, which only the simulator has, and answer with the same SI actions as
any policy. Having no memory, they recover from whatever happened before: a missed grasp is seen as
closed fingers without a cube. Used to make demonstrations, to test the cell, and as the stand-in
for a learned policy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, Pose

EXPERT_TASKS = ("lift", "peg", "button", "peg_out")

_GAIN = 0.8
_MAX_STEP_M = 0.014
_MAX_YAW_STEP_RAD = 0.08
_MAX_LEVEL_STEP_RAD = 0.05
# How far the arm gets on one action, as part of it. Guessed low on purpose: a chunk whose own
# prediction leaves nothing to do stalls an executor that never executes element 0.
_RESPONSE = 0.6

_GRASP_Z_M = 0.018
_LIFT_Z_M = 0.20
_CUBE_WIDTH_M = 0.039
_HELD_WIDTH_M = (0.030, 0.045)
_OPEN_ENOUGH_M = 0.065
_FINGER_STEP_M = 0.01
_MAX_WIDTH_M = 0.08

_FINGERTIP_M = 0.008
"""How far the fingertips reach beyond the TCP."""
_PRESS_STEP_M = 0.014

_PEG_TIP_M = 0.035
_PEG_GAIN = 1.0
_PEG_TOLERANCE_M = 0.0016
_INSIDE_M = 0.005
_SEARCH_PRESS_M = 0.005
_SEARCH_RADIUS_M = 0.003
_SEARCH_TICKS = 40
_CLEAR_M = 0.012
"""Tip above the block from which it may move sideways."""
_PULLED_OUT_M = 0.185
_START_SPREAD_M = 0.045


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertView:
    """What an expert looks at.

    Attributes:
        tcp: Measured TCP pose, base frame.
        gripper_width_m: Measured distance between the fingers.
        is_gripper_open: Whether the last gripper command was to open.
        objects: Base-frame poses of ``cube`` (centre), ``button`` (middle of the cap's top),
            ``hole`` (its middle at the top of the block) and ``peg`` (centre; the tip is 35 mm
            along its z axis).
        tick: Control ticks since the start; only the phase of the peg's search depends on it.
        episode: Counts episodes; only where the peg that is pulled out ends depends on it.
    """

    tcp: Pose
    gripper_width_m: float
    is_gripper_open: bool
    objects: Mapping[str, Pose]
    tick: int = 0
    episode: int = 0
    _matrix: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the rotation matrix of the TCP once."""
        object.__setattr__(self, "_matrix", rotation_matrix(self.tcp.quat_xyzw))

    @property
    def rotation(self) -> FloatArray:
        """Orientation of the TCP, shape (3, 3)."""
        return self._matrix


def rotation_matrix(quat_xyzw: FloatArray) -> FloatArray:
    """Rotation matrix of a unit quaternion, shape (3, 3)."""
    x, y, z, w = quat_xyzw.tolist()
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


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


def _is_around_cube(view: ExpertView) -> bool:
    offset = view.objects["cube"].position_m - view.tcp.position_m
    return math.hypot(offset[0], offset[1]) < 0.012 and abs(offset[2]) < 0.014


def _is_holding_cube(view: ExpertView) -> bool:
    low, high = _HELD_WIDTH_M
    is_around = not view.is_gripper_open and _is_around_cube(view)
    return is_around and low < view.gripper_width_m < high


def _lift(view: ExpertView) -> FloatArray:
    """Above the cube, down, close, wait for the fingers, up; open again after a miss."""
    cube, tcp = view.objects["cube"], view.tcp.position_m
    x_axis = rotation_matrix(cube.quat_xyzw)[:, 0]
    # A square looks the same every quarter turn: take the smallest turn of the hand.
    yaw = (math.atan2(x_axis[1], x_axis[0]) + math.pi / 4) % (math.pi / 2) - math.pi / 4
    offset = cube.position_m - tcp
    distance = math.hypot(offset[0], offset[1])
    if _is_holding_cube(view):
        goal = np.array([tcp[0], tcp[1], _LIFT_Z_M])
        return _action(view, _GAIN * (goal - tcp), yaw_rad=yaw, is_open=False)
    is_closed_on_nothing = not view.is_gripper_open and view.gripper_width_m < _HELD_WIDTH_M[0]
    is_closing = not view.is_gripper_open and not is_closed_on_nothing and _is_around_cube(view)
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
        down = _GAIN * (offset[2] + _FINGERTIP_M + 0.025 + _funnel(distance, 0.012, 2.5, 0.06))
    return _action(view, np.array([_GAIN * offset[0], _GAIN * offset[1], down]), is_open=False)


def _peg_errors(view: ExpertView) -> tuple[FloatArray, float]:
    """Offset from tip to hole in the plane, shape (2,), and the tip's height above the block."""
    peg, hole = view.objects["peg"], view.objects["hole"].position_m
    tip = peg.position_m + _PEG_TIP_M * rotation_matrix(peg.quat_xyzw)[:, 2]
    return hole[:2] - tip[:2], float(tip[2] - hole[2])


def _peg(view: ExpertView) -> FloatArray:
    """Tip over the hole, down; on the rim press lightly and circle until it drops in."""
    error, height = _peg_errors(view)
    distance = math.hypot(error[0], error[1])
    lateral, axis = _PEG_GAIN * error, rotation_matrix(view.objects["peg"].quat_xyzw)[:, 2]
    if height < -0.002:
        # Beside the hole this low means the peg has tilted out: back up.
        down = _MAX_STEP_M if distance < _INSIDE_M else -_MAX_STEP_M
    elif height < 0.002 and distance < _INSIDE_M:
        lateral, down = lateral + _search_offset(view.tick), _SEARCH_PRESS_M
    elif distance < _PEG_TOLERANCE_M:
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
    error, height = _peg_errors(view)
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


def _predicted(task: str, view: ExpertView, action: FloatArray) -> ExpertView:
    """The view one tick after `action`, by kinematics and the simplest notion of contact."""
    is_open = bool(action[GRIPPER_INDEX] >= 0.5)
    move_m = _RESPONSE * action[:3]
    objects = dict(view.objects)
    width = view.gripper_width_m + (_FINGER_STEP_M if is_open else -_FINGER_STEP_M)
    stop = _CUBE_WIDTH_M if task == "lift" and _is_around_cube(view) else 0.0
    width = min(max(width, min(stop, view.gripper_width_m)), _MAX_WIDTH_M)
    if task == "lift" and _is_holding_cube(view):
        objects["cube"] = _shifted(objects["cube"], move_m)
    elif task in ("peg", "peg_out"):
        move_m = _blocked_by_rim(view, move_m)
        objects["peg"] = _shifted(objects["peg"], move_m)
    elif task == "button":
        button = objects["button"]
        sunk = view.tcp.position_m[2] + move_m[2] - _FINGERTIP_M - button.position_m[2]
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
    error, height = _peg_errors(view)
    if height < 0.0 or math.hypot(error[0], error[1]) < _PEG_TOLERANCE_M:
        return move_m
    return np.array([move_m[0], move_m[1], max(move_m[2], -height)])


def _shifted(pose: Pose, move_m: FloatArray) -> Pose:
    return Pose(pose.position_m + move_m, pose.quat_xyzw)
