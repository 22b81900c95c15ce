# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench pair`: two tasks that undo each other, and how often they need help.

Runs the whole graph on the simulated cell with ``reset: pair``. That nothing touched the scene is
counted where it would happen: resets by the simulator, homings by the arm's controller.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vla_rl_ros.core.episode import ResetKind
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.proportions import wilson_interval
from vla_rl_ros.core.reset_plan import ResetMode
from vla_rl_ros.policies.protocol import POLICY_MODULES
from vla_rl_ros.ros.graph_options import SIM_ADDRESS, GraphOptions
from vla_rl_ros.ros.share import known_tasks, read_task
from vla_rl_ros.sim.variants import VARIANTS
from vla_rl_ros.tools.argument_types import count

# Diagnostics come once per second.
_HEARD_S = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEpisode:
    """One episode and what was done to the cell for it.

    Attributes:
        task: Task name.
        outcome: How it ended.
        reset: Who reset the scene, as the supervisor says.
        scene_resets: Changes of the scene, as the simulator counts.
        homings: Times the arm went home, as its controller counts.
        duration_s: Time in the running phase.
    """

    task: str
    outcome: str
    reset: str
    scene_resets: int
    homings: int
    duration_s: float

    @property
    def needed_help(self) -> bool:
        """Whether anything outside the two tasks prepared it."""
        return self.reset != ResetKind.NONE.value or bool(self.scene_resets or self.homings)


def add_parser(benches: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command to those of `bench`."""
    parser = benches.add_parser(
        "pair",
        help="a task and the one that undoes it, without resets",
        description="Run a task and the one that undoes it in turn on the simulated cell behind "
        "the robot's protocol, and count how many episodes start with no external reset. Prints "
        "one JSON line last.",
    )
    parser.add_argument(
        "--episodes", type=count, default=40, help="of both together (default: 40)"
    )
    parser.add_argument(
        "--task", choices=known_tasks(), default="peg", help="the first of the two (default: peg)"
    )
    parser.add_argument(
        "--policy",
        choices=tuple(POLICY_MODULES),
        default="scripted",
        help="who drives (default: scripted)",
    )
    parser.add_argument(
        "--variant", choices=tuple(VARIANTS), default="default", help="difficulty of the scene"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first reset (default: 0)")
    parser.add_argument("--no-record", action="store_true", help="write no bags")
    parser.add_argument("--out", type=Path, help="where everything goes (default: out/<time>)")
    parser.add_argument(
        "--robot-ip", default=SIM_ADDRESS, help=f"loopback address (default: {SIM_ADDRESS})"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the bench; returns the exit code.

    Raises:
        ConfigError: Nothing undoes the task.
    """
    from vla_rl_ros.tools.up import default_out

    if not read_task(arguments.task).undone_by:
        raise ConfigError(f"no task undoes '{arguments.task}'; see undone_by in config/tasks")
    out: Path = arguments.out or default_out("bench_pair")
    options = GraphOptions(
        tasks=(arguments.task,),
        robot_ip=arguments.robot_ip,
        reset=ResetMode.PAIR.value,
        policy=arguments.policy,
        variant=arguments.variant,
        seed=arguments.seed,
        record=not arguments.no_record,
        out=out,
    )
    print(f"[pair] logs, bags and rows in {out.resolve()}", file=sys.stderr, flush=True)
    begin_s = time.monotonic()
    rows = _episodes(options, arguments.episodes)
    path = out / "pair.jsonl"
    path.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows), encoding="utf-8")
    figures = {
        "bench": "pair",
        "task": arguments.task,
        "policy": arguments.policy,
        "variant": arguments.variant,
        **summary(rows),
        "wall_s": round(time.monotonic() - begin_s, 1),
        "rows": str(path),
    }
    print(json.dumps(figures), flush=True)
    return 0


def summary(rows: Sequence[PairEpisode]) -> dict[str, Any]:
    """The figures of the JSON line."""
    free = sum(not row.needed_help for row in rows)
    low, high = wilson_interval(free, len(rows))
    tasks = dict.fromkeys(row.task for row in rows)
    return {
        "episodes": len(rows),
        "without_reset": free,
        "share_without_reset": round(free / len(rows), 4) if rows else 0.0,
        "share_interval_95": [round(low, 3), round(high, 3)],
        "scene_resets": sum(row.scene_resets for row in rows),
        "homings": sum(row.homings for row in rows),
        "success": {
            task: [
                sum(row.outcome == "success" for row in rows if row.task == task),
                sum(row.task == task for row in rows),
            ]
            for task in tasks
        },
    }


def _episodes(options: GraphOptions, episodes: int) -> list[PairEpisode]:
    from tqdm import tqdm

    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneClient
    from vla_rl_ros.tools.graph import run_graph
    from vla_rl_ros.tools.session import (
        Session,
        plan_episodes,
        play_episode,
        wait_for_bringup,
    )

    session, rows = Session(), []
    with (
        run_graph(options) as graph,
        GraphObserver() as observer,
    ):
        wait_for_bringup(observer, graph.check)
        with SceneClient(graph.run_dir / SOCKET_NAME) as scene:

            def counts() -> tuple[int, int]:
                observer.spin(_HEARD_S)
                homings = observer.diagnostics.get("impedance_controller", {}).get("homings", "0")
                return int(scene.request("stats")["num_resets"]), int(homings)

            before = counts()
            plans = plan_episodes(options.tasks, episodes, options.seed)
            with tqdm(plans, desc="bench pair", unit="episode") as progress:
                for plan in progress:
                    play_episode(observer, plan, session, None, graph.check, may_recover=True)
                    after, result = counts(), session.results[-1]
                    rows.append(
                        PairEpisode(
                            task=result.task,
                            outcome=result.outcome,
                            reset=result.reset,
                            scene_resets=after[0] - before[0],
                            homings=after[1] - before[1],
                            duration_s=round(result.duration_s, 2),
                        )
                    )
                    before = after
                    free = sum(not row.needed_help for row in rows)
                    progress.set_postfix_str(f"{free}/{len(rows)} without reset")
    return rows
