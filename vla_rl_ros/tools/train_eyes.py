# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train eyes`: image features for a residual, from successful episodes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.ros.graph import CAMERAS

if TYPE_CHECKING:
    from vla_rl_ros.data.label_frames import EpisodeFrames
    from vla_rl_ros.learning.eyes_data import GoalFrames


def add_eyes_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `eyes` to the sub-commands of `train`."""
    parser = subparsers.add_parser(
        "eyes",
        help="image features for a residual from successful episodes",
        description="Train a small network to see from the images alone how far the hand is from "
        "where a successful episode will end. Nobody labels anything: recordings of "
        "demonstrations, or of a policy's successes, are enough. Give the directory as --eyes. "
        "The same command continues a run that was stopped. Prints one JSON line last.",
    )
    parser.add_argument(
        "bags", type=Path, nargs="*", metavar="BAG",
        help="bags, or folders of bags; failed episodes among them are passed over",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="directory of the eyes")
    parser.add_argument("--task", default="", help="take the episodes of this task only")
    parser.add_argument(
        "--cameras", nargs="+", default=list(CAMERAS), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--simulate", metavar="TASK", default="",
        help="show the task in the fast simulator instead of reading bags",
    )  # fmt: skip
    parser.add_argument(
        "--variant", metavar="NAME", default="default",
        help="difficulty of the simulated scene (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", type=int, default=300, help="demonstrations to simulate (default: 300)"
    )
    parser.add_argument(
        "--frames", type=int, default=16_000, help="to keep at most (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=1500, help="gradient steps (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="eyes.FIELD=VALUE",
        help="change any setting of the training",
    )  # fmt: skip
    parser.set_defaults(run=run_eyes)


def run_eyes(arguments: argparse.Namespace) -> int:
    """Run `train eyes`; returns the exit code."""
    from tqdm import tqdm

    from vla_rl_ros.learning.eyes_trainer import EyesSettings
    from vla_rl_ros.learning.eyes_training import train
    from vla_rl_ros.learning.fused_step import tune_cpu

    if bool(arguments.bags) == bool(arguments.simulate):
        raise ConfigError("give bags, or --simulate TASK")
    check_changes(arguments.set, ("eyes",))
    tune_cpu(arguments.threads)
    settings = changed(
        EyesSettings(steps=arguments.steps, seed=arguments.seed), "eyes", arguments.set
    )
    frames, task = _simulated(arguments) if arguments.simulate else _recorded(arguments)
    out: Path = arguments.out
    print(f"[train] eyes and snapshot in {out.resolve()}", file=sys.stderr)
    with tqdm(total=settings.steps, desc="train", unit="step", mininterval=0.5) as bar:

        def tell(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(step - bar.n)

        figures = train(out, frames, settings, task=task, command=_command(arguments), tell=tell)
    print(json.dumps(figures), flush=True)
    return 0


def _simulated(arguments: argparse.Namespace) -> tuple[GoalFrames, str]:
    from tqdm import tqdm

    from vla_rl_ros.learning.eyes_data import collected, simulated
    from vla_rl_ros.sim.offscreen import use_offscreen_rendering
    from vla_rl_ros.sim.scene_ids import CAMERAS as SIMULATED
    from vla_rl_ros.sim.tasks import task_by_name

    unknown = sorted(set(arguments.cameras) - set(SIMULATED))
    if unknown:
        raise ConfigError(f"the simulator has no camera {', '.join(unknown)}")
    use_offscreen_rendering()
    task = task_by_name(arguments.simulate)
    shown = simulated(task, arguments.variant, arguments.episodes, arguments.seed)
    bar = tqdm(shown, total=arguments.episodes, desc="demonstrations", unit="episode")
    return collected(bar, arguments.cameras, arguments.frames), task.value


def _recorded(arguments: argparse.Namespace) -> tuple[GoalFrames, str]:
    from vla_rl_ros.learning.eyes_data import collected, from_recordings

    tasks: set[str] = set()
    frames = collected(
        from_recordings(_read(arguments, tasks)), arguments.cameras, arguments.frames
    )
    if len(tasks) > 1:
        raise ConfigError(f"the bags are of {', '.join(sorted(tasks))}: choose by --task")
    return frames, next(iter(tasks))


def _read(arguments: argparse.Namespace, tasks: set[str]) -> Iterator[EpisodeFrames]:
    from tqdm import tqdm

    from vla_rl_ros.data.bag_check import find_bags
    from vla_rl_ros.data.bag_reader import Bag
    from vla_rl_ros.data.label_frames import read_frames

    bags = [
        bag for path in arguments.bags for bag in (find_bags(path) if path.is_dir() else [path])
    ]
    for path in tqdm(bags, desc="bags", unit="bag"):
        try:
            task = Bag(path).metadata("episode").get("task", "")
            if arguments.task and task != arguments.task:
                continue
            frames = read_frames(path, arguments.cameras)
        except BagError as error:
            print(f"[train] left out: {error}", file=sys.stderr)
            continue
        tasks.add(task)
        yield frames


def _command(arguments: argparse.Namespace) -> str:
    source = (
        f"--simulate {arguments.simulate} --variant {arguments.variant} "
        f"--episodes {arguments.episodes}"
        if arguments.simulate
        else "BAGS"
    )
    return f"vla-rl-ros train eyes {source} --steps {arguments.steps} --seed {arguments.seed}"
