# SPDX-License-Identifier: Apache-2.0
"""Messages of the arm's state that are filled again and again instead of made anew."""

from __future__ import annotations

import array

from geometry_msgs.msg import PoseStamped, TwistStamped, Vector3, WrenchStamped
from sensor_msgs.msg import JointState

from vla_rl_ros.core.types import BASE_FRAME, ArmState, FloatArray, Pose
from vla_rl_ros.ros.channels import NS_PER_S

JOINT_NAMES = [f"fr3_joint{index}" for index in range(1, 8)]


class ProprioMessages:
    """One message per topic; valid until the next `fill`."""

    def __init__(self) -> None:
        """Make the messages with everything that never changes."""
        self.joints = JointState(name=JOINT_NAMES)
        self.pose = PoseStamped()
        self.twist = TwistStamped()
        self.wrench = WrenchStamped()
        self._headers = [m.header for m in (self.joints, self.pose, self.twist, self.wrench)]
        for header in self._headers:
            header.frame_id = BASE_FRAME

    def fill(self, state: ArmState) -> None:
        """Write one state into all four messages."""
        sec, nanosec = divmod(state.stamp_ns, NS_PER_S)
        for header in self._headers:
            header.stamp.sec, header.stamp.nanosec = sec, nanosec
        self.joints.position = _doubles(state.q_rad)
        self.joints.velocity = _doubles(state.dq_rad_per_s)
        self.joints.effort = _doubles(state.tau_nm)
        fill_pose(self.pose, state.pose)
        _fill(self.twist.twist.linear, state.twist.linear_m_per_s)
        _fill(self.twist.twist.angular, state.twist.angular_rad_per_s)
        _fill(self.wrench.wrench.force, state.wrench.force_n)
        _fill(self.wrench.wrench.torque, state.wrench.torque_nm)


def fill_pose(message: PoseStamped, pose: Pose) -> None:
    """Write a pose into a message, leaving the header alone."""
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position_m.tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = pose.quat_xyzw.tolist()


def _fill(vector: Vector3, values: FloatArray) -> None:
    vector.x, vector.y, vector.z = values.tolist()


def _doubles(values: FloatArray) -> array.array[float]:
    # The only type that is taken without a copy and without checking each element.
    return array.array("d", values.tobytes())
