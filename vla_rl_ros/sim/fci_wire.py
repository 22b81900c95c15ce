# SPDX-License-Identifier: Apache-2.0
"""Byte layout of Franka's real-time packets as numpy records (robot server version 10).

franky_sim packs a state with forty `struct.pack` calls from a frozen dataclass, 0.1 ms at every
millisecond of simulated time. Here the packet is a buffer that stays allocated, and each field is
a float32 view into it. A test holds the layout against `franky_sim`'s own packing.
"""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_ERRORS = 41
_ROTATION_TOLERANCE = 1e-3

# Order and widths as libfranka expects them; the packet counter comes first.
_STATE_FIELDS: tuple[tuple[str, int], ...] = (
    ("O_T_EE", 16),
    ("O_T_EE_d", 16),
    ("F_T_EE", 16),
    ("EE_T_K", 16),
    ("F_T_NE", 16),
    ("NE_T_EE", 16),
    ("m_ee", 1),
    ("I_ee", 9),
    ("F_x_Cee", 3),
    ("m_load", 1),
    ("I_load", 9),
    ("F_x_Cload", 3),
    ("elbow", 2),
    ("elbow_d", 2),
    ("tau_J", 7),
    ("tau_J_d", 7),
    ("dtau_J", 7),
    ("q", 7),
    ("q_d", 7),
    ("dq", 7),
    ("dq_d", 7),
    ("ddq_d", 7),
    ("joint_contact", 7),
    ("cartesian_contact", 6),
    ("joint_collision", 7),
    ("cartesian_collision", 6),
    ("tau_ext_hat_filtered", 7),
    ("O_F_ext_hat_K", 6),
    ("K_F_ext_hat_K", 6),
    ("O_dP_EE_d", 6),
    ("O_ddP_O", 3),
    ("elbow_c", 2),
    ("delbow_c", 2),
    ("ddelbow_c", 2),
    ("O_T_EE_c", 16),
    ("O_dP_EE_c", 6),
    ("O_ddP_EE_c", 6),
    ("theta", 7),
    ("dtheta", 7),
    ("accelerometer_top", 18),
    ("accelerometer_bottom", 18),
)
STATE_DTYPE = np.dtype(
    [("message_id", "<u8")]
    + [(name, "<f4", (width,)) for name, width in _STATE_FIELDS]
    + [
        ("motion_generator_mode", "u1"),
        ("controller_mode", "u1"),
        ("errors", "u1", (NUM_ERRORS,)),
        ("reflex_reason", "u1", (NUM_ERRORS,)),
        ("robot_mode", "u1"),
        ("control_command_success_rate", "<f4"),
    ]
)
COMMAND_DTYPE = np.dtype(
    [
        ("message_id", "<u8"),
        ("q_c", "<f8", (7,)),
        ("dq_c", "<f8", (7,)),
        ("O_T_EE_c", "<f8", (16,)),
        ("O_dP_EE_c", "<f8", (6,)),
        ("elbow_c", "<f8", (2,)),
        ("valid_elbow", "u1"),
        ("motion_generation_finished", "u1"),
        ("tau_J_d", "<f8", (7,)),
        ("torque_command_finished", "u1"),
    ]
)


def _offset(name: str) -> int:
    fields = STATE_DTYPE.fields
    assert fields is not None
    return int(fields[name][1])


class FciError(enum.IntEnum):
    """Position of an error in the robot's error flags; only those this simulator can raise."""

    JOINT_REFLEX = 6
    CARTESIAN_REFLEX = 7
    COMMUNICATION_CONSTRAINTS_VIOLATION = 25


class StatePacket:
    """One outgoing state, packed in place.

    Attributes:
        buffer: The bytes to send, packet counter included.
        fields: Name -> writable view of the buffer; every field is an array, scalars of length 1.
        joint_signals: tau_J, tau_J_d, dtau_J, q, q_d, dq, dq_d and ddq_d as one view, (8, 7).
    """

    def __init__(self) -> None:
        self.buffer = bytearray(STATE_DTYPE.itemsize)
        record = np.frombuffer(self.buffer, dtype=STATE_DTYPE)
        self.fields: dict[str, NDArray[Any]] = {}
        for name in STATE_DTYPE.names or ():
            view = record[name]
            self.fields[name] = view[0] if view.ndim == 2 else view
        for name in ("O_T_EE", "O_T_EE_d", "F_T_EE", "EE_T_K", "F_T_NE", "NE_T_EE", "O_T_EE_c"):
            self.fields[name][::5] = 1.0
        first = _offset("tau_J")
        self.joint_signals = np.frombuffer(
            self.buffer, dtype="<f4", count=8 * 7, offset=first
        ).reshape(8, 7)


class CommandPacket:
    """One incoming command, read in place.

    Attributes:
        buffer: Where to receive into; a bit longer than a command so that overlong ones show.
        fields: Name -> view of the buffer.
    """

    SIZE = COMMAND_DTYPE.itemsize

    def __init__(self) -> None:
        self.buffer = bytearray(self.SIZE + 8)
        record = np.frombuffer(self.buffer, dtype=COMMAND_DTYPE, count=1)
        self.fields: dict[str, NDArray[Any]] = {}
        for name in COMMAND_DTYPE.names or ():
            view = record[name]
            self.fields[name] = view[0] if view.ndim == 2 else view

    def clear(self) -> None:
        """Set everything to zero."""
        self.buffer[:] = bytes(len(self.buffer))

    def is_sane(self, *names: str) -> bool:
        """Whether these fields are finite, and a pose among them has a rotation."""
        for name in names:
            values = self.fields[name]
            if not math.isfinite(values.dot(values)):
                return False
            if name == "O_T_EE_c":
                rotation = values.reshape(4, 4)[:3, :3]
                if not np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE):
                    return False
        return True
