# SPDX-License-Identifier: Apache-2.0
"""Plots of recorded episodes: target against measured pose, wrench with its bound, success."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from vla_rl_ros.core.impedance import PRESETS
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.data.bag_reader import read_poses, read_wrenches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode ended.

    Attributes:
        episode_id: Name of the episode and of its bag.
        task: Task name.
        seed: Seed of the reset.
        outcome: Value of `core.episode.Outcome`.
        duration_s: Time in the running phase, not a number where it never came to it.
        bag: Directory of the recording, empty when nothing was recorded.
        reset: Who reset the scene for it, a value of `core.episode.ResetKind`.
    """

    episode_id: str
    task: str
    seed: int
    outcome: str
    duration_s: float
    bag: str = ""
    reset: str = ""

    @property
    def has_begun(self) -> bool:
        """Whether anything ran."""
        return not math.isnan(self.duration_s)

    @property
    def is_success(self) -> bool:
        """Whether the task was done."""
        return self.outcome == "success"


def success_rates(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """Fraction of successful episodes per task, in order of first appearance."""
    rates: dict[str, float] = {}
    for task in dict.fromkeys(result.task for result in results):
        mine = [result.is_success for result in results if result.task == task]
        rates[task] = sum(mine) / len(mine)
    return rates


def write_report(
    results: Sequence[EpisodeResult], directory: Path, summary: Mapping[str, Any]
) -> Path:
    """Write figures and `report.md` for a session.

    Args:
        results: The episodes, in order.
        directory: Where to write; created when missing.
        summary: Numbers of the whole session, printed as a table.

    Returns:
        Path of `report.md`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures = [plot_success(results, directory / "success.png")]
    shown: set[str] = set()
    for result in results:
        if result.bag and result.task not in shown:
            shown.add(result.task)
            figures.append(plot_tracking(result, directory / f"tracking_{result.task}.png"))
            figures.append(plot_wrench(result, directory / f"wrench_{result.task}.png"))
    report = directory / "report.md"
    report.write_text(_markdown(results, figures, summary), encoding="utf-8")
    return report


def _markdown(
    results: Sequence[EpisodeResult], figures: Sequence[Path], summary: Mapping[str, Any]
) -> str:
    lines = ["# Session report", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in summary.items() if key != "bags"]
    lines += ["", "| episode | task | seed | outcome | s |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.episode_id} | {r.task} | {r.seed} | {r.outcome} | {r.duration_s:.1f} |"
        for r in results
    ]
    lines += ["", *(f"![{figure.stem}]({figure.name})\n" for figure in figures)]
    return "\n".join(lines)


def figure_axes(
    rows: int, title: str, height: float = 2.2, *, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """A column of axes on a figure that needs no display."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, 1, sharex=sharex, figsize=(9, 1 + height * rows), squeeze=False
    )
    figure.suptitle(title)
    return figure, list(axes[:, 0])


def save_figure(figure: Figure, path: Path) -> Path:
    """Write and close a figure; returns its path."""
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def plot_success(results: Sequence[EpisodeResult], path: Path) -> Path:
    """Bar of the success rate per task with the number of episodes."""
    rates = success_rates(results)
    figure, (axis,) = figure_axes(1, "Success per task", height=3.0)
    bars = axis.bar(list(rates), list(rates.values()), color="tab:green")
    counts = [sum(r.task == task for r in results) for task in rates]
    axis.bar_label(
        bars, [f"{rate:.0%} of {n}" for rate, n in zip(rates.values(), counts, strict=True)]
    )
    axis.set_ylim(0.0, 1.15)
    axis.set_ylabel("success rate")
    return save_figure(figure, path)


def plot_tracking(result: EpisodeResult, path: Path) -> Path:
    """Target, reference and measured TCP position of one episode."""
    figure, axes = figure_axes(3, f"{result.episode_id}: target, reference and measured position")
    bag = Path(result.bag)
    styles: dict[str, dict[str, Any]] = {
        "arm/target_pose": {
            "color": "tab:orange",
            "marker": ".",
            "linestyle": "",
            "label": "target",
        },
        "arm/reference_pose": {"color": "tab:blue", "linewidth": 1.0, "label": "reference"},
        "arm/tcp_pose": {"color": "black", "linewidth": 1.0, "label": "measured"},
    }
    start_ns = None
    for topic, style in styles.items():
        stamps_ns, poses = read_poses(bag, topic)
        if not len(stamps_ns):
            continue
        start_ns = stamps_ns[0] if start_ns is None else start_ns
        for index, axis in enumerate(axes):
            axis.plot((stamps_ns - start_ns) * 1e-9, poses[:, index], **style)
    for name, axis in zip(AXES, axes, strict=True):
        axis.set_ylabel(f"{name} [m]")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper right", ncols=3)
    axes[-1].set_xlabel("time [s]")
    return save_figure(figure, path)


def plot_wrench(result: EpisodeResult, path: Path, preset: str = "compliant") -> Path:
    """External force of one episode with the bound stiffness x clip of a preset."""
    bound_n = PRESETS[preset].force_bound_n
    stamps_ns, wrenches = read_wrenches(Path(result.bag), "arm/tcp_wrench")
    figure, axes = figure_axes(
        3, f"{result.episode_id}: force on the environment, bound {bound_n:.0f} N"
    )
    time_s = relative_time_s(stamps_ns)
    for index, (name, axis) in enumerate(zip(AXES, axes, strict=True)):
        axis.plot(time_s, wrenches[:, index], color="black", linewidth=1.0)
        for sign in (-1.0, 1.0):
            axis.axhline(sign * bound_n, color="tab:red", linestyle="--", linewidth=1.0)
        axis.set_ylabel(f"F{name} [N]")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("time [s]")
    return save_figure(figure, path)


def relative_time_s(stamps_ns: ArrayLike) -> FloatArray:
    """Seconds since the first stamp, shape (n,)."""
    stamps = np.asarray(stamps_ns, dtype=np.int64)
    first = stamps[0] if stamps.size else 0
    return np.asarray((stamps - first) * 1e-9, dtype=np.float64)
