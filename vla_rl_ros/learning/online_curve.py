# SPDX-License-Identifier: Apache-2.0
"""Learning curve of a run beside a robot, from its log alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_WINDOW = 20


def plot_online(lines: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """Rolling unaided success of base and residual over executed ticks, and the bound.

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
        rolling = [
            100.0 * float(np.mean(done[max(0, end - _WINDOW) : end]))
            for end in range(1, len(done) + 1)
        ]
        success.plot([line["step"] for line in own], rolling, ".-", label=driver)
    success.set(ylabel=f"success of the last {_WINDOW} episodes [%]", ylim=(-2, 102))
    success.legend(loc="lower right")
    bound.plot([line["step"] for line in episodes], [line["xi"] for line in episodes])
    bound.set(ylabel="bound xi", xlabel="executed ticks", ylim=(0, None))
    for axis in (success, bound):
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return path
