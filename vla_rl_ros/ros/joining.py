# SPDX-License-Identifier: Apache-2.0
"""How a command line joins a graph beside which it runs."""

from __future__ import annotations

import rclpy
from rclpy.context import Context

from vla_rl_ros.ros.unborn_ports import remove_unborn_ports


def joined_context() -> Context:
    """A context of its own, so that several may join and leave in one process."""
    remove_unborn_ports()
    context = Context()
    rclpy.init(context=context)
    return context
