# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros distill`: teach a base policy what `probe` collected, by its own loss."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vla_rl_ros.tools.argument_types import count, positive


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `distill` to a command line."""
    parser = subparsers.add_parser(
        "distill",
        help="teach a base policy what its residual found",
        description="Go on training a checkpoint of 'train base' on a mix of rollouts of 'probe' "
        "and its own demonstrations. The same command continues. Prints one JSON line last.",
    )
    parser.add_argument("--parent", type=Path, help="checkpoint (default: the shipped one)")
    parser.add_argument(
        "--probe", type=Path, nargs="+", required=True, metavar="DIR", help="what 'probe' wrote"
    )
    parser.add_argument(
        "--demos", type=Path, required=True, metavar="DIR",
        help="the parent's demonstrations: 'data' in the directory of its 'train base'",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps (default: 1000)")
    parser.add_argument(
        "--learning-rate", type=float, default=5e-4, help="after the warm-up (default: 5e-4)"
    )
    parser.add_argument(
        "--probe-part", type=float, default=0.5, help="of each batch (default: 0.5)"
    )
    parser.add_argument(
        "--demo-shards", type=int, default=15, help="files of demonstrations (default: 15)"
    )
    parser.add_argument(
        "--demo-seed", type=int, default=0, help="of the demonstrations (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of batches and noise (default: 0)")
    parser.add_argument(
        "--minutes", type=positive, help="stop after this time; go on with it later"
    )
    parser.add_argument("--threads", type=count, default=1, help="threads of torch (default: 1)")
    parser.set_defaults(run=run_distill)


def run_distill(arguments: argparse.Namespace) -> int:
    """Run `distill`; returns the exit code."""
    import torch
    from tqdm import tqdm

    from vla_rl_ros.learning.base_trainer import TrainerSettings
    from vla_rl_ros.learning.distillation import MixSettings, distil
    from vla_rl_ros.policies.pi0.backend import SHIPPED

    torch.set_num_threads(arguments.threads)
    settings = TrainerSettings(
        steps=arguments.steps,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        where_weight=0.0,
    )
    mix = MixSettings(
        probe_part=arguments.probe_part,
        demo_shards=arguments.demo_shards,
        demo_seed=arguments.demo_seed,
    )
    with tqdm(total=arguments.steps, desc="distill", unit="step") as bar:

        def tell(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(flow=f"{loss:.4f}", refresh=False)

        figures = distil(
            arguments.out,
            arguments.parent or SHIPPED,
            arguments.probe,
            arguments.demos,
            mix,
            settings,
            command=f"vla-rl-ros distill --steps {arguments.steps} --seed {arguments.seed} "
            f"--learning-rate {arguments.learning_rate} --probe-part {arguments.probe_part}",
            minutes=arguments.minutes,
            tell=tell,
        )
    if not figures["is_finished"]:
        print("[distill] not finished: the same command goes on", file=sys.stderr, flush=True)
    print(json.dumps(figures), flush=True)
    return 0
