# SPDX-License-Identifier: Apache-2.0
"""`--task` of `train residual` and `eval residual`: a task of the simulated cell.

Fills in the environment and the base that `--gym` and `--base` would name; everything else is as
for any environment of gymnasium.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.eyes_directory import check_eyes
from vla_rl_ros.policies.goal_eyes import are_goal_eyes, read_manifest
from vla_rl_ros.policies.protocol import absolute_eyes
from vla_rl_ros.sim.offscreen import use_offscreen_rendering

if TYPE_CHECKING:
    from vla_rl_ros.learning.gym_door import DoorSettings


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a task of the cell and its frozen policy."""
    group = parser.add_argument_group("a task of the simulated cell, in place of --gym and --base")
    group.add_argument("--task", metavar="NAME", help="lift, peg or button")
    group.add_argument(
        "--variant", default="default", metavar="NAME", help="named difficulty of the scene"
    )
    group.add_argument(
        "--base-policy", default="pi0", metavar="NAME", help="back end of the base (default: pi0)"
    )
    group.add_argument(
        "--base-checkpoint", type=Path, metavar="DIR",
        help="weights of the base (default: the shipped ones)",
    )  # fmt: skip
    group.add_argument(
        "--eyes", default="", metavar="DIR",
        help="what makes the image features: a directory of 'train eyes', a PI0 checkpoint, or "
        "'shipped' (default: the base's own tower)",
    )  # fmt: skip
    group.add_argument(
        "--execute-ticks", type=int, default=0, metavar="N",
        help="ticks from one inference to the next, as vla_inference's execute_ticks "
        "(default: 0, for every tick)",
    )  # fmt: skip


def fill_in_task(arguments: argparse.Namespace) -> None:
    """Turn `--task` into what `--gym` and `--base` say.

    Raises:
        ConfigError: Neither a task nor an environment was named, or both were.
    """
    if arguments.task is None:
        if not arguments.gym or not arguments.base:
            raise ConfigError(
                "name a task of the cell by --task, or an environment by --gym and its base "
                "policy by --base"
            )
        return
    if arguments.gym or arguments.base:
        raise ConfigError("--task names environment and base: leave --gym and --base out")
    settings = task_door_settings(arguments, seed=0)
    arguments.gym, arguments.base = settings.env_id, settings.base
    arguments.gym_arguments = settings.env_arguments


def task_door_settings(arguments: argparse.Namespace, *, seed: int) -> DoorSettings:
    """Environment and base of a task.

    Args:
        arguments: With the options of `add_task_options`.
        seed: Of the starts of training.

    Raises:
        ConfigError: No task was named.
    """
    if arguments.task is None:
        raise ConfigError("--task is missing: lift, peg or button")
    check_eyes(arguments.eyes, "--eyes")
    use_offscreen_rendering()
    from vla_rl_ros.learning.gym_door import DoorSettings
    from vla_rl_ros.learning.vla_env import BASE_ID, ENV_ID

    path = arguments.base_checkpoint
    named = {
        "task": arguments.task,
        "variant_name": arguments.variant,
        "policy": arguments.base_policy,
        "checkpoint": "" if path is None else str(path.resolve()),
        "execute_ticks": arguments.execute_ticks,
    }
    if arguments.eyes:
        named["eyes"] = absolute_eyes(arguments.eyes)
        _warn_of_other_task(Path(named["eyes"]), arguments.task)
    return DoorSettings(env_id=ENV_ID, env_arguments=json.dumps(named), base=BASE_ID, seed=seed)


def _warn_of_other_task(eyes: Path, task: str) -> None:
    """Say that eyes look for something else; a comparison may want just that."""
    if are_goal_eyes(eyes) and (learned := read_manifest(eyes).task) != task:
        print(f"[train] {eyes} learned '{learned}', not '{task}'", file=sys.stderr)
