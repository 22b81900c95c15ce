# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train eyes`: image features for a residual, from successful episodes."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.tools.argument_types import count
from vla_rl_ros.tools.label_source import LeftOut, recorded

if TYPE_CHECKING:
    from vla_rl_ros.learning.eyes_data import GoalFrames
    from vla_rl_ros.learning.eyes_episodes import ShownEpisode


def add_eyes_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `eyes` to the sub-commands of `train`."""
    parser = subparsers.add_parser(
        "eyes",
        help="image features for a residual from successful episodes",
        description="Train a small network to see from the images alone how far the hand is from "
        "where it will next close, open, or finish, and what is to be done. Nobody labels "
        "anything: recordings of demonstrations, or of a policy's successes, are enough. Give the "
        "directory as --eyes. The same command continues a run that was stopped. Prints one JSON "
        "line last.",
    )
    parser.add_argument(
        "bags", type=Path, nargs="*", metavar="BAG",
        help="bags, or folders with bags at any depth; failed episodes among them are passed "
        "over, and bags that cannot be read are named, left out and counted",
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
        "--frames",
        type=int,
        default=16_000,
        help="to keep at most; of more, every second, fourth, ... (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=1500, help="gradient steps (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default: 0)")
    parser.add_argument("--threads", type=count, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="eyes.FIELD=VALUE",
        help="change any setting of the training",
    )  # fmt: skip
    parser.set_defaults(run=run_eyes)


def run_eyes(arguments: argparse.Namespace) -> int:
    """Run `train eyes`; returns the exit code."""
    from tqdm import tqdm

    from vla_rl_ros.learning.eyes_trainer import EyesSettings, check_begun
    from vla_rl_ros.learning.eyes_training import train
    from vla_rl_ros.learning.fused_step import tune_cpu
    from vla_rl_ros.policies.goal_eyes import CHECKPOINT_NAME

    _check(arguments)
    tune_cpu(arguments.threads)
    settings = changed(
        EyesSettings(steps=arguments.steps, seed=arguments.seed), "eyes", arguments.set
    )
    out: Path = arguments.out
    check_begun(out / CHECKPOINT_NAME, settings)
    left_out = LeftOut("train")
    frames = _collected(arguments, settings.image_px, left_out)
    print(f"[train] eyes and snapshot in {out.resolve()}", file=sys.stderr)
    with tqdm(total=settings.steps, desc="train", unit="step", mininterval=0.5) as bar:

        def tell(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(step - bar.n)

        figures = train(out, frames, settings, command=_command(arguments), tell=tell)
    print(json.dumps({**figures, "left_out": left_out.count}), flush=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.bags) == bool(arguments.simulate):
        raise ConfigError("give bags, or --simulate TASK")
    if arguments.simulate and arguments.task:
        raise ConfigError("--simulate names the task: leave --task out")
    if arguments.bags and arguments.variant != "default":
        raise ConfigError("--variant is of the simulator, bags are as they were recorded")
    if len(set(arguments.cameras)) < len(arguments.cameras):
        raise ConfigError(f"--cameras {' '.join(arguments.cameras)} names one twice")
    for name in ("frames", "episodes"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} {getattr(arguments, name)} must be 1 or more")
    check_changes(arguments.set, ("eyes",))


def _collected(arguments: argparse.Namespace, image_px: int, left_out: LeftOut) -> GoalFrames:
    from vla_rl_ros.learning.eyes_data import collected

    episodes = _simulated(arguments) if arguments.simulate else _recorded(arguments, left_out)
    return collected(episodes, arguments.cameras, image_px, arguments.frames)


def _simulated(arguments: argparse.Namespace) -> Iterable[ShownEpisode]:
    from tqdm import tqdm

    from vla_rl_ros.sim.offscreen import use_offscreen_rendering

    use_offscreen_rendering()
    from vla_rl_ros.learning.eyes_simulated import simulated
    from vla_rl_ros.sim.scene_ids import CAMERAS as SIMULATED

    unknown = sorted(set(arguments.cameras) - set(SIMULATED))
    if unknown:
        raise ConfigError(f"the simulator has no camera {', '.join(unknown)}")
    shown = simulated(arguments.simulate, arguments.variant, arguments.episodes, arguments.seed)
    bar: Iterable[ShownEpisode] = tqdm(
        shown, total=arguments.episodes, desc="demonstrations", unit="episode"
    )
    return bar


def _recorded(arguments: argparse.Namespace, left_out: LeftOut) -> Iterator[ShownEpisode]:
    from tqdm import tqdm

    from vla_rl_ros.data.bag_search import find_bags
    from vla_rl_ros.learning.eyes_episodes import shown_by

    bags = tqdm(find_bags(arguments.bags, left_out.tell), desc="bags", unit="bag")
    for frames in recorded(bags, arguments.cameras, left_out, task=arguments.task):
        episode = None
        with left_out.noting():
            episode = shown_by(frames)
        if episode is not None:
            yield episode


def _command(arguments: argparse.Namespace) -> str:
    """The command without paths, which would tell of a person's machine."""
    words: list[object] = ["vla-rl-ros", "train", "eyes"]
    if arguments.simulate:
        words += ["--simulate", arguments.simulate, "--variant", arguments.variant]
        words += ["--episodes", arguments.episodes]
    else:
        words += ["BAGS", *(["--task", arguments.task] if arguments.task else [])]
    words += ["--out", "DIR", "--cameras", *arguments.cameras, "--frames", arguments.frames]
    words += ["--steps", arguments.steps, "--seed", arguments.seed]
    words += ["--threads", arguments.threads]
    words += ["--set", *arguments.set] if arguments.set else []
    return shlex.join(map(str, words))
