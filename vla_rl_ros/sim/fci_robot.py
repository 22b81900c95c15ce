# SPDX-License-Identifier: Apache-2.0
"""The simulated arm behind the FCI server: franky_sim's physics with a cheap control path.

franky_sim recomputes every desired and commanded quantity at every millisecond, 0.3 ms of work.
Here all motion generators end in one joint target, torque control bypasses it, and the outgoing
packet is filled in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import pinocchio as pin
from franky_sim.constants import FRANKA_HAND_FORCE_LIMIT
from franky_sim.mujoco_simulator import FrankaMujocoRobot

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fci_ik import elbow, elbow_pull, resolve
from vla_rl_ros.sim.fci_target import KEEP, PERIOD_S, TAKE, JointTarget
from vla_rl_ros.sim.fci_wire import StatePacket
from vla_rl_ros.sim.fci_wrench import CollisionThresholds, ExternalWrench

_TAKE_RATE = TAKE / PERIOD_S
# franky_sim's joint damping (450, 450, 350, 350, 200, 200, 200) makes joint 7, and joint 5 with
# little friction, buzz at the torque limit: over one step of 1 ms explicit damping must stay well
# below inertia / step, and these two have 0.08 and 0.2 kg m2.
JOINT_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
JOINT_DAMPING = (450.0, 450.0, 350.0, 350.0, 100.0, 100.0, 40.0)
# Only the reported TCP twist uses it away from contacts; the joints move 1 mrad a step at most.
_JACOBIAN_EVERY_STEPS = 4
_BASE_AXES = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
_TAU_J, _TAU_J_D, _DTAU_J, _Q, _Q_D, _DQ, _DQ_D, _DDQ_D = range(8)
_IK_ITERATIONS = 2


def _joint_slice(addresses: Sequence[int]) -> slice:
    """Turn seven consecutive addresses into a slice, so that no step needs fancy indexing."""
    first = addresses[0]
    if list(addresses) != list(range(first, first + len(addresses))):
        raise ValueError(f"arm joints are not consecutive in the model: {list(addresses)}")
    return slice(first, first + len(addresses))


class FciRobot(FrankaMujocoRobot):  # type: ignore[misc]  # franky_sim ships no types
    """One simulated arm with hand, its external wrench and its collision thresholds.

    Attributes:
        thresholds: What the client set; enforced by the server.
        external: Wrench estimate, available once the scene is compiled.
    """

    external: ExternalWrench

    def __init__(self, **options: object) -> None:
        """Create the arm; `options` are those of `FrankaMujocoRobot`."""
        super().__init__(**{"kp": JOINT_STIFFNESS, "kv": JOINT_DAMPING, **options})
        self.thresholds = CollisionThresholds()
        self._limit_nm = np.asarray(self.torque_limit_high, dtype=np.float64)
        self._lowest_nm = -self._limit_nm
        # One row per joint signal, in the order in which they stand in the packet.
        self._signals: FloatArray = np.zeros((8, 7))
        self._signals[_Q] = self._signals[_Q_D] = self.initial_q
        self._jacobian: FloatArray = np.zeros((6, 7))
        self._tcp: FloatArray = np.eye(4)
        self._last_tau: FloatArray = np.zeros(7)
        self._last_dq: FloatArray = np.zeros(7)
        self._target = JointTarget(*(self._signals[row] for row in (_Q_D, _DQ_D, _DDQ_D)))
        self._was_in_contact = False
        self._step = 0
        params = self.robot_parameters
        self._flange_to_hand = pin.SE3(
            pin.rpy.rpyToMatrix(*params.ee_tcp_rpy), np.array(params.ee_tcp_xyz)
        )
        self._hand_to_tcp = pin.SE3.Identity()

    @property
    def _pinocchio(self) -> tuple[Any, Any]:
        # The dynamics model follows SetLoad and SetNEToEE only inside BaseRobot, which keeps it
        # to itself; this is the only reach into its private names.
        return self._BaseRobot__model, self._BaseRobot__data

    @property
    def q_rad(self) -> FloatArray:
        """Measured joint positions, shape (7,)."""
        return np.asarray(self._signals[_Q])

    @property
    def desired_q_rad(self) -> FloatArray:
        """Desired joint positions; the measured ones under torque control. Shape (7,)."""
        return np.asarray(self._signals[_Q_D])

    @property
    def tcp_in_base(self) -> FloatArray:
        """Homogeneous TCP pose in the base frame, shape (4, 4)."""
        return self._tcp

    def _attach_to_scene(self, model: mujoco.MjModel, data: mujoco.MjData, prefix: str) -> None:
        super()._attach_to_scene(model, data, prefix)
        q_slice, dq_slice = _joint_slice(self._qpos_addrs), _joint_slice(self._dof_addrs)
        self._q_view, self._dq_view = data.qpos[q_slice], data.qvel[dq_slice]
        self._force_view = data.qfrc_applied[dq_slice]
        self._qpos, self._qvel, self._applied = data.qpos, data.qvel, data.qfrc_applied
        self._fingers = tuple(zip(self._finger_qpos_addrs, self._finger_dof_addrs, strict=True))
        self._tcp_frame = self._pinocchio[0].getFrameId("tcp")
        self.external = ExternalWrench(model, data, dq_slice, PERIOD_S)

    def drive_torque(self, torque_nm: FloatArray) -> None:
        """Apply joint torques on top of gravity compensation for the next step.

        Args:
            torque_nm: Shape (7,), clipped to the joint limits.
        """
        self._target.clear()
        self._apply(torque_nm)

    def drive_position(self, target_q_rad: FloatArray, *, is_new: bool) -> None:
        """Follow a joint position with the arm's stiff joint controller for the next step.

        Args:
            target_q_rad: Shape (7,).
            is_new: Whether the target came with this tick; desired velocities only follow those.
        """
        self._target.follow(target_q_rad, is_new=is_new)
        self._apply(self._joint_torque_nm(target_q_rad))

    def hold(self, target_q_rad: FloatArray) -> None:
        """Stand at a joint position, shape (7,), for the next step."""
        self._target.hold(target_q_rad)
        self._apply(self._joint_torque_nm(target_q_rad))

    def drive_joint_speed(self, speed_rad_per_s: FloatArray, *, is_new: bool) -> None:
        """Move the joint target at a joint velocity, shape (7,)."""
        step = speed_rad_per_s * PERIOD_S if is_new else 0.0
        self.drive_position(self.desired_q_rad + step, is_new=is_new)

    def drive_pose(self, pose: FloatArray, elbow_rad: float | None, *, is_new: bool) -> None:
        """Follow a TCP pose with the joint controller.

        Args:
            pose: Homogeneous, base frame, shape (4, 4).
            elbow_rad: Wanted position of joint 3, None to leave the null space alone.
            is_new: Whether the pose came with this tick.
        """
        q_rad = self.desired_q_rad.copy()
        if is_new:
            model, data = self._pinocchio
            target = pin.SE3(pose)
            for _ in range(_IK_ITERATIONS):
                self._forward_kinematics(q_rad)
                error = pin.log6(data.oMf[self._tcp_frame].actInv(target)).vector
                jacobian = pin.computeFrameJacobian(
                    model, data, q_rad, self._tcp_frame, pin.ReferenceFrame.LOCAL
                )
                q_rad += resolve(jacobian, error, elbow_pull(elbow_rad, q_rad))
        self.drive_position(q_rad, is_new=is_new)

    def drive_twist(self, twist: FloatArray, elbow_rad: float | None, *, is_new: bool) -> None:
        """Move the joint target so that the TCP has a twist, base axes, shape (6,)."""
        q_rad = self.desired_q_rad.copy()
        if is_new:
            model, data = self._pinocchio
            jacobian = pin.computeFrameJacobian(model, data, q_rad, self._tcp_frame, _BASE_AXES)
            q_rad += resolve(jacobian, twist * PERIOD_S, elbow_pull(elbow_rad, q_rad))
        self.drive_position(q_rad, is_new=is_new)

    def _joint_torque_nm(self, target_q_rad: FloatArray) -> FloatArray:
        model, data = self._pinocchio
        bias = pin.nonLinearEffects(model, data, self._q_view, self._dq_view).copy()
        coriolis = bias - pin.computeGeneralizedGravity(model, data, self._q_view)
        # Damping acts on the velocity error: on the velocity itself, as in franky_sim, the arm
        # would trail by a tenth of a second and arrive after its motion is reported as done.
        spring = self.kp * (target_q_rad - self._q_view)
        spring += self.kv * (self._target.speed_rad_per_s - self._dq_view)
        return np.asarray(spring + coriolis)

    def _apply(self, torque_nm: FloatArray) -> None:
        commanded = self._signals[_TAU_J_D]
        np.minimum(torque_nm, self._limit_nm, out=commanded)
        np.maximum(commanded, self._lowest_nm, out=commanded)
        model, data = self._pinocchio
        gravity = pin.computeGeneralizedGravity(model, data, self._q_view)
        self._torque_control(commanded + gravity)

    def _torque_control(self, torques: FloatArray) -> None:
        applied = self._signals[_TAU_J]
        np.minimum(torques, self._limit_nm, out=applied)
        np.maximum(applied, self._lowest_nm, out=applied)
        self._force_view[:] = applied
        self._applied_torques = applied

    def _pre_step(self) -> None:
        # The same finger law as franky_sim's, in scalars: ten times cheaper than two-vectors.
        half_width = self._hand_goal_width / 2
        limit_n = min(FRANKA_HAND_FORCE_LIMIT, self._hand_goal_force)
        for index, (q_address, dq_address) in enumerate(self._fingers):
            speed = self._qvel.item(dq_address)
            damping = -self._kv_hand.item(index) * speed
            force = self._kp_hand.item(index) * (half_width - self._qpos.item(q_address)) + damping
            if abs(speed) > self._hand_goal_velocity and speed * force > 0.0:
                force = damping
            self._applied[dq_address] = min(max(force, -limit_n), limit_n)

    def _post_step(self) -> None:
        signals = self._signals
        signals[_Q], signals[_DQ] = self._q_view, self._dq_view
        self._tcp = self._forward_kinematics(signals[_Q])
        self._step += 1
        self.external.update()
        if self.external.has_contact:
            self._update_jacobian()
            self.external.project(self._jacobian)
        elif self._step % _JACOBIAN_EVERY_STEPS == 0:
            self._update_jacobian()
        signals[_DTAU_J] *= KEEP
        signals[_DTAU_J] += _TAKE_RATE * (signals[_TAU_J] - self._last_tau)
        self._last_tau[:] = signals[_TAU_J]
        if not self._target.is_set:
            signals[_DDQ_D] *= KEEP
            signals[_DDQ_D] += _TAKE_RATE * (signals[_DQ] - self._last_dq)
            signals[_Q_D], signals[_DQ_D] = signals[_Q], signals[_DQ]
        self._last_dq[:] = signals[_DQ]

    def _update_jacobian(self) -> None:
        model, data = self._pinocchio
        self._jacobian = pin.computeFrameJacobian(
            model, data, self._signals[_Q], self._tcp_frame, _BASE_AXES
        )

    def _forward_kinematics(self, q_rad: FloatArray) -> FloatArray:
        model, data = self._pinocchio
        pin.forwardKinematics(model, data, q_rad)
        pin.updateFramePlacement(model, data, self._tcp_frame)
        return np.asarray(data.oMf[self._tcp_frame].homogeneous)

    def write_constants(self, packet: StatePacket) -> None:
        """Fill what only changes by command: frames, masses, load."""
        fields, params = packet.fields, self.robot_parameters
        fields["F_T_NE"][:] = self.to_franka_pose(self._flange_to_hand)
        fields["NE_T_EE"][:] = self.to_franka_pose(self._hand_to_tcp)
        fields["F_T_EE"][:] = self.to_franka_pose(self._flange_to_hand * self._hand_to_tcp)
        fields["EE_T_K"][:] = self.EE_T_K
        fields["m_ee"][:], fields["m_load"][:] = params.ee_mass, self.m_load
        fields["F_x_Cee"][:], fields["F_x_Cload"][:] = params.ee_com, self.F_x_Cload
        fields["I_ee"][:], fields["I_load"][:] = params.ee_inertia, self.I_load

    def set_NE_T_EE(self, ne_t_ee: tuple[float, ...]) -> None:  # noqa: N802, the base class's name
        """Move the TCP relative to the nominal hand frame.

        Args:
            ne_t_ee: Homogeneous transform, 16 values, column-major.
        """
        super().set_NE_T_EE(ne_t_ee)
        self._hand_to_tcp = pin.SE3(np.array(ne_t_ee).reshape((4, 4), order="F"))

    def write_state(self, packet: StatePacket) -> None:
        """Fill what changes at every step."""
        fields, signals = packet.fields, self._signals
        packet.joint_signals[:] = signals
        tcp = self._tcp.T.ravel()
        fields["O_T_EE"][:] = tcp
        fields["elbow"][:] = elbow(signals[_Q])
        if self._target.is_set:
            tcp = self._forward_kinematics(signals[_Q_D]).T.ravel()
        fields["O_T_EE_d"][:] = fields["O_T_EE_c"][:] = tcp
        fields["elbow_d"][:] = fields["elbow_c"][:] = elbow(signals[_Q_D])
        fields["O_dP_EE_d"][:] = fields["O_dP_EE_c"][:] = self._jacobian @ signals[_DQ_D]
        fields["O_ddP_EE_c"][:] = self._jacobian @ signals[_DDQ_D]
        is_in_contact = self.external.has_contact
        if is_in_contact or self._was_in_contact:
            self.external.write(packet, self._tcp[:3, :3], self.thresholds)
        self._was_in_contact = is_in_contact
