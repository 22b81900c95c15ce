# SPDX-License-Identifier: Apache-2.0
"""External wrench estimate of the simulated arm, as the control box would report it.

The torques that contacts and welds put on the arm's joints are read from MuJoCo's constraint
solution (joint friction and joint limits left out), low-pass filtered like the real estimate, and
mapped to the TCP by the pseudo-inverse of the transposed Jacobian. A contact on the forearm
therefore shows up as a wrench at the TCP, as it does on the real arm.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fci_wire import StatePacket

FILTER_TIME_CONSTANT_S = 0.03
_NEGLIGIBLE_NM = 1e-4
_DAMPING = np.eye(6) * 1e-6


class CollisionThresholds:
    """Contact (lower) and collision (upper) thresholds on joint torques and TCP wrench.

    Infinite until a client sets them; every libfranka client does so before it moves.
    """

    def __init__(self) -> None:
        self.lower_torque_nm = np.full(7, np.inf)
        self.upper_torque_nm = np.full(7, np.inf)
        self.lower_wrench = np.full(6, np.inf)
        self.upper_wrench = np.full(6, np.inf)


class ExternalWrench:
    """Filtered external joint torques and TCP wrench; robot on environment is positive.

    Attributes:
        torque_nm: External joint torques, shape (7,).
        wrench: Force and torque at the TCP, base axes, shape (6,).
        has_contact: Whether anything but numerical noise is left in the filter.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, arm_dofs: slice, period_s: float = 0.001
    ) -> None:
        """Bind to a model.

        Args:
            model: Compiled scene; must use dense constraint Jacobians.
            data: Its state.
            arm_dofs: The seven degrees of freedom of the arm.
            period_s: Time between two updates.

        Raises:
            ValueError: If the model uses sparse Jacobians.
        """
        if mujoco.mj_isSparse(model):
            raise ValueError("the wrench estimate needs option jacobian='dense'")
        self._data = data
        self._num_dofs = model.nv
        self._arm_dofs = arm_dofs
        self._gain = 1.0 - np.exp(-period_s / FILTER_TIME_CONSTANT_S)
        self.torque_nm: FloatArray = np.zeros(7)
        self.wrench: FloatArray = np.zeros(6)
        self.has_contact = False

    def update(self, jacobian: FloatArray) -> None:
        """Take in the constraint forces of the last step.

        Args:
            jacobian: Of the TCP, base axes, shape (6, 7).
        """
        data = self._data
        raw = self._constraint_torque_nm(data)
        np.negative(raw, out=raw)
        raw -= self.torque_nm
        raw *= self._gain
        self.torque_nm += raw
        self.has_contact = float(np.dot(self.torque_nm, self.torque_nm)) > _NEGLIGIBLE_NM**2
        if self.has_contact:
            self.wrench[:] = np.linalg.solve(
                jacobian @ jacobian.T + _DAMPING, jacobian @ self.torque_nm
            )
        else:
            self.wrench[:] = 0.0

    def _constraint_torque_nm(self, data: mujoco.MjData) -> FloatArray:
        num_rows = data.nefc
        if num_rows == 0:
            return np.zeros(7)
        # Rows are ordered equality, friction loss, limit, contact; the two in the middle are
        # inside the joints and not external.
        num_equality = data.ne
        force = data.efc_force.copy()
        force[num_equality : num_equality + data.nf + data.nl] = 0.0
        jacobian = data.efc_J.reshape(num_rows, self._num_dofs)
        return np.asarray(force @ jacobian[:, self._arm_dofs])

    def exceeded(self, thresholds: CollisionThresholds) -> str | None:
        """Which reflex the estimate triggers: ``cartesian_reflex``, ``joint_reflex`` or None."""
        if not self.has_contact:
            return None
        if (np.abs(self.wrench) > thresholds.upper_wrench).any():
            return "cartesian_reflex"
        if (np.abs(self.torque_nm) > thresholds.upper_torque_nm).any():
            return "joint_reflex"
        return None

    def write(
        self, packet: StatePacket, rotation: FloatArray, thresholds: CollisionThresholds
    ) -> None:
        """Put estimate and contact flags into a state packet.

        Args:
            packet: Packet to fill.
            rotation: Orientation of the TCP in the base frame, shape (3, 3). The stiffness frame
                is taken to be the TCP frame.
            thresholds: For the contact and collision flags.
        """
        fields = packet.fields
        fields["tau_ext_hat_filtered"][:] = self.torque_nm
        fields["O_F_ext_hat_K"][:] = self.wrench
        local = fields["K_F_ext_hat_K"]
        np.matmul(self.wrench.reshape(2, 3), rotation, out=local.reshape(2, 3), casting="same_kind")
        torque, wrench = np.abs(self.torque_nm), np.abs(self.wrench)
        fields["joint_contact"][:] = torque > thresholds.lower_torque_nm
        fields["joint_collision"][:] = torque > thresholds.upper_torque_nm
        fields["cartesian_contact"][:] = wrench > thresholds.lower_wrench
        fields["cartesian_collision"][:] = wrench > thresholds.upper_wrench
