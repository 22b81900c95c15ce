# SPDX-License-Identifier: Apache-2.0
"""The tasks: where things stand at the start, and when the task is solved.

Layouts are drawn in the same order for every task, so equal seeds of `lift` and `button` give the
same scene and only the instruction decides. All functions work on live data between two steps and
must run in the thread that steps the simulation. World frame and base frame are the same.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import mujoco
import numpy as np

from vla_rl_ros.core.errors import ConfigError, SceneError
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.scene import (
    BLOCK_HALF_HEIGHT_M,
    BUTTON_BASE_HALF_M,
    BUTTON_CAP_HALF_HEIGHT_M,
    CUBE_HALF_M,
    PEG_HALF_LENGTH_M,
    PEG_HALF_WIDTH_M,
    PEG_IN_HAND_M,
    PEG_PARKING_M,
    WALL_HALF_M,
    WALL_PARKING_M,
)
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.variants import SceneConfig

DOWN_XYZW = (1.0, 0.0, 0.0, 0.0)
HOME_POSITION_M = (0.5, 0.0, 0.25)
MAX_GRIPPER_WIDTH_M = 0.08

CUBE_LIFTED_M = 0.10
BUTTON_PRESSED_M = -0.007
PEG_INSERTED_M = 0.02

_TABLE_MIDDLE_M = (0.5, 0.0)
# Closer than this the open hand, 20 cm wide, would touch one object while it grasps another.
_MIN_DISTANCE_M = 0.12
_CUBE_YAW_RAD = 0.6
_PEG_START_M = (0.15, 0.21)
# What a scene's `start_spread_m` gives by default, and a little more.
_PEG_START_REACH_M = 0.065
_PEG_START_MARGIN_M = 0.02
# So deep the peg stands in its hole where pulling it out begins.
_PEG_DEPTH_M = 0.025
_PEG_IN_HAND_ERROR_M = 0.01
_MAX_DRAWS = 10_000


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where everything stands at the start of an episode.

    Attributes:
        task: The task it was drawn for.
        cube: Pose of the cube's centre.
        button_xy_m: Middle of the button, shape (2,).
        hole_xy_m: Middle of the hole, shape (2,).
        start: TCP pose in which the arm begins.
    """

    task: Task
    cube: Pose
    button_xy_m: FloatArray
    hole_xy_m: FloatArray
    start: Pose

    @property
    def has_peg_in_hand(self) -> bool:
        """Whether the peg is between the fingers; otherwise it is parked out of sight."""
        return self.task in (Task.PEG, Task.PEG_OUT)

    @property
    def gripper_width_m(self) -> float:
        """Width the gripper should be commanded to at the start: 0 holds the peg."""
        return 0.0 if self.has_peg_in_hand else MAX_GRIPPER_WIDTH_M


def sample_layout(task: Task, config: SceneConfig, rng: np.random.Generator) -> Layout:
    """Draw a collision-free start.

    Args:
        task: Decides only where the TCP starts and whether it holds the peg.
        config: Spread of objects and start.
        rng: Source of randomness; equal states give equal layouts.

    Raises:
        SceneError: If the objects do not fit into the spread.
    """
    objects_m = _spread_apart(config, rng)
    cube_xy, button_xy, hole_xy = objects_m
    yaw = rng.uniform(-_CUBE_YAW_RAD, _CUBE_YAW_RAD)
    offset = rng.uniform(-1.0, 1.0, 3)
    if task is Task.PEG:
        low, high = _PEG_START_M
        height = low + 0.5 * (offset[2] + 1.0) * (high - low)
        start = np.append(hole_xy + config.start_spread_m * offset[:2], height)
    elif task is Task.PEG_OUT:
        height = 2.0 * BLOCK_HALF_HEIGHT_M - _PEG_DEPTH_M + PEG_HALF_LENGTH_M + PEG_IN_HAND_M
        start = np.append(hole_xy, height)
    else:
        start = np.asarray(HOME_POSITION_M) + config.start_spread_m * offset
    return Layout(
        task=task,
        cube=Pose(
            np.append(cube_xy, CUBE_HALF_M),
            np.array([0.0, 0.0, np.sin(0.5 * yaw), np.cos(0.5 * yaw)]),
        ),
        button_xy_m=button_xy,
        hole_xy_m=hole_xy,
        start=Pose(start, np.asarray(DOWN_XYZW)),
    )


def _spread_apart(config: SceneConfig, rng: np.random.Generator) -> FloatArray:
    """Three positions on the table, shape (3, 2), no two of them too close."""
    spread = np.asarray(config.object_spread_m)
    for _ in range(_MAX_DRAWS):
        positions = np.asarray(_TABLE_MIDDLE_M) + spread * rng.uniform(-1.0, 1.0, (3, 2))
        gaps = positions - positions[[1, 2, 0]]
        if np.min(np.hypot(gaps[:, 0], gaps[:, 1])) >= _MIN_DISTANCE_M:
            return positions
    raise SceneError(
        f"three objects {_MIN_DISTANCE_M} m apart do not fit into object_spread_m="
        f"{config.object_spread_m}; make it larger"
    )


