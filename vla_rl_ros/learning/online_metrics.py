# SPDX-License-Identifier: Apache-2.0
"""What can be watched of a run beside a robot; called by `online_run`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.schedule import Driver

_NUM_PROBES = 64


def run_metrics(
    state: OnlineState, driver: Driver, updates: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """Named numbers; those that nobody knows yet are left out.

    Args:
        state: Of the run.
        driver: Who is to drive.
        updates: Metrics of the latest updates, by name.
    """
    progress, schedule = state.progress, state.schedule
    found: dict[str, float] = {
        "updates": state.learner.num_updates,
        "rows": state.online.num_rows,
        "offline_rows": state.offline.num_rows,
        "episodes": progress.episodes,
        "ticks": progress.ticks,
        "utd": progress.online_updates / max(1, progress.online_ticks),
        "intervention_rate": progress.human_ticks / max(1, progress.ticks),
        "success.all": progress.successes / max(1, progress.episodes),
        "success.base": schedule.success(Driver.BASE),
        "success.residual": schedule.success(Driver.RESIDUAL),
        "success.best": schedule.best_success,
        "xi": state.learner.xi,
        "is_residual_driving": driver is Driver.RESIDUAL,
        "fall_backs": schedule.num_fall_backs,
        **_probe(state),
        **{f"update.{name}": float(np.mean(values)) for name, values in updates.items()},
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _probe(state: OnlineState) -> dict[str, float]:
    """Values of the first transitions, which never change: there an exploding critic shows."""
    if not state.learner.num_updates or len(state.online) < _NUM_PROBES:
        return {}
    rows = state.online.gather(np.arange(_NUM_PROBES))
    values = state.learner.q(rows["obs"], rows["action"])
    return {
        "probe_q.mean": float(values.mean()),
        "probe_q.min": float(values.min()),
        "probe_q.max": float(values.max()),
        "probe_q.spread": float(values.std(axis=0).mean()),
    }
