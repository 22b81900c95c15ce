# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros eval --gym`: success of base and residual on held-out starts."""

from __future__ import annotations

import argparse
import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.tools.argument_types import count
from vla_rl_ros.tools.residual_options import add_door_options, door_settings

if TYPE_CHECKING:
    from vla_rl_ros.learning.acting import ResidualActor
    from vla_rl_ros.learning.gym_door import Door
    from vla_rl_ros.learning.gym_episodes import Actor, Episode

_TOLD = ("driver", "steps", "version", "obs_version")
"""What a file of weights says that is worth repeating."""
_NOISE_SEED = 7


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this evaluation to a parser."""
    add_door_options(parser)
    parser.add_argument(
        "--policy", default="base", metavar="base|residual|CHECKPOINT",
        help="base, residual (of the run in --out, or untrained), or a policy.safetensors",
    )  # fmt: skip
    parser.add_argument("--episodes", type=count, default=50, help="how many (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="first held-out start (default: 0)")
    parser.add_argument("--out", type=Path, help="directory of the run whose residual is meant")
    parser.add_argument(
        "--explore",
        action="store_true",
        help="the residual carries the noise it was trained with, another one for each start",
    )
    parser.add_argument("--log", type=Path, help="file for one JSON line per episode")
    parser.set_defaults(run=run_gym)


def add_residual_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `residual` to the sub-commands of `eval`."""
    add_options(
        subparsers.add_parser(
            "residual",
            help="success of base and residual in an environment of gymnasium",
            description="Play held-out starts, equal ones for every policy. "
            "Prints one JSON line last.",
        )
    )


def run_gym(arguments: argparse.Namespace) -> int:
    """Run `eval`; returns the exit code."""
    from tqdm import tqdm

    from vla_rl_ros.learning.gym_door import Door
    from vla_rl_ros.learning.gym_episodes import evaluate, summary

    if arguments.episodes < 1:
        raise ConfigError(f"--episodes {arguments.episodes}: at least one")
    if arguments.explore and arguments.policy == "base":
        raise ConfigError("--explore is noise of the residual: with --policy base there is none")
    door = Door(door_settings(arguments))
    actor, facts = _actor(arguments, door)
    if actor is not None and arguments.explore:
        facts["explore"] = True
    episodes: list[Episode] = []
    starts = range(arguments.seed, arguments.seed + arguments.episodes)
    with tqdm(starts, desc=f"eval {arguments.policy}", unit="episode") as progress:
        for start in progress:
            episodes += evaluate(door, _at(start, actor, arguments), [start])
            progress.set_postfix(
                solved=sum(episode.is_success for episode in episodes), refresh=False
            )
    door.close()
    if arguments.log is not None:
        rows = "".join(f"{json.dumps(asdict(episode))}\n" for episode in episodes)
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        arguments.log.write_text(rows, encoding="utf-8")
    print(json.dumps({**summary(episodes), "first_start": arguments.seed, **facts}), flush=True)
    return 0


def _at(start: int, actor: ResidualActor | None, arguments: argparse.Namespace) -> Actor | None:
    """What adds to the base in the episode of a start; the same whatever was played before."""
    import numpy as np

    if actor is None:
        return None
    rng = np.random.default_rng([_NOISE_SEED, start]) if arguments.explore else None
    return functools.partial(actor.act, rng=rng)


def _actor(
    arguments: argparse.Namespace, door: Door
) -> tuple[ResidualActor | None, dict[str, Any]]:
    """Who adds to the base, and facts about it.

    Raises:
        ConfigError: No such policy, or one of other sizes.
    """
    from vla_rl_ros.learning.acting import ResidualActor
    from vla_rl_ros.learning.gym_files import POLICY_FILE, load_policy
    from vla_rl_ros.learning.learner import ResidualLearner
    from vla_rl_ros.learning.presets import LearnerConfig

    if arguments.policy == "base":
        return None, {"policy": "base"}
    if arguments.policy == "residual" and arguments.out is None:
        learner = ResidualLearner(LearnerConfig(), door.obs_dim, door.action_dim, 0)
        return ResidualActor(learner.weights()), {"policy": "untrained residual"}
    is_of_run = arguments.policy == "residual"
    path = arguments.out / POLICY_FILE if is_of_run else Path(arguments.policy)
    weights, facts = load_policy(path / POLICY_FILE if path.is_dir() else path)
    found = ResidualActor(weights)
    if (found.obs_dim, found.action_dim) != (door.obs_dim, door.action_dim):
        raise ConfigError(
            f"{path} is for {found.obs_dim} numbers and {found.action_dim} actions, the "
            f"environment has {door.obs_dim} and {door.action_dim}"
        )
    told = {name: facts[name] for name in _TOLD if name in facts}
    facts = {"policy": str(path), **told}
    return (None if facts.get("driver") == "base" else found), facts