def apply_layout(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, layout: Layout
) -> None:
    """Put everything but the arm where the layout says, at rest, between two steps.

    The peg goes into the hand where the hand is now, fingers closed on it. For the other tasks
    the fingers stay as they are: opening them is the gripper's job.

    Args:
        model: Compiled scene; the peg's weight and the finger stops are set in it.
        data: Live state.
        ids: Addresses of the scene.
        layout: Wanted start.
    """
    mujoco.mj_kinematics(model, data)
    _place_free(data, ids, "cube", layout.cube)
    button_z, block_z = BUTTON_BASE_HALF_M[2], BLOCK_HALF_HEIGHT_M
    data.mocap_pos[ids.mocap["button_base"]] = *layout.button_xy_m, button_z
    data.mocap_pos[ids.mocap["block"]] = *layout.hole_xy_m, block_z
    data.qpos[ids.button_qpos] = data.qvel[ids.button_dof] = 0.0
    _place_peg(model, data, ids, is_in_hand=layout.has_peg_in_hand)
    data.xfrc_applied[:] = 0.0
    # The solver starts from its last answer; what it found in another scene must not leak in.
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_forward(model, data)


def _place_peg(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, *, is_in_hand: bool
) -> None:
    is_welded = ids.peg_weld is not None
    if ids.peg_weld is not None:
        data.eq_active[ids.peg_weld] = is_in_hand
    model.body_gravcomp[ids.bodies["peg"]] = 0.0 if is_in_hand and not is_welded else 1.0
    # A welded peg does not touch the fingers; stops take the place of its sides.
    stop = PEG_HALF_WIDTH_M if is_in_hand and is_welded else 0.0
    for joint in ids.finger_joints:
        model.jnt_range[joint, 0] = stop
    if not is_in_hand:
        _place_free(data, ids, "peg", Pose(np.asarray(PEG_PARKING_M), np.array([0, 0, 0, 1.0])))
        return
    data.qpos[ids.finger_qpos] = PEG_HALF_WIDTH_M
    data.qvel[ids.finger_dof] = 0.0
    tcp = tcp_pose(data, ids)
    axis = data.site_xmat[ids.tcp_site].reshape(3, 3)[:, 2]
    _place_free(data, ids, "peg", Pose(tcp.position_m + PEG_IN_HAND_M * axis, tcp.quat_xyzw))


def park_peg(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds) -> None:
    """Take the peg out of the hand and out of reach, so that the empty hand may go anywhere."""
    _place_peg(model, data, ids, is_in_hand=False)
    mujoco.mj_forward(model, data)


def _place_free(data: mujoco.MjData, ids: SceneIds, name: str, pose: Pose) -> None:
    quat_wxyz = pose.quat_xyzw[[3, 0, 1, 2]]
    data.qpos[ids.free_qpos[name]] = np.concatenate([pose.position_m, quat_wxyz])
    data.qvel[ids.free_dof[name]] = 0.0


def place_wall(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, face_m: FloatArray
) -> None:
    """Stand the wall so that the middle of its face towards the robot is at `face_m`, (3,)."""
    data.mocap_pos[ids.mocap["wall"]] = np.add(face_m, (WALL_HALF_M[0], 0.0, 0.0))
    mujoco.mj_forward(model, data)


def park_wall(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds) -> None:
    """Put the wall back out of reach and out of sight."""
    data.mocap_pos[ids.mocap["wall"]] = WALL_PARKING_M
    mujoco.mj_forward(model, data)


def tcp_pose(data: mujoco.MjData, ids: SceneIds) -> Pose:
    """TCP in the base frame; the quaternion's largest component is positive."""
    quat_wxyz = np.empty(4)
    mujoco.mju_mat2Quat(quat_wxyz, data.site_xmat[ids.tcp_site])
    return Pose(data.site_xpos[ids.tcp_site], quat_wxyz[[1, 2, 3, 0]])


def object_poses(data: mujoco.MjData, ids: SceneIds) -> dict[str, Pose]:
    """What a privileged expert sees, base frame.

    Returns:
        ``cube``: its centre; ``button``: middle of the cap's top; ``hole``: middle of the hole at
        the top of its block; ``peg``: its centre, the tip being 35 mm along its z axis.
    """
    return {
        "cube": _body_pose(data, ids.bodies["cube"], 0.0),
        "button": _body_pose(data, ids.bodies["button"], BUTTON_CAP_HALF_HEIGHT_M),
        "hole": _body_pose(data, ids.bodies["block"], BLOCK_HALF_HEIGHT_M),
        "peg": _body_pose(data, ids.bodies["peg"], 0.0),
    }


def _body_pose(data: mujoco.MjData, body: int, raised_m: float) -> Pose:
    return Pose(np.add(data.xpos[body], (0.0, 0.0, raised_m)), data.xquat[body][[1, 2, 3, 0]])


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
    """Whether the TCP is where `sample_layout` lets `Task.PEG` begin, or close to it."""
    offset = data.site_xpos[ids.tcp_site] - data.xpos[ids.bodies["block"]]
    low, high = _PEG_START_M
    height = data.site_xpos[ids.tcp_site][2]
    is_above = low <= height <= high + _PEG_START_MARGIN_M
    return bool(is_above and np.max(np.abs(offset[:2])) < _PEG_START_REACH_M)
