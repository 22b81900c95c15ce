# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros demo`: the simulated cell does every task a few times, recorded, with a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vla_rl_ros.ros.graph_options import SIM_ADDRESS, GraphOptions
from vla_rl_ros.tools.argument_types import count
from vla_rl_ros.tools.up import (
    add_policy_arguments,
    default_out,
    has_display,
    run_episodes,
)

TASKS = ("lift", "peg", "button")


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "demo",
        help="five episodes of each task in simulation, with a report",
        description="Run the simulated cell through every task, record the episodes, write a "
        "report and print one JSON line last.",
    )
    parser.add_argument(
        "--episodes", type=count, default=5, help="episodes of each task (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first reset (default: 0)")
    parser.add_argument("--out", type=Path, help="where everything goes (default: out/<time>)")
    parser.add_argument(
        "--robot-ip", default=SIM_ADDRESS, help="loopback address of the simulated control box"
    )
    add_policy_arguments(parser)
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    return run_episodes(options_of(arguments), TASKS, arguments.episodes)


def options_of(arguments: argparse.Namespace) -> GraphOptions:
    """What the command line asks for."""
    return GraphOptions(
        tasks=TASKS,
        robot_ip=arguments.robot_ip,
        seed=arguments.seed,
        policy=arguments.policy,
        checkpoint=arguments.checkpoint,
        eyes=arguments.eyes,
        mode=arguments.mode,
        residual=arguments.residual,
        out=arguments.out or default_out("demo"),
        window=not arguments.headless and has_display(),
    )
