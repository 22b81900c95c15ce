# SPDX-License-Identifier: Apache-2.0
"""Learning curve of a run of `gym_loop`, from its log alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plot_curve(lines: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """Success on held-out starts with 95 % intervals, success in training, bound and values.

    Args:
        lines: Of the log.
        path: Of the figure.
        title: Above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    success, bound, values = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1.5))
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    episodes = [line for line in lines if line["kind"] == "episode"]
    last = max([line["step"] for line in lines], default=1)
    for line in evaluations:
        if line["policy"] == "base":
            percent = [100.0 * line[key] for key in ("wilson_low", "wilson_high")]
            success.axhspan(*percent, color="tab:gray", alpha=0.2)
            success.hlines(100.0 * line["success"], 0, last, color="tab:gray", label="base")
    learned = [line for line in evaluations if line["policy"] == "residual"]
    if learned:
        steps = [line["step"] for line in learned]
        success.plot(
            steps, [100.0 * line["success"] for line in learned], "o-", label="base + residual"
        )
        success.fill_between(
            steps,
            [100.0 * line["wilson_low"] for line in learned],
            [100.0 * line["wilson_high"] for line in learned],
            alpha=0.2,
        )
    online = [line for line in episodes if line["phase"] == "online"]
    steps = [line["step"] for line in online]
    # None right after the schedule began to count anew.
    rolling = [
        np.nan if line["rolling_success"] is None else 100.0 * line["rolling_success"]
        for line in online
    ]
    success.plot(steps, rolling, color="tab:orange", linewidth=0.8, label="training, rolling")
    success.set(ylabel="success [%]", ylim=(-2, 102))
    success.legend(loc="lower right")
    bound.plot(steps, [line["xi"] for line in online], color="tab:green")
    bound.set(ylabel="bound xi", ylim=(0, None))
    for name in ("probe_q", "probe_q_spread"):
        values.plot(steps, [line.get(name) for line in online], label=name.replace("_", " "))
    values.set(ylabel="values of fixed rows", xlabel="environment steps, base included")
    values.legend(loc="upper left")
    for axis in (success, bound, values):
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return path
