# SPDX-License-Identifier: Apache-2.0
"""The arm process: `proprio_driver` and `impedance_controller` over one arm."""

from __future__ import annotations

import gc
import sys

from vla_rl_ros.hardware.arm_controller import ArmController
from vla_rl_ros.hardware.arm_handle import ArmHandle
from vla_rl_ros.hardware.fakes import FakeArm, FakeGripper
from vla_rl_ros.hardware.franka_arm import FrankaArm
from vla_rl_ros.hardware.franka_gripper import FrankaGripper
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.protocols import Arm, Gripper
from vla_rl_ros.hardware.robot_thread import raise_group_priority, raise_priority
from vla_rl_ros.ros.controller_config import ImpedanceControllerConfig
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.nodes.impedance_controller import ImpedanceControllerNode
from vla_rl_ros.ros.nodes.proprio_driver import ProprioDriverConfig, ProprioDriverNode
from vla_rl_ros.ros.run import run

# The arm's loop may have to wait this long for another Python thread to yield.
SWITCH_INTERVAL_S = 0.0005
ARM_NICE = -10

Overrides = dict[str, object]


def make_arm_nodes(
    proprio: Overrides | None = None, controller: Overrides | None = None
) -> list[ManagedNode[ProprioDriverConfig] | ManagedNode[ImpedanceControllerConfig]]:
    """Both nodes over one handle; nothing is opened before the first is configured.

    Args:
        proprio: Parameters of `proprio_driver` that win over files.
        controller: Parameters of `impedance_controller` that win over files.
    """
    driver = ProprioDriverNode(proprio)
    impedance = ImpedanceControllerNode(controller)
    handle = ArmHandle(
        lambda: _make_controller(driver.config, impedance.config), impedance.config.loop.rate_hz
    )
    driver.attach(handle)
    impedance.attach(handle)
    return [driver, impedance]


def _make_controller(
    devices: ProprioDriverConfig, config: ImpedanceControllerConfig
) -> ArmController:
    is_fake = devices.driver == "fake"
    arm: Arm = FakeArm() if is_fake else FrankaArm(devices)
    gripper: Gripper = FakeGripper() if is_fake else FrankaGripper(devices)
    return ArmController(
        arm,
        GripperWorker(gripper) if devices.has_gripper else None,
        config.loop,
        config.limits,
        config.settings(),
    )


def main() -> int:
    """Run the arm process."""
    # All threads alike: one that holds the interpreter while it waits for a core delays the loop.
    raise_priority(ARM_NICE)
    raise_group_priority(ARM_NICE)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What was loaded stays: a full collection would stall the loop for milliseconds.
    gc.collect()
    gc.freeze()
    return run(make_arm_nodes)


if __name__ == "__main__":
    raise SystemExit(main())
