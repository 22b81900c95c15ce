# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros train residual --ros`: the simulated cell in real time, with a learner beside it.

Brings the whole graph up, runs episodes until enough ticks were executed, and stops everything.
The same command goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph_options import SIM_ADDRESS, GraphOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.tools.graph import RunningGraph
    from vla_rl_ros.tools.ros_audit import Audit

_SETTLE_TIMEOUT_S = 40.0
_MINUTE_S = 60.0
_LATEST_EPISODES = 40


def add_ros_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this way of training."""
    group = parser.add_argument_group("through the running graph, in real time")
    group.add_argument(
        "--ros", action="store_true",
        help="learn while the simulated cell runs --task behind ROS; --steps counts its ticks",
    )  # fmt: skip
    group.add_argument(
        "--robot-ip", default=SIM_ADDRESS, help="loopback address of the simulated control box"
    )
    group.add_argument("--record", action="store_true", help="record every episode")
    group.add_argument(
        "--stand-in",
        action="store_true",
        help="let a simulated person with a SpaceMouse help where the policy gets stuck",
    )
    group.add_argument(
        "--patience", type=float, default=12.0, metavar="SECONDS",
        help="how long nothing may go on before he helps; little of it keeps the policy from "
        "learning (default: 12)",
    )  # fmt: skip
    group.add_argument(
        "--classifier", default="", metavar="DIR",
        help="success classifier that decides outcomes, in place of the simulator",
    )  # fmt: skip
    group.add_argument(
        "--kill-learner", type=int, default=0, metavar="N",
        help="kill the learner N times on the way, to see that nothing is lost; needs --minutes",
    )  # fmt: skip


def refuse_ros_options(arguments: argparse.Namespace) -> None:
    """Refuse, where --ros is not given, what would have no effect without it.

    Raises:
        ConfigError: Names the option.
    """
    for name in ("record", "stand_in", "classifier", "kill_learner"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name.replace('_', '-')} goes with --ros")


def run_ros(arguments: argparse.Namespace) -> int:
    """Run the training; returns the exit code."""
    from vla_rl_ros.tools.ros_audit import Audit
    from vla_rl_ros.tools.stand_in import observed_graph

    options = graph_options(arguments)
    _tell(f"rows, snapshot, log and policy in {arguments.out.resolve()}")
    stand_in = observed_graph(
        options, has_stand_in=arguments.stand_in, patience_s=arguments.patience
    )
    with stand_in as (graph, observer):
        audit = Audit(observer)
        figures = _Training(arguments, options, graph, observer, audit).run()
    if graph.returncode != 0:
        _tell(graph.said())
    # Of a tick without a fresh state of the arm nothing was seen, so there cannot be a row of it.
    without_row = audit.ticks_without_row(arguments.out)
    figures["ticks_without_row"] = without_row
    figures["lost_ticks"] = max(0, without_row - figures["blind_ticks"])
    figures["restarts"] = audit.restarts
    figures["latest"] = audit.latest(_LATEST_EPISODES)
    figures["figure"] = str(_plot(arguments.out))
    print(json.dumps(figures), flush=True)
    return int(graph.returncode != 0)


def graph_options(arguments: argparse.Namespace) -> GraphOptions:
    """Graph options of a command line.

    Raises:
        ConfigError: No task, a killing without an end, or settings that the learner would refuse.
    """
    from vla_rl_ros.ros.learner_config import LearnerNodeConfig

    if not arguments.task:
        raise ConfigError("--ros needs --task: what is the cell to do?")
    if arguments.gym or arguments.base:
        raise ConfigError("--ros runs a task of the cell: leave --gym and --base out")
    if arguments.reward != "success":
        raise ConfigError("--ros pays for success: leave --reward out, and see --set reward.*")
    if arguments.kill_learner and not arguments.minutes:
        raise ConfigError("--kill-learner needs --minutes, over which the killings are spread")
    settings = [f"run.seed={arguments.seed}", *arguments.set]
    if arguments.compiled:
        settings.append("run.execution=compiled")
    if arguments.init:
        settings.append(f"run.init={Path(arguments.init).resolve()}")
    named = {"preset": arguments.preset} if arguments.preset else {}
    # What the learner would refuse only after the graph is up is refused here.
    LearnerNodeConfig(settings=" ".join(settings), **named)
    ticks = arguments.execute_ticks
    return GraphOptions(
        robot_ip=arguments.robot_ip,
        tasks=(arguments.task,),
        seed=arguments.seed,
        variant=arguments.variant,
        policy=arguments.base_policy,
        checkpoint="" if arguments.base_checkpoint is None else str(arguments.base_checkpoint),
        eyes=arguments.eyes,
        classifiers=(arguments.classifier,) if arguments.classifier else (),
        operator="spacemouse" if arguments.stand_in else "",
        learner=arguments.out,
        preset=arguments.preset,
        learner_settings=" ".join(settings),
        record=arguments.record,
        out=arguments.out / "graph",
        overrides={"vla_inference": {"execute_ticks": ticks}} if ticks else {},
    )


def wait_for_learner(observer: GraphObserver, audit: Audit, check: Callable[[], None]) -> None:
    """Wait until the learner has looked at the last episode; it stores whole ones.

    Episodes are not counted: a learner that was killed has forgotten those that were too short to
    be stored.

    Args:
        observer: Joined to the graph, after an episode.
        audit: Hears the learner.
        check: Raises when the graph has died.
    """
    from vla_rl_ros.ros.observer import GraphTimeoutError

    last = -1 if observer.episode is None else observer.episode.epoch

    def is_settled() -> bool:
        return audit.metrics.get("session.epoch", -1.0) >= last

    try:
        observer.wait_until(is_settled, _SETTLE_TIMEOUT_S, "the learner", check)
    except GraphTimeoutError:
        _tell(f"the learner has not taken the last episode within {_SETTLE_TIMEOUT_S:.0f} s")


class _Training:
    """Episodes until the end, and what is measured of them."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: GraphOptions,
        graph: RunningGraph,
        observer: GraphObserver,
        audit: Audit,
    ) -> None:
        from vla_rl_ros.tools.ros_audit import stored_ticks
        from vla_rl_ros.tools.session import Session

        self._arguments, self._options = arguments, options
        self._graph, self._observer, self._audit = graph, observer, audit
        self._session = Session()
        self._latencies_s: list[float] = []
        self._num_killed = 0
        stored = stored_ticks(arguments.out)
        self._episodes_before = len(stored)
        self._ticks_before = sum(map(len, stored.values()))
        self._begin_s = 0.0

    @property
    def num_ticks(self) -> int:
        """Ticks executed in the whole run."""
        return self._ticks_before + self._audit.num_ticks

    @property
    def num_episodes(self) -> int:
        """Episodes of the whole run."""
        return self._episodes_before + len(self._session.results)

    def run(self) -> dict[str, Any]:
        """Train; returns the numbers to print."""
        from tqdm import tqdm

        from vla_rl_ros.tools.session import wait_for_bringup

        steps = self._arguments.steps
        wait_for_bringup(self._observer, self._graph.check)
        self._begin_s = time.monotonic()
        with tqdm(total=steps, initial=self._ticks_before, unit="tick") as progress:
            while self.num_ticks < steps and not self._is_late():
                self._episode()
                progress.update(self.num_ticks - progress.n)
                progress.set_postfix_str(self._shown(), refresh=False)
        if self._session.results:
            wait_for_learner(self._observer, self._audit, self._graph.check)
        return self._figures()

    def _episode(self) -> None:
        from vla_rl_ros.learning.gym_starts import training_seed
        from vla_rl_ros.tools.session import EpisodePlan, play_episode

        seed = training_seed(self._arguments.seed, self.num_episodes)
        plan = EpisodePlan(task=self._arguments.task, seed=seed)
        bags = self._options.out / "bags" if self._options.record else None
        play_episode(self._observer, plan, self._session, bags, self._check, may_recover=True)
        latency_s = self._observer.number("residual_actor", "weights_latency_max_s")
        if not math.isnan(latency_s):
            self._latencies_s.append(latency_s)

    def _check(self) -> None:
        """While an episode runs: is the graph well, and is it time to kill the learner?"""
        self._graph.check()
        num_kills = self._arguments.kill_learner
        if self._num_killed < num_kills:
            share = (self._num_killed + 1) / (num_kills + 1)
            due_s = self._begin_s + share * _MINUTE_S * self._arguments.minutes
            # Only a learner that has sent something can be compared with its successor.
            is_due = time.monotonic() > due_s and self._audit.weights is not None
            if is_due and self._audit.kill_learner(self._graph.runner_pid):
                self._num_killed += 1

    def _is_late(self) -> bool:
        minutes = self._arguments.minutes
        return minutes is not None and time.monotonic() - self._begin_s > _MINUTE_S * minutes

    def _count(self, node: str, key: str) -> float:
        found = self._observer.number(node, key)
        return 0.0 if math.isnan(found) else found

    def _shown(self) -> str:
        done = [result.is_success for result in self._session.results][-20:]
        driver = self._observer.diagnostics.get("residual_actor", {}).get("driver", "?")
        updates = self._audit.metrics.get("updates", 0.0)
        return f"success {sum(done)}/{len(done)}, updates {updates:.0f}, driver {driver}"

    def _figures(self) -> dict[str, Any]:
        summary = self._session.summary()
        return {
            "is_finished": self.num_ticks >= self._arguments.steps,
            "ticks": self.num_ticks,
            "episodes": self.num_episodes,
            "success": summary["success"],
            "tick_jitter_p99_ms": summary["tick_jitter_p99_ms"],
            "real_time_factor": summary["real_time_factor"],
            "blind_ticks": int(self._count("residual_actor", "ticks_blind")),
            "weights_latency_max_s": max(self._latencies_s, default=None),
            **self._audit.summary(),
            "minutes": round((time.monotonic() - self._begin_s) / _MINUTE_S, 2),
            "checkpoint": str(self._arguments.out / "policy.safetensors"),
        }


def _plot(run: Path) -> Path:
    from vla_rl_ros.learning.gym_files import RunFiles
    from vla_rl_ros.learning.online_curve import plot_online

    return plot_online(RunFiles(run).lines(), run / "learning_curve.png", "train residual --ros")


def _tell(sentence: str) -> None:
    print(f"[train] {sentence}", file=sys.stderr, flush=True)
