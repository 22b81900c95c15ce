# SPDX-License-Identifier: Apache-2.0
"""The real cell: `ros2 launch vla_rl_ros bringup.launch.py`; `--show-args` lists arguments."""

from launch import LaunchDescription
from vla_rl_ros.ros.graph_options import Backend
from vla_rl_ros.tools.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Build every process from vla_rl_ros/ros/processes.py."""
    return describe(Backend.REAL)
