# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros up`: the whole graph on a machine with or without a ROS install.

Without ``--episodes`` it runs until Ctrl-C; with it, it runs them, writes a report and prints one
JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reset_plan import ResetMode
from vla_rl_ros.core.types import Mode
from vla_rl_ros.policies.protocol import POLICY_MODULES
from vla_rl_ros.ros.graph_options import (
    OPERATOR_DEVICES,
    OPERATOR_MODES,
    SIM_ADDRESS,
    Backend,
    GraphOptions,
)
from vla_rl_ros.ros.share import known_tasks
from vla_rl_ros.sim.variants import VARIANTS
from vla_rl_ros.tools.argument_types import count

DESCRIPTION = """\
Start every process of the cell, bring the nodes up in order and stop them all on Ctrl-C, the arm
last. With --sim the arm, the cameras and the scene are simulated and nothing else is needed."""
EXAMPLES = """\
examples:
  vla-rl-ros up --sim --task lift --episodes 3     three episodes, then a report
  vla-rl-ros up --sim                              run until Ctrl-C; start episodes by service
  vla-rl-ros up --sim --policy scripted --task peg --episodes 3
  vla-rl-ros up --robot-ip 172.16.0.2 --site config/sites/example.yaml
  vla-rl-ros up --sim --task peg --learner runs/peg    learn a residual while it runs
  vla-rl-ros up --robot-ip 172.16.0.2 --operator spacemouse    a hand that may take over
  vla-rl-ros up --sim --task peg --residual runs/peg   run what was learned, without a learner

Two simulated cells on one machine need two addresses and two ROS domains:
  ROS_DOMAIN_ID=7 vla-rl-ros up --sim --robot-ip 127.0.0.2
"""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "up",
        help="run the cell, simulated or real, with or without ROS installed",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sim", action="store_true", help="simulate arm, cameras and scene")
    parser.add_argument(
        "--robot-ip",
        help=f"address of the control box; with --sim a loopback address, {SIM_ADDRESS} if absent",
    )
    parser.add_argument("--site", type=Path, help="YAML file with this cell's node parameters")
    parser.add_argument(
        "--task", choices=known_tasks(), default="lift", help="what to do (default: lift)"
    )
    parser.add_argument(
        "--reset",
        choices=tuple(mode.value for mode in ResetMode),
        default=ResetMode.SCRIPTED.value,
        help="who resets the scene: a script, the task that undoes this one, a person "
        "(default: scripted)",
    )
    parser.add_argument("--episodes", type=count, help="run this many episodes, then stop")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first reset (default: 0)")
    parser.add_argument(
        "--variant",
        choices=tuple(VARIANTS),
        default="default",
        metavar="NAME",
        help=f"difficulty of the scene: {', '.join(VARIANTS)}",
    )
    add_policy_arguments(parser)
    parser.add_argument(
        "--classifier",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="success classifiers, one per task, that decide outcomes (default: the simulator or "
        "the operator does)",
    )
    add_operator_arguments(parser)
    add_learner_arguments(parser)
    parser.add_argument(
        "--rate",
        choices=("real", "free"),
        default="real",
        help="pace of the simulated arm: real time, or as fast as it goes",
    )
    parser.add_argument(
        "--image-px", type=int, default=128, help="size of simulated images (default: 128)"
    )
    parser.add_argument(
        "--out", type=Path, help="where bags, logs and report go (default: out/<time>)"
    )
    parser.add_argument("--no-record", action="store_true", help="do not record episodes")
    parser.add_argument(
        "--headless", action="store_true", help="no window, even where there is a display"
    )
    parser.set_defaults(run=run)


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the policy and how its chunks are executed."""
    parser.add_argument(
        "--policy",
        choices=tuple(sorted(POLICY_MODULES)),
        default="",
        help="policy back end (default: pi0 with the shipped weights in simulation, else still)",
    )
    parser.add_argument(
        "--checkpoint", default="", help="weights of the policy (default: those it brings along)"
    )
    parser.add_argument(
        "--eyes", default="", metavar="DIR",
        help="what makes the image features for a residual: a directory of 'train eyes', a PI0 "
        "checkpoint, or 'shipped' (default: the policy's own tower)",
    )  # fmt: skip
    parser.add_argument(
        "--mode",
        choices=tuple(mode.value for mode in Mode),
        default="",
        help="how chunks are executed while the policy thinks (default: prefix_lock)",
    )
    parser.add_argument(
        "--residual",
        default="",
        metavar="CHECKPOINT",
        help="learned correction of the policy: a policy.safetensors, or the directory of a run",
    )


def add_operator_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the operator has in his hand, and what he is there for."""
    parser.add_argument(
        "--operator",
        choices=OPERATOR_DEVICES,
        default="",
        help="what the operator has in his hand (default: none); joy listens to teleop/joy",
    )
    parser.add_argument(
        "--operator-mode",
        choices=OPERATOR_MODES,
        default="",
        help="assist: he takes over from the policy; demonstrate: he drives; shadow: he drives "
        "and the policy is compared with him (default: assist)",
    )
    parser.add_argument(
        "--stand-in",
        action="store_true",
        help="a simulated person with a SpaceMouse helps; needs --sim and --episodes",
    )


