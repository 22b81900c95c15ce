# SPDX-License-Identifier: Apache-2.0
"""What `train residual` and `eval` have in common on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vla_rl_ros.tools.residual_task import add_task_options, fill_in_task

if TYPE_CHECKING:
    from vla_rl_ros.learning.gym_door import DoorSettings


def add_door_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose environment and base."""
    add_task_options(parser)
    group = parser.add_argument_group("environment and base")
    group.add_argument(
        "--gym", default="", metavar="ENV_ID",
        help="environment of gymnasium; MODULE:ENV_ID imports MODULE first",
    )  # fmt: skip
    group.add_argument(
        "--base", default="", metavar="MODULE:FACTORY",
        help="FACTORY(env) returns act(observation) -> action",
    )  # fmt: skip
    group.add_argument(
        "--gym-arguments", default="{}", metavar="JSON", help="for gymnasium.make, as an object"
    )
    group.add_argument(
        "--base-arguments", default="{}", metavar="JSON", help="for FACTORY, as an object"
    )
    group.add_argument(
        "--features", default="", metavar="MODULE:FACTORY",
        help="FACTORY(env) returns features(observation) -> vector, needed for images; "
        "'none' learns from the numbers alone",
    )  # fmt: skip
    group.add_argument(
        "--reward", choices=("success", "env"), default="success",
        help="1 at success, which ends the episode (default), or what the environment pays",
    )  # fmt: skip
    group.add_argument(
        "--max-ticks",
        type=int,
        default=0,
        help="cut episodes off here (default: never)",
    )
    group.add_argument(
        "--success-return", type=float, default=0.0,
        help="return that counts as success where the environment does not say (default: 0)",
    )  # fmt: skip


def door_settings(arguments: argparse.Namespace) -> DoorSettings:
    """Environment and base of a command line; modules are found from the current directory."""
    from vla_rl_ros.learning.gym_door import DoorSettings

    fill_in_task(arguments)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return DoorSettings(
        env_id=arguments.gym,
        env_arguments=arguments.gym_arguments,
        base=arguments.base,
        base_arguments=arguments.base_arguments,
        features=arguments.features,
        reward=arguments.reward,
        max_ticks=arguments.max_ticks,
        success_return=arguments.success_return,
        seed=arguments.seed,
    )
