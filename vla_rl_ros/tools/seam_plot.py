# SPDX-License-Identifier: Apache-2.0
"""The figure of `bench seams`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
# Side by side, so that the bars of equal rates can be told apart.
_SPREAD_TICKS = 0.08


def plot_seams(rows: Sequence[Row], path: Path) -> Path:
    """Success against delay for every task, and what the arm feels at the seams."""
    from vla_rl_ros.tools.report import figure_axes, save_figure

    ran = [row for row in rows if row["kind"] == "cell"]
    tasks = list(dict.fromkeys(row["task"] for row in ran))
    modes = list(dict.fromkeys(row["mode"] for row in ran))
    figure, axes = figure_axes(len(tasks) + 2, "bench seams", sharex=True)
    *successes, jumps, steps = axes
    for task, axis in zip(tasks, successes, strict=True):
        mine = [row for row in ran if row["task"] == task]
        for number, mode in enumerate(modes):
            _plot_success(axis, [row for row in mine if row["mode"] == mode], number)
        axis.set(ylabel=f"success, {task}", ylim=(-0.05, 1.05))
    for name, axis in (("boundary_jump_ratio", jumps), ("seam_step_ratio", steps)):
        for number, mode in enumerate(modes):
            _plot_worst(axis, [row for row in ran if row["mode"] == mode], name, number)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set(ylabel=name.replace("_", " "), yscale="log")
    axes[-1].set_xlabel("injected delay [ticks]")
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(modes))
    for axis in axes:
        axis.grid(alpha=0.3)
    return save_figure(figure, path)


def _plot_success(axis: Axes, rows: Sequence[Row], number: int) -> None:
    delays = [row["delay_ticks"] + _SPREAD_TICKS * number for row in rows]
    rates = [row["success"] for row in rows]
    below = [max(0.0, row["success"] - row["success_low"]) for row in rows]
    above = [max(0.0, row["success_high"] - row["success"]) for row in rows]
    if rows:
        axis.errorbar(
            delays,
            rates,
            yerr=[below, above],
            label=rows[0]["mode"],
            color=f"C{number}",
            capsize=2,
        )


def _plot_worst(axis: Axes, rows: Sequence[Row], name: str, number: int) -> None:
    worst: dict[int, float] = {}
    for row in rows:
        if row[name]:
            worst[row["delay_ticks"]] = max(row[name], worst.get(row["delay_ticks"], 0.0))
    axis.plot(list(worst), list(worst.values()), "o-", color=f"C{number}", markersize=3)
