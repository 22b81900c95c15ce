# SPDX-License-Identifier: Apache-2.0
"""The motion to home: straight up, then joints and gripper, then to where the task starts."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.hardware.control_types import HomeRequest
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.protocols import Arm

# With the homing of the fingers, which takes most of it.
GRIPPER_LIMIT_S = 20.0


def go_home(
    arm: Arm, gripper: GripperWorker | None, request: HomeRequest, limits: ReferenceLimits
) -> None:
    """Leave impedance control and move home; blocks until arm and gripper are there.

    A hand that does not know its width yet homes its fingers on the way.

    Args:
        arm: An arm without fault.
        gripper: Moves with the joints; None for an arm without gripper.
        request: Configuration, offset and speeds.
        limits: The place the offset leads to must lie in their box.

    Raises:
        DeviceError: The arm refuses, or the offset leads out of the box.
    """
    arm.stop()
    # A joint motion moves sideways at once: out of a hole or a grasp only straight up is free.
    rise_m = request.clearance_m - float(arm.state().pose.position_m[2])
    if rise_m > 0.0:
        rise = np.array([0.0, 0.0, rise_m])
        arm.move_tcp(offset_pose(arm.state().pose, rise, np.zeros(3)), request.tcp_speed)
    if gripper is not None:
        # After the rise: fingers that open in a hole or above one bump into its walls.
        gripper.request_homing()
        gripper.submit(request.gripper_width_m)
    arm.move_joints(np.array(request.q_rad), request.joint_speed)
    offset_m = np.array(request.offset_m)
    if offset_m.any():
        _offset_tcp(arm, offset_m, request.tcp_speed, limits)
    if gripper is not None:
        gripper.move_and_wait(request.gripper_width_m, GRIPPER_LIMIT_S)


def _offset_tcp(arm: Arm, offset_m: FloatArray, speed: float, limits: ReferenceLimits) -> None:
    pose = offset_pose(arm.state().pose, offset_m, np.zeros(3))
    position_m = pose.position_m
    if (np.clip(position_m, limits.box_min_m, limits.box_max_m) != position_m).any():
        raise DeviceError(
            f"home_offset_m={offset_m.tolist()} leads to {position_m.round(3).tolist()} m, "
            "outside the workspace box"
        )
    arm.move_tcp(pose, speed)
