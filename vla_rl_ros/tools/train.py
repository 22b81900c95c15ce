# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train`: a small VLA from nothing, or a residual on a frozen policy."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vla_rl_ros.tools.argument_types import count, positive
from vla_rl_ros.tools.train_classifier import add_classifier_parser
from vla_rl_ros.tools.train_eyes import add_eyes_parser
from vla_rl_ros.tools.train_residual import add_residual_parser


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `train` and its sub-commands to a command line."""
    parser = subparsers.add_parser("train", help="train a policy")
    commands = parser.add_subparsers(dest="train", metavar="WHAT", required=True)
    base = commands.add_parser(
        "base",
        help="pi0-nano from scripted demonstrations",
        description="Collect demonstrations in the fast simulator and train pi0-nano on them. "
        "The same command continues a run that was stopped. Prints one JSON line last.",
    )
    base.add_argument("--out", type=Path, required=True, help="directory of the run")
    base.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")
    base.add_argument("--steps", type=int, default=6000, help="gradient steps (default: 6000)")
    base.add_argument(
        "--stop-at", type=int, metavar="STEP",
        help="stop at this step of the same schedule, e.g. for a weak policy; go on without it",
    )  # fmt: skip
    base.add_argument(
        "--minutes", type=positive, help="stop after this time of training; go on with it later"
    )
    base.add_argument(
        "--episodes", type=int, default=300, help="demonstrations per task (default: 300)"
    )
    base.add_argument(
        "--relays", type=int, default=300,
        help="episodes that the policy begins, with late answers, and the expert ends, to learn "
        "from in a second phase; 0 for none (default: 300)",
    )  # fmt: skip
    base.add_argument(
        "--second-steps", type=int, help="its gradient steps (default: 1500, 0 without relays)"
    )
    base.add_argument(
        "--processes", type=count, default=2, help="simulators side by side (default: 2)"
    )
    base.add_argument("--threads", type=count, default=1, help="threads of torch (default: 1)")
    base.add_argument(
        "--quick", action="store_true", help="20 episodes and 250 steps: only shows that it runs"
    )
    base.set_defaults(run=run_base)
    add_residual_parser(commands)
    add_classifier_parser(commands)
    add_eyes_parser(commands)


def run_base(arguments: argparse.Namespace) -> int:
    """Run `train base`; returns the exit code."""
    from vla_rl_ros.learning.base_trainer import TrainerSettings
    from vla_rl_ros.learning.base_training import DataSettings, train

    episodes = 20 if arguments.quick else arguments.episodes
    steps = 200 if arguments.quick else arguments.steps
    relays = min(15, arguments.relays) if arguments.quick else arguments.relays
    second_steps = arguments.second_steps
    if second_steps is None:
        second_steps = 0 if relays == 0 else 50 if arguments.quick else 1500
    data = DataSettings(
        episodes=episodes, relays=relays, seed=arguments.seed, processes=arguments.processes
    )
    settings = TrainerSettings(steps=steps, second_steps=second_steps, seed=arguments.seed)
    out: Path = arguments.out
    print(f"[train] data, checkpoint and plots in {out.resolve()}", file=sys.stderr, flush=True)
    figures = train(
        out,
        data,
        settings,
        command=f"vla-rl-ros train base --out DIR --seed {arguments.seed} "
        f"--episodes {episodes} --steps {steps} --relays {relays} --second-steps {second_steps}"
        + ("" if arguments.stop_at is None else f" --stop-at {arguments.stop_at}"),
        stop_at=arguments.stop_at,
        minutes=arguments.minutes,
        num_threads=arguments.threads,
        tell=lambda sentence: print(f"[train] {sentence}", file=sys.stderr, flush=True),
    )
    print(json.dumps(figures), flush=True)
    return 0
