# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros probe`: demonstrations by a base policy and its learned residual."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.tools.residual_task import add_task_options, task_door_settings

if TYPE_CHECKING:
    from vla_rl_ros.learning.gym_door import Door
    from vla_rl_ros.learning.gym_episodes import Actor


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `probe` to a command line."""
    parser = subparsers.add_parser(
        "probe",
        help="collect demonstrations by a base and its residual",
        description="Play a task of the simulated cell: the base alone up to a random tick, then "
        "base and residual. Successes are kept as 'train base' keeps its demonstrations, for "
        "'distill'. The same command continues. Prints one JSON line last.",
    )
    add_task_options(parser)
    parser.add_argument(
        "--residual", type=Path, required=True, metavar="FILE",
        help="policy.safetensors of 'train residual', or its directory",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="directory of the demonstrations")
    parser.add_argument("--successes", type=int, default=200, help="to keep (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and ticks (default: 0)")
    parser.add_argument(
        "--base-part", type=float, default=0.6,
        help="largest part of an episode that the base plays first (default: 0.6)",
    )  # fmt: skip
    parser.set_defaults(run=run_probe)


def run_probe(arguments: argparse.Namespace) -> int:
    """Run `probe`; returns the exit code."""
    from tqdm import tqdm

    from vla_rl_ros.learning.fused_step import tune_cpu
    from vla_rl_ros.learning.gym_door import Door
    from vla_rl_ros.learning.probing import Prober, ProbeSettings

    tune_cpu(1)
    settings = ProbeSettings(
        successes=arguments.successes, base_part=arguments.base_part, seed=arguments.seed
    )
    door_settings = task_door_settings(arguments, seed=arguments.seed)
    door = Door(door_settings)
    actor, digest = _residual(arguments.residual, door)
    source = f"{door_settings.env_arguments} {digest}"
    prober = Prober(door, actor, arguments.out, settings, source)
    with tqdm(
        total=settings.successes, initial=prober.progress.successes, desc="probe", unit="success"
    ) as bar:

        def tell(successes: int, attempts: int) -> None:
            bar.update(successes - bar.n)
            bar.set_postfix(attempts=attempts, refresh=False)

        progress = prober.run(tell)
    door.close()
    print(json.dumps({"out": str(arguments.out), **asdict(progress)}), flush=True)
    return 0


def _residual(path: Path, door: Door) -> tuple[Actor, str]:
    """Actor and hash of a learned residual.

    Raises:
        ConfigError: It was trained on other observations, or found no better than its base.
    """
    from vla_rl_ros.learning.acting import ResidualActor
    from vla_rl_ros.learning.gym_files import POLICY_FILE, load_policy

    file = path / POLICY_FILE if path.is_dir() else path
    weights, facts = load_policy(file)
    if facts.get("obs_version", door.obs_version) != door.obs_version:
        raise ConfigError(f"{file} was trained on other observations: name its base checkpoint")
    if facts.get("driver") == "base":
        raise ConfigError(f"{file} was found no better than its base: there is nothing to teach")
    return ResidualActor(weights).act, hashlib.sha256(file.read_bytes()).hexdigest()[:16]
