# SPDX-License-Identifier: Apache-2.0
"""Runs a list of episodes on a running graph and collects what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.tools.report import EpisodeResult, success_rates

BRINGUP_TIMEOUT_S = 150.0
"""Longer than the supervisor waits for a node, so that its own reason is what is shown."""
EPISODE_TIMEOUT_S = 700.0
RECOVER_TIMEOUT_S = 30.0
_MAX_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """One episode to run.

    Attributes:
        task: Task name; the supervisor may choose the one that undoes it.
        seed: Seed of the reset.
    """

    task: str
    seed: int


@dataclass(slots=True)
class Session:
    """Results of a run and the health of the graph while it lasted.

    Attributes:
        results: One per episode, in order.
        real_time_factors: Simulated over wall time, sampled while episodes ran.
        reference_rates_hz: Rate of the reference stream, sampled while episodes ran.
        tick_jitters_p99_ms: 99th percentile of the control tick's jitter, sampled likewise.
        failed_resets: Episodes that ended before they began, and were begun again.
    """

    results: list[EpisodeResult] = field(default_factory=list)
    real_time_factors: list[float] = field(default_factory=list)
    reference_rates_hz: list[float] = field(default_factory=list)
    tick_jitters_p99_ms: list[float] = field(default_factory=list)
    failed_resets: int = 0

    def summary(self) -> dict[str, Any]:
        """The JSON line: worst case of each health figure, success per task, bags."""
        return {
            "episodes": len(self.results),
            "success": success_rates(self.results),
            "real_time_factor": _worst(self.real_time_factors, min),
            "reference_rate_hz": _worst(self.reference_rates_hz, min),
            "tick_jitter_p99_ms": _worst(self.tick_jitters_p99_ms, max),
            "failed_resets": self.failed_resets,
            "bags": [result.bag for result in self.results if result.bag],
        }


def _worst(values: Sequence[float], pick: Callable[[Sequence[float]], float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return round(pick(finite), 3) if finite else None


def plan_episodes(tasks: Sequence[str], episodes: int, seed: int) -> list[EpisodePlan]:
    """`episodes` of each task in turn, with consecutive seeds."""
    return [
        EpisodePlan(task=task, seed=seed + index) for task in tasks for index in range(episodes)
    ]


def run_session(
    observer: GraphObserver,
    plans: Sequence[EpisodePlan],
    bags: Path | None,
    check: Callable[[], None],
    *,
    may_recover: bool,
) -> Session:
    """Run every planned episode with a progress bar on standard error.

    Args:
        observer: Joined to the graph.
        plans: What to run.
        bags: Where the recorder writes, None when nothing is recorded.
        check: Raises when the graph has died.
        may_recover: Whether a fault is cleared without asking; only a simulated arm may be moved
            after a reflex before somebody has looked at it.

    Raises:
        GraphTimeoutError: The graph did not come up, or an episode never ended.
        VlaRlError: A fault latched that an operator has to clear.
    """
    from tqdm import tqdm

    session = Session()
    wait_for_bringup(observer, check)
    with tqdm(plans, desc="episodes", unit="episode") as progress:
        for plan in progress:
            progress.set_postfix_str(f"{plan.task} seed {plan.seed}")
            play_episode(observer, plan, session, bags, check, may_recover=may_recover)
            done = sum(result.is_success for result in session.results)
            progress.set_postfix_str(f"{done}/{len(session.results)} successful")
    return session


def play_episode(
    observer: GraphObserver,
    plan: EpisodePlan,
    session: Session,
    bags: Path | None,
    check: Callable[[], None],
    *,
    may_recover: bool,
) -> None:
    """Run one episode on an idle cell, and add what happened to `session`; see `run_session`.

    An arm that the last episode left pressed against something may fault on its way home. An
    episode that did not begin says nothing about the policy: it is begun again, twice at most.
    """
    for _ in range(_MAX_STARTS):
        result = _run_episode(observer, plan, bags, check)
        if observer.episode is not None and observer.episode.phase is Phase.FAULT:
            _recover(observer, check, may_recover=may_recover)
        if result.has_begun or result.outcome != Outcome.FAULT.value:
            break
        session.failed_resets += 1
    session.results.append(result)
    _sample_health(observer, session)


def wait_for_bringup(observer: GraphObserver, check: Callable[[], None]) -> None:
    """Wait until the cell is idle.

    Args:
        observer: Joined to the graph.
        check: Raises when the graph has died.

    Raises:
        GraphTimeoutError: Nothing was heard for `BRINGUP_TIMEOUT_S`.
        VlaRlError: A node did not come up, with the reason.
    """

    def check_fault() -> None:
        check()
        state = observer.episode
        if state is not None and state.phase is Phase.FAULT:
            raise VlaRlError(f"{state.reason}; see the logs of the processes")

    _wait_for(observer, Phase.IDLE, BRINGUP_TIMEOUT_S, check_fault)


def _run_episode(
    observer: GraphObserver, plan: EpisodePlan, bags: Path | None, check: Callable[[], None]
) -> EpisodeResult:
    times_s: dict[Phase, float] = {}
    ended: list[EpisodeState] = []

    def note(state: EpisodeState) -> None:
        times_s.setdefault(state.phase, time.monotonic())
        if state.outcome is not None:
            ended.append(state)

    observer.set_parameters("supervisor", {"task": plan.task, "seed": plan.seed})
    stop_noting = observer.on_episode(note)
    try:
        observer.trigger("supervisor/start_episode")
        observer.wait_until(lambda: bool(ended), EPISODE_TIMEOUT_S, "the episode to end", check)
    finally:
        stop_noting()
    state = ended[0]
    if state.phase is not Phase.FAULT:
        _wait_for(observer, Phase.IDLE, EPISODE_TIMEOUT_S, check)
    outcome = state.outcome.value if state.outcome else ""
    running_s = times_s.get(Phase.RUNNING, math.nan)
    return EpisodeResult(
        episode_id=state.episode_id,
        task=state.task,
        seed=state.seed,
        outcome=outcome,
        duration_s=times_s.get(state.phase, math.nan) - running_s,
        bag=str(bags / state.episode_id) if bags else "",
        reset=state.reset.value if state.reset else "",
    )


def _recover(observer: GraphObserver, check: Callable[[], None], *, may_recover: bool) -> None:
    if not may_recover:
        reason = observer.episode.reason if observer.episode else ""
        raise VlaRlError(f"{reason}; free the arm, call supervisor/recover and start again")
    observer.trigger("supervisor/recover", timeout_s=RECOVER_TIMEOUT_S)
    _wait_for(observer, Phase.IDLE, EPISODE_TIMEOUT_S, check)


def _wait_for(
    observer: GraphObserver, phase: Phase, timeout_s: float, check: Callable[[], None]
) -> None:
    def is_there() -> bool:
        return observer.episode is not None and observer.episode.phase is phase

    def what() -> str:
        now = observer.episode.phase.value if observer.episode else "unknown"
        return f"phase '{phase.value}' (now '{now}'); see the logs of the processes"

    observer.wait_until(is_there, timeout_s, what, check)


def _sample_health(observer: GraphObserver, session: Session) -> None:
    session.real_time_factors.append(observer.number("sim_cell", "real_time_factor"))
    session.reference_rates_hz.append(observer.number("impedance_controller", "reference_rate_hz"))
    session.tick_jitters_p99_ms.append(observer.number("residual_actor", "tick_late_p99_ms"))
