# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros record demos`: an operator shows how a task is done, and bags of it are kept.

The policy stands still, the operator has the arm from his first move on, and every tick of his is
tagged as a human's. What did not succeed is kept as well, in a folder of its own: negatives for a
success classifier are hard to come by.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph_options import SIM_ADDRESS, Backend, GraphOptions
from vla_rl_ros.ros.share import known_tasks
from vla_rl_ros.tools.argument_types import count
from vla_rl_ros.tools.up import default_out

if TYPE_CHECKING:
    from vla_rl_ros.tools.report import EpisodeResult

FAILED_FOLDER = "failed"
EXAMPLES = """\
examples:
  vla-rl-ros record demos --robot-ip 172.16.0.2 --site cell.yaml --task peg --episodes 20
  vla-rl-ros record demos --sim --task lift --episodes 5 --operator joy    with `vla-rl-ros teleop`
  vla-rl-ros record demos --sim --task peg --episodes 20 --stand-in        nobody has to be there
"""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser("record", help="record what an operator shows")
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    demos = kinds.add_parser(
        "demos",
        help="demonstrations of a task",
        description="Run episodes that the operator drives with a SpaceMouse, and keep their "
        "bags. Prints one JSON line last.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demos.add_argument("--task", choices=known_tasks(), default="lift")
    demos.add_argument("--episodes", type=count, default=10, help="successes wanted (default: 10)")
    demos.add_argument(
        "--attempts", type=count, help="episodes at most (default: twice as many as wanted)"
    )
    demos.add_argument("--sim", action="store_true", help="simulate arm, cameras and scene")
    demos.add_argument("--robot-ip", help="address of the control box")
    demos.add_argument("--site", type=Path, help="YAML file with this cell's node parameters")
    demos.add_argument(
        "--operator", choices=("spacemouse", "joy"), default="spacemouse", help="what he has"
    )
    demos.add_argument(
        "--stand-in", action="store_true", help="let a simulated person with a SpaceMouse show it"
    )
    demos.add_argument("--seed", type=int, default=0, help="seed of the first reset (default: 0)")
    demos.add_argument("--image-px", type=count, default=128, help="size of simulated images")
    demos.add_argument("--variant", default="default", help="difficulty of the simulated scene")
    demos.add_argument("--out", type=Path, help="where bags and logs go (default: out/<time>)")
    demos.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `record demos`; returns 0 when as many episodes succeeded as were wanted."""
    options = options_of(arguments)
    attempts = arguments.attempts or 2 * arguments.episodes
    _tell(f"bags and logs in {options.out.resolve()}")
    results = record(options, arguments.episodes, attempts, stand_in=arguments.stand_in)
    kept = [result for result in results if result.is_success]
    set_aside(results, options.out / "bags" / FAILED_FOLDER)
    figures = {
        "task": arguments.task,
        "demonstrations": len(kept),
        "attempts": len(results),
        "duration_s": round(sum(result.duration_s for result in kept), 1),
        "bags": str((options.out / "bags").resolve()),
    }
    print(json.dumps(figures), flush=True)
    return int(len(kept) < arguments.episodes)


def options_of(arguments: argparse.Namespace) -> GraphOptions:
    """Graph options of a command line.

    Raises:
        ConfigError: The options contradict each other.
    """
    if not arguments.sim and arguments.robot_ip is None:
        raise ConfigError("give --sim, or --robot-ip with the address of the control box")
    return GraphOptions(
        backend=Backend.SIM if arguments.sim else Backend.REAL,
        robot_ip=arguments.robot_ip or SIM_ADDRESS,
        tasks=(arguments.task,),
        seed=arguments.seed,
        variant=arguments.variant,
        policy="still",
        operator=arguments.operator,
        operator_mode="demonstrate",
        image_px=arguments.image_px,
        out=arguments.out or default_out("demos"),
        site=arguments.site,
    )


def record(
    options: GraphOptions, wanted: int, attempts: int, *, stand_in: bool
) -> list[EpisodeResult]:
    """Run episodes until enough have succeeded.

    Args:
        options: Of the graph.
        wanted: Successes.
        attempts: Episodes at most.
        stand_in: Whether a simulated person drives.
    """
    from vla_rl_ros.tools.session import EpisodePlan, Session, play_episode, wait_for_bringup
    from vla_rl_ros.tools.stand_in import observed_graph

    bags = options.out / "bags"
    session = Session()
    with observed_graph(options, has_stand_in=stand_in) as (graph, observer):
        wait_for_bringup(observer, graph.check)
        for index in range(attempts):
            plan = EpisodePlan(task=options.tasks[0], seed=options.seed + index)
            may_recover = options.backend is not Backend.REAL
            play_episode(observer, plan, session, bags, graph.check, may_recover=may_recover)
            done = sum(result.is_success for result in session.results)
            result = session.results[-1]
            _tell(f"{result.outcome} after {result.duration_s:.1f} s; {done} of {wanted}")
            if done >= wanted:
                break
    return session.results


def set_aside(results: list[EpisodeResult], folder: Path) -> None:
    """Move the bags of episodes that did not succeed into a folder of their own."""
    for result in results:
        bag = Path(result.bag)
        if not result.is_success and result.bag and bag.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(str(bag), str(folder / bag.name))


def _tell(sentence: str) -> None:
    print(f"[record] {sentence}", file=sys.stderr, flush=True)
