# SPDX-License-Identifier: Apache-2.0
"""Our packets are byte for byte those of franky_sim, which speaks to the real libfranka."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

franky_sim = pytest.importorskip("franky_sim")

from franky_sim.franka_robot_protocol import (  # noqa: E402
    RobotMode,
    StateControllerMode,
    StateMotionGeneratorMode,
    UDPCommand,
)
from franky_sim.franka_robot_state import FrankaRobotState  # noqa: E402

from vla_rl_ros.sim.fci_wire import COMMAND_DTYPE, CommandPacket, StatePacket  # noqa: E402


def test_a_state_is_packed_like_franky_sim_does():
    rng = np.random.default_rng(0)
    packet, values = StatePacket(), {}
    for field in dataclasses.fields(FrankaRobotState):
        if field.name not in packet.fields or not isinstance(field.default, tuple):
            continue
        width = packet.fields[field.name].shape[0]
        if field.name in ("errors", "reflex_reason"):
            value = rng.random(width) > 0.5
        else:
            value = rng.random(width).astype(np.float32)
        values[field.name] = tuple(value.tolist())
        packet.fields[field.name][:] = value
    scalars = {"m_ee": 0.5, "m_load": 0.25, "control_command_success_rate": 0.75}
    modes = {
        "robot_mode": RobotMode.kReflex,
        "motion_generator_mode": StateMotionGeneratorMode.kNone,
        "controller_mode": StateControllerMode.kExternalController,
    }
    for name, value in (scalars | modes).items():
        packet.fields[name][:] = value
    packet.fields["message_id"][:] = 7
    expected = FrankaRobotState(**values, **scalars, **modes).pack_state()
    assert bytes(packet.buffer) == (7).to_bytes(8, "little") + expected


def test_the_block_of_joint_signals_lies_on_its_fields():
    packet = StatePacket()
    packet.joint_signals[:] = np.arange(56).reshape(8, 7)
    names = ("tau_J", "tau_J_d", "dtau_J", "q", "q_d", "dq", "dq_d", "ddq_d")
    for row, name in enumerate(names):
        np.testing.assert_array_equal(packet.fields[name], np.arange(7) + 7 * row)


def test_a_command_is_read_like_franky_sim_does():
    numbers = np.random.default_rng(1).random(38 + 7)
    raw = UDPCommand.STRUCT.pack(5, *numbers[:38], True, False, *numbers[38:], True)
    packet = CommandPacket()
    packet.buffer[: len(raw)] = raw
    theirs = UDPCommand.from_bytes(raw)
    assert len(raw) == CommandPacket.SIZE
    for name in COMMAND_DTYPE.names:
        np.testing.assert_array_equal(
            packet.fields[name], np.atleast_1d(getattr(theirs, name)), err_msg=name
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_noticed_where_they_are_used(value):
    packet = CommandPacket()
    packet.fields["tau_J_d"][3] = value
    assert not packet.is_sane("tau_J_d")
    assert packet.is_sane("q_c")
    packet.clear()
    assert packet.is_sane("tau_J_d")


def test_a_pose_needs_a_rotation():
    packet = CommandPacket()
    packet.fields["O_T_EE_c"][:] = np.eye(4).ravel()
    assert packet.is_sane("O_T_EE_c")
    packet.fields["O_T_EE_c"][0] = 1.1
    assert not packet.is_sane("O_T_EE_c")
