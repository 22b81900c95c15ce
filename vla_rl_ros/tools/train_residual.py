# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train residual`: a correction, learned anywhere, of a frozen policy."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.tools.argument_types import count, positive
from vla_rl_ros.tools.residual_options import add_door_options, door_settings
from vla_rl_ros.tools.train_bags import add_bag_options, run_bags
from vla_rl_ros.tools.train_ros import add_ros_options, refuse_ros_options, run_ros

if TYPE_CHECKING:
    from collections.abc import Callable

    from vla_rl_ros.learning.gym_loop import GymTrainer

PRESET = "pld"
_PREFIXES = ("learner", "schedule", "run", "reward")


def add_residual_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `residual` to the sub-commands of `train`."""
    parser = subparsers.add_parser(
        "residual",
        help="a residual on a frozen base policy",
        description="Learn a bounded correction of a frozen base policy. The same command "
        "continues a run that was stopped, also with more --steps. Prints one JSON line last.",
    )
    add_door_options(parser)
    add_bag_options(parser)
    add_ros_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument(
        "--preset", default="", help="settings of a method (default: pld, with --bags calql)"
    )
    parser.add_argument(
        "--init", default="", metavar="DIR", help="start from what the run in DIR has learned"
    )
    parser.add_argument("--steps", type=int, default=20_000, help="of the environment, the base's "
                        "included (default: 20000)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    parser.add_argument(
        "--minutes", type=positive, help="stop after this time; go on with it later"
    )
    parser.add_argument(
        "--eval-every", type=int, default=2500, help="steps between evaluations (default: 2500)"
    )
    parser.add_argument(
        "--eval-episodes", type=int, default=50, help="held-out starts (default: 50)"
    )
    parser.add_argument(
        "--compiled", action="store_true",
        help="compile the gradient steps: a slow start, then twice as fast",
    )  # fmt: skip
    parser.add_argument("--threads", type=count, default=1, help="threads of torch (default: 1)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="learner.FIELD=VALUE",
        help="change any setting of learner, schedule, run or reward",
    )  # fmt: skip
    parser.set_defaults(run=run_residual)


def run_residual(arguments: argparse.Namespace) -> int:
    """Run `train residual`; returns the exit code."""
    if not arguments.ros:
        refuse_ros_options(arguments)
    if arguments.bags:
        return run_bags(arguments)
    if arguments.ros:
        return run_ros(arguments)
    from vla_rl_ros.learning.fused_step import tune_cpu

    tune_cpu(arguments.threads)
    trainer = make_trainer(arguments)
    out: Path = arguments.out
    print(f"[train] log, snapshot and policy in {out.resolve()}", file=sys.stderr, flush=True)
    with _Bars(trainer) as bars:
        figures = trainer.run(minutes=arguments.minutes, tell=bars.tell)
    print(json.dumps(figures), flush=True)
    return 0


def make_trainer(arguments: argparse.Namespace) -> GymTrainer:
    """The run that a command line describes."""
    from vla_rl_ros.learning.gym_loop import GymTrainer
    from vla_rl_ros.learning.gym_state import RunSettings
    from vla_rl_ros.learning.presets import preset
    from vla_rl_ros.learning.reward_config import reward_config
    from vla_rl_ros.learning.schedule import ScheduleConfig

    check_changes(arguments.set, _PREFIXES)
    run = RunSettings(
        steps=arguments.steps,
        seed=arguments.seed,
        eval_every=arguments.eval_every,
        eval_episodes=arguments.eval_episodes,
        execution="compiled" if arguments.compiled else "eager",
        init=arguments.init,
    )
    learner = changed(preset(arguments.preset or PRESET), "learner", arguments.set)
    return GymTrainer(
        arguments.out,
        door_settings(arguments),
        learner,
        changed(run, "run", arguments.set),
        changed(ScheduleConfig(), "schedule", arguments.set),
        reward_config(arguments.set, learner, paid=arguments.reward),
    )


class _Bars:
    """A progress bar per phase."""

    def __init__(self, trainer: GymTrainer) -> None:
        self._trainer = trainer
        self._bar: Any = None
        self._phase = ""

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def tell(self) -> Callable[[str, int], None]:
        """What to give to `GymTrainer.run`."""
        return self._tell

    def _tell(self, phase: str, done: int) -> None:
        from tqdm import tqdm

        if phase != self._phase:
            self.__exit__()
            total = self._trainer.totals.get(phase)
            self._bar = tqdm(total=total, initial=done, desc=phase, unit="", mininterval=0.5)
            self._phase = phase
        self._bar.update(done - self._bar.n)
        schedule = self._trainer.state.schedule
        success = schedule.success(schedule.driver)
        # It is not known before the driver has had some episodes.
        known = {} if math.isnan(success) else {"success": f"{success:.2f}"}
        self._bar.set_postfix(driver=schedule.driver.value, **known, refresh=False)
