# SPDX-License-Identifier: Apache-2.0
"""franky_sim's MuJoCo simulator with this package's arm in it."""

from __future__ import annotations

from franky_sim.mujoco_simulator import MujocoSimulator

from vla_rl_ros.sim.fci_robot import FciRobot


class FciSimulator(MujocoSimulator):  # type: ignore[misc]  # franky_sim ships no types
    """The MuJoCo simulator with `FciRobot` arms."""

    def add_robot(self, **options: object) -> FciRobot:
        """Add an arm to the scene; `options` are those of `MujocoSimulator.add_robot`."""
        super().add_robot(**options)
        options.pop("position", None)
        # MujocoSimulator names its robot class in the method that also writes the XML, so the
        # robot it has just made is exchanged for ours instead of copying that method.
        robot = FciRobot(**options)
        self._robots[-1] = robot
        return robot