def add_learner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what runs a learner beside the graph."""
    parser.add_argument(
        "--learner",
        type=Path,
        metavar="DIR",
        help="learn while it runs; rows, snapshot and policy of the run go here and are continued",
    )
    parser.add_argument("--preset", default="", help="settings to begin with (default: pld)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="learner.FIELD=VALUE",
        help="change any setting of learner, schedule, run or reward",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command; returns the exit code."""
    options = options_of(arguments)
    if arguments.episodes:
        return run_episodes(
            options, [arguments.task], arguments.episodes, has_stand_in=arguments.stand_in
        )
    if arguments.stand_in:
        raise ConfigError("--stand-in needs --episodes")
    from vla_rl_ros.tools.graph import run_until_signal

    _tell(f"logs in {options.out.resolve() / 'logs'}; Ctrl-C stops everything")
    return run_until_signal(options, _tell)


def options_of(arguments: argparse.Namespace) -> GraphOptions:
    """Graph options of a command line.

    Raises:
        ConfigError: The options contradict each other.
    """
    if not arguments.sim and arguments.robot_ip is None:
        raise ConfigError("give --sim, or --robot-ip with the address of the control box")
    if arguments.rate == "free" and not arguments.sim:
        raise ConfigError("--rate free needs --sim: a real arm has its own pace")
    return GraphOptions(
        backend=Backend.SIM if arguments.sim else Backend.REAL,
        robot_ip=arguments.robot_ip or SIM_ADDRESS,
        tasks=(arguments.task,),
        seed=arguments.seed,
        reset=arguments.reset,
        variant=arguments.variant,
        policy=arguments.policy,
        checkpoint=arguments.checkpoint,
        eyes=arguments.eyes,
        mode=arguments.mode,
        residual=arguments.residual,
        classifiers=tuple(arguments.classifier),
        learner=arguments.learner,
        preset=arguments.preset,
        learner_settings=" ".join(arguments.set),
        operator=arguments.operator or ("spacemouse" if arguments.stand_in else ""),
        operator_mode=arguments.operator_mode,
        image_px=arguments.image_px,
        rate=arguments.rate,
        record=not arguments.no_record,
        out=arguments.out or default_out("up"),
        site=arguments.site,
        window=not arguments.headless and has_display(),
    )


def has_display() -> bool:
    """Whether a window could be opened."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def default_out(name: str) -> Path:
    """A directory of its own for each run."""
    return Path("out") / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}_{name}"


def run_episodes(
    options: GraphOptions, tasks: Sequence[str], episodes: int, *, has_stand_in: bool = False
) -> int:
    """Run episodes of each task on a graph of their own, report, print the JSON line.

    Args:
        options: Of the graph.
        tasks: What to do, one after the other.
        episodes: Of each.
        has_stand_in: Whether a simulated person helps.

    Returns:
        0 when every process ended properly; whether episodes succeeded is in the JSON line.
    """
    from vla_rl_ros.tools.report import write_report
    from vla_rl_ros.tools.session import plan_episodes, run_session
    from vla_rl_ros.tools.stand_in import observed_graph

    _tell(f"logs, bags and report in {options.out.resolve()}")
    plans = plan_episodes(tasks, episodes, options.seed)
    bags = options.out / "bags" if options.record else None
    with observed_graph(options, has_stand_in=has_stand_in) as (graph, observer):
        session = run_session(
            observer,
            plans,
            bags,
            graph.check,
            may_recover=options.backend is not Backend.REAL,
        )
    if graph.returncode != 0:
        _tell(graph.said())
    summary = session.summary()
    summary["report"] = str(write_report(session.results, options.out / "report", summary))
    print(json.dumps(summary), flush=True)
    return int(graph.returncode != 0)


def _tell(sentence: str) -> None:
    print(f"[up] {sentence}", file=sys.stderr, flush=True)
