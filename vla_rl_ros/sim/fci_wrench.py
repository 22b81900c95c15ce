# SPDX-License-Identifier: Apache-2.0
"""External wrench estimate of the simulated arm, as the control box would report it.

The torques that contacts and welds put on the arm's joints are read from MuJoCo's constraint
solution, low-pass filtered like the real estimate, and mapped to the TCP by the pseudo-inverse of
the transposed Jacobian. A contact on the forearm therefore shows up as a wrench at the TCP, as it
does on the real arm.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fci_wire import FciError, StatePacket

FILTER_TIME_CONSTANT_S = 0.03
_NEGLIGIBLE_NM2 = 1e-4**2
_DAMPING = np.eye(6) * 1e-6


class CollisionThresholds:
    """Contact (lower) and collision (upper) thresholds on joint torques and TCP wrench.

    Infinite until a client sets them; every libfranka client does so before it moves.
    """

    def __init__(self) -> None:
        self.lower_torque_nm: FloatArray = np.full(7, np.inf)
        self.upper_torque_nm: FloatArray = np.full(7, np.inf)
        self.lower_wrench: FloatArray = np.full(6, np.inf)
        self.upper_wrench: FloatArray = np.full(6, np.inf)


class ExternalWrench:
    """Filtered external joint torques and TCP wrench; robot on environment is positive.

    Attributes:
        torque_nm: External joint torques, shape (7,).
        wrench: Force and torque at the TCP, base axes, shape (6,).
        has_contact: Whether anything but numerical noise is in the filter.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, arm_dofs: slice, period_s: float
    ) -> None:
        """Bind to a model.

        Args:
            model: Compiled scene.
            data: Its state.
            arm_dofs: The seven degrees of freedom of the arm, each with some friction.
            period_s: Time between two updates.

        Raises:
            ValueError: If a joint of the arm has no friction.
        """
        has_friction = model.dof_frictionloss > 0.0
        if not has_friction[arm_dofs].all():
            raise ValueError("every joint of the arm needs frictionloss > 0")
        # Constraint rows come as equality, friction of joints, limits, contacts.
        self._friction_row = int(np.count_nonzero(has_friction[: arm_dofs.start]))
        self._data = data
        self._constraint_torque_nm = data.qfrc_constraint[arm_dofs]
        self._gain = 1.0 - math.exp(-period_s / FILTER_TIME_CONSTANT_S)
        self._raw: FloatArray = np.zeros(7)
        self.torque_nm: FloatArray = np.zeros(7)
        self.wrench: FloatArray = np.zeros(6)
        self.has_contact = False

    def update(self) -> None:
        """Take in the constraint forces of the last step.

        What the constraints do to the arm's joints, less the friction inside them, is what the
        environment does to them. A friction row's force is that joint's torque, so seven numbers
        suffice and no Jacobian is touched.
        """
        data, raw = self._data, self._raw
        first = data.ne + self._friction_row
        np.subtract(data.efc_force[first : first + 7], self._constraint_torque_nm, out=raw)
        if not self.has_contact and raw.dot(raw) < _NEGLIGIBLE_NM2:
            return
        raw -= self.torque_nm
        raw *= self._gain
        self.torque_nm += raw
        self.has_contact = float(self.torque_nm.dot(self.torque_nm)) > _NEGLIGIBLE_NM2
        if not self.has_contact:
            self.torque_nm[:] = self.wrench[:] = 0.0

    def project(self, jacobian: FloatArray) -> None:
        """Compute the TCP wrench that explains the joint torques best.

        Args:
            jacobian: Of the TCP, base axes, shape (6, 7).
        """
        self.wrench[:] = np.linalg.solve(
            jacobian @ jacobian.T + _DAMPING, jacobian @ self.torque_nm
        )

    def exceeded(self, thresholds: CollisionThresholds) -> FciError | None:
        """The reflex that the estimate triggers, if any."""
        if not self.has_contact:
            return None
        if (np.abs(self.wrench) > thresholds.upper_wrench).any():
            return FciError.CARTESIAN_REFLEX
        if (np.abs(self.torque_nm) > thresholds.upper_torque_nm).any():
            return FciError.JOINT_REFLEX
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
        fields["K_F_ext_hat_K"][:] = (self.wrench.reshape(2, 3) @ rotation).ravel()
        torque, wrench = np.abs(self.torque_nm), np.abs(self.wrench)
        fields["joint_contact"][:] = torque > thresholds.lower_torque_nm
        fields["joint_collision"][:] = torque > thresholds.upper_torque_nm
        fields["cartesian_contact"][:] = wrench > thresholds.lower_wrench
        fields["cartesian_collision"][:] = wrench > thresholds.upper_wrench
