# SPDX-License-Identifier: Apache-2.0
"""Learning curve of a run beside a robot, from its log alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_WINDOW = 20


def plot_online(lines: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """Rolling unaided success of base and residual, and how much a human drove; the bound.

    Args:
        lines: Of the log.
        path: Of the figure.
        title: Above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6))
    success, bound = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    episodes = [line for line in lines if line["kind"] == "episode"]
    for driver in ("base", "residual"):
        own = [line for line in episodes if line["driver"] == driver]
        done = [line["success"] and not line["human_ticks"] for line in own]
        success.plot([line["step"] for line in own], _rolling(done), ".-", label=driver)
    if any(line["human_ticks"] for line in episodes):
        steps = [line["step"] for line in episodes]
        helped = _rolling([line["success"] for line in episodes])
        success.plot(steps, helped, "k:", label="with human help")
        human = _rolling(
            [line["human_ticks"] for line in episodes], [e["ticks"] for e in episodes]
        )
        success.plot(steps, human, "r-", lw=0.8, label="ticks of the human")
    success.set(ylabel=f"the last {_WINDOW} episodes [%]", ylim=(-2, 102))
    success.legend(loc="center right")
    bound.plot([line["step"] for line in episodes], [line["xi"] for line in episodes])
    bound.set(ylabel="bound xi", xlabel="executed ticks", ylim=(0, None))
    for axis in (success, bound):
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return path


def _rolling(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Percentage over the latest episodes; with weights, of the sum of theirs."""
    total = np.cumsum([0.0, *values])
    parts = np.cumsum([0.0, *(weights or [1.0] * len(values))])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - _WINDOW)
    share: list[float] = (
        100.0 * (total[ends] - total[begins]) / (parts[ends] - parts[begins])
    ).tolist()
    return share
