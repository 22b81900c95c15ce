# SPDX-License-Identifier: Apache-2.0
"""How to reach a Franka arm with its hand, and when its control box trips."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class FrankaConfig:
    """One control box."""

    robot_ip: str = param("127.0.0.1", doc="Address of the arm's control box.")
    realtime: str = param(
        "auto",
        doc="Whether the control thread must be real-time; auto: unless the address is a "
        "loopback one, where only a simulator lives.",
        choices=("auto", "enforce", "ignore"),
    )
    connect_timeout_s: float = param(
        5.0, doc="Longest wait for the control box.", unit="s", low=0.1, high=60.0
    )
    collision_torque_nm: float = param(
        60.0, doc="Joint torque that trips a reflex.", unit="Nm", low=1.0, high=5000.0
    )
    collision_force_n: float = param(
        80.0,
        doc="TCP force (and torque, in Nm) that trips a reflex.",
        unit="N",
        low=1.0,
        high=5000.0,
    )
    tcp_offset_m: float = param(
        0.1034, doc="Expected TCP height above the flange, checked.", unit="m", low=0.0, high=0.5
    )
    back_off_m: float = param(
        0.01, doc="Way back from an obstacle in one step.", unit="m", low=0.0, high=0.05
    )
    gripper_speed_m_per_s: float = param(
        0.1, doc="Speed of the fingers.", unit="m/s", low=0.005, high=0.2
    )
    gripper_force_n: float = param(30.0, doc="Grasping force.", unit="N", low=1.0, high=70.0)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)

    @property
    def is_realtime(self) -> bool:
        """Whether a control thread without real-time rights is refused."""
        if self.realtime == "auto":
            return not is_loopback(self.robot_ip)
        return self.realtime == "enforce"


def is_loopback(address: str) -> bool:
    """Whether an address can only be a simulator on this machine."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        # A host name of the site: a robot.
        return False
