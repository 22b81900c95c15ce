# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros eval base`: success of a base policy in the fast simulator on unseen seeds."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.tools.argument_types import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vla_rl_ros.learning.base_eval import BaseEpisode
    from vla_rl_ros.sim.tasks import Task

FIRST_SEED = 900_000


def add_parser(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `base` to the sub-commands of `eval`."""
    base = commands.add_parser(
        "base",
        help="success, wrong objects and swapped instructions of a base policy",
        description="Run a base policy in the in-process simulator with the timing of the graph. "
        "Prints one JSON line last.",
    )
    base.add_argument("--policy", default="pi0", help="back end (default: pi0)")
    base.add_argument(
        "--checkpoint", type=Path, help="directory of the weights (default: the shipped ones)"
    )
    base.add_argument("--episodes", type=count, default=100, help="per task (default: 100)")
    base.add_argument(
        "--seed", type=int, default=FIRST_SEED, help=f"first seed (default: {FIRST_SEED})"
    )
    base.add_argument("--tasks", nargs="+", default=["lift", "button", "peg"], metavar="TASK")
    base.add_argument("--variant", default="default", help="named difficulty of the scene")
    base.add_argument(
        "--delay", type=int, default=1, help="ticks from observation to execution (default: 1)"
    )
    base.add_argument(
        "--swap",
        action="store_true",
        help="tell lift's scenes to press the button and the button's scenes to lift",
    )
    base.add_argument("--out", type=Path, help="file for one JSON line per episode")
    base.set_defaults(run=run_base)


def run_base(arguments: argparse.Namespace) -> int:
    """Run `eval base`; returns the exit code."""
    from vla_rl_ros.sim.offscreen import use_offscreen_rendering

    use_offscreen_rendering()
    from vla_rl_ros.learning.base_eval import summary

    episodes = _episodes(arguments)
    if arguments.out is not None:
        rows = "".join(f"{json.dumps(asdict(episode))}\n" for episode in episodes)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(rows, encoding="utf-8")
    figures = {
        "checkpoint": str(arguments.checkpoint or "shipped"),
        "variant": arguments.variant,
        "delay_ticks": arguments.delay,
        "first_seed": arguments.seed,
        **summary(episodes),
    }
    print(json.dumps(figures), flush=True)
    return 0


def _episodes(arguments: argparse.Namespace) -> Sequence[BaseEpisode]:
    from tqdm import tqdm

    from vla_rl_ros.learning.base_eval import run_episode
    from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
    from vla_rl_ros.sim.fast_sim import FastSim
    from vla_rl_ros.sim.scene_ids import CAMERAS
    from vla_rl_ros.sim.tasks import task_by_name
    from vla_rl_ros.sim.variants import variant

    sim = FastSim(variant(arguments.variant))
    policy = make_policy(
        arguments.policy,
        PolicySettings(path=str(arguments.checkpoint or ""), device="cpu"),
        PolicyEnvironment(control_period_s=sim.spec.control_period_s, cameras=CAMERAS),
    )
    cases = [
        (task_by_name(name), arguments.seed + number)
        for name in arguments.tasks
        for number in range(arguments.episodes)
    ]
    episodes, num_solved = [], 0
    with tqdm(cases, desc="eval base", unit="episode") as progress:
        for scene, seed in progress:
            told = _other(scene) if arguments.swap else scene
            episode = run_episode(sim, policy, scene, told, seed=seed, delay_ticks=arguments.delay)
            episodes.append(episode)
            num_solved += episode.is_success
            progress.set_postfix(task=scene.value, solved=num_solved, refresh=False)
    sim.close()
    return episodes


def _other(scene: Task) -> Task:
    """The other task an empty hand can do in a scene.

    Raises:
        ConfigError: The hand holds the peg.
    """
    from vla_rl_ros.core.errors import ConfigError
    from vla_rl_ros.sim.tasks import Task

    swapped = {Task.LIFT: Task.BUTTON, Task.BUTTON: Task.LIFT}
    if scene not in swapped:
        raise ConfigError(
            f"--swap: '{scene.value}' starts with a full hand; use --tasks lift button"
        )
    return swapped[scene]
