# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench`: measures the running system, writes rows and a figure, prints JSON last."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.ros.graph_options import SIM_ADDRESS, GraphOptions
from vla_rl_ros.tools import (
    bench_latency,
    bench_learner,
    bench_pair,
    bench_seams,
    bench_takeover,
)
from vla_rl_ros.tools.up import default_out

if TYPE_CHECKING:
    from vla_rl_ros.tools.bench_control import ControlBench

UNCLIPPED_M = 0.5
# The unclipped run pushes with hundreds of newtons; a reflex would hide how many.
NO_REFLEX = {"collision_force_n": 5000.0, "collision_torque_nm": 5000.0}


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add the sub-command."""
    parser = subparsers.add_parser("bench", help="measure the running system")
    benches = parser.add_subparsers(dest="bench", metavar="WHAT", required=True)
    control = benches.add_parser(
        "control",
        help="rates, step responses, contact force, reaction to silence",
        description="Run the whole graph on the simulated cell, drive the arm in place of the "
        "gate and measure. Prints one JSON line last.",
    )
    control.add_argument("--quick", action="store_true", help="fewer repetitions, under 60 s")
    control.add_argument("--out", type=Path, help="where rows and figure go (default: out/<time>)")
    control.add_argument(
        "--robot-ip", default=SIM_ADDRESS, help=f"loopback address (default: {SIM_ADDRESS})"
    )
    control.set_defaults(run=run_control)
    experts = benches.add_parser(
        "experts",
        help="scripted experts in the fast simulator",
        description="Run the scripted expert of each task in the in-process simulator, with and "
        "without a tick of delay. Prints one JSON line last.",
    )
    experts.add_argument("--quick", action="store_true", help="20 episodes instead of 100")
    experts.add_argument("--variant", default="default", help="named difficulty of the scene")
    experts.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    experts.add_argument("--out", type=Path, help="where rows and figure go (default: out/<time>)")
    experts.set_defaults(run=run_experts)
    bench_seams.add_parser(benches)
    bench_latency.add_parser(benches)
    bench_learner.add_parser(benches)
    bench_pair.add_parser(benches)
    bench_takeover.add_parser(benches)


def run_experts(arguments: argparse.Namespace) -> int:
    """Run `bench experts`; returns the exit code."""
    from vla_rl_ros.tools.bench_experts import measure
    from vla_rl_ros.tools.report import figure_axes, save_figure

    out: Path = arguments.out or default_out("bench_experts")
    episodes = 20 if arguments.quick else 100
    rows, figures = measure(arguments.variant, episodes, arguments.seed)
    figures["rows"] = str(write_rows([asdict(row) for row in rows], out / "experts.jsonl"))
    figure, (axis,) = figure_axes(1, f"bench experts, {arguments.variant}", height=3.0)
    bars = axis.bar(list(figures["success"]), list(figures["success"].values()))
    axis.bar_label(bars)
    axis.set(ylabel=f"successes of {episodes}", ylim=(0, 1.15 * episodes))
    figures["figure"] = str(save_figure(figure, out / "experts.png"))
    print(json.dumps(figures), flush=True)
    return 0


def run_control(arguments: argparse.Namespace) -> int:
    """Run `bench control`; returns the exit code."""
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.sim.scene_channel import SOCKET_NAME, SceneClient
    from vla_rl_ros.tools.bench_control import ControlBench
    from vla_rl_ros.tools.graph import run_graph
    from vla_rl_ros.tools.session import wait_for_bringup

    out: Path = arguments.out or default_out("bench_control")
    options = GraphOptions(
        out=out,
        robot_ip=arguments.robot_ip,
        overrides={"proprio_driver": NO_REFLEX, "impedance_controller": {"max_force_n": 3000.0}},
        remappings={"intervention": (("arm/target_pose", "bench/unused_target_pose"),)},
    )
    _tell(f"logs, rows and figure in {out.resolve()}")
    with (
        run_graph(options) as graph,
        GraphObserver() as observer,
        SceneClient(graph.run_dir / SOCKET_NAME) as scene,
    ):
        wait_for_bringup(observer, graph.check)
        trials = 5 if arguments.quick else 20
        bench = ControlBench(observer=observer, scene=scene, trials=trials)
        figures = _measure(bench, stream_s=4.0 if arguments.quick else 20.0)
        figures["real_time_factor"] = observer.number("sim_cell", "real_time_factor")
    figures = {key: _rounded(value) for key, value in figures.items()}
    figures["rows"] = str(write_rows(bench.rows, out / "control.jsonl"))
    figures["figure"] = str(plot_control(bench.rows, figures, out / "control.png"))
    print(json.dumps(figures), flush=True)
    return 0


def _measure(bench: ControlBench, stream_s: float) -> dict[str, Any]:
    from tqdm import tqdm

    from vla_rl_ros.tools.bench_control import CONTROLLER, measure

    with tqdm(total=2, desc="bench control", unit="part") as progress:
        figures = measure(bench, stream_s)
        progress.update()
        free = [UNCLIPPED_M] * 3
        bench.observer.set_parameters(CONTROLLER, {"clip_plus_m": free, "clip_minus_m": free})
        unclipped = bench.wall("wall_unclipped")
        progress.update()
    figures["wall_force_unclipped_steady_n"] = unclipped["steady_n"]
    figures["wall_force_unclipped_peak_n"] = unclipped["peak_n"]
    return figures


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON values
    return round(value, 3) if isinstance(value, float) else value


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write raw rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def plot_control(rows: Sequence[dict[str, Any]], figures: dict[str, Any], path: Path) -> Path:
    """Step responses, wall force with its bound, and the silence trials."""
    from vla_rl_ros.tools.report import figure_axes, save_figure

    figure, (steps, wall, silence) = figure_axes(3, "bench control", sharex=False)
    for kind in ("step_10mm", "step_50mm"):
        mine = [row for row in rows if row["kind"] == kind]
        steps.plot([r["time_s"] for r in mine], [1e3 * r["moved_m"] for r in mine], label=kind)
    steps.set(xlabel="time [s]", ylabel="moved [mm]")
    for kind in ("wall_clipped", "wall_unclipped"):
        mine = [row for row in rows if row["kind"] == kind]
        wall.plot([r["time_s"] for r in mine], [r["force_n"] for r in mine], label=kind)
    bound_n = figures["force_bound_n"]
    wall.axhline(bound_n, color="tab:red", linestyle="--", label=f"bound {bound_n:.0f} N")
    wall.set(xlabel="time [s]", ylabel="force [N]", yscale="symlog")
    trials = [row for row in rows if row["kind"] == "silence"]
    for key in ("hold_ms", "stop_ms"):
        silence.plot(np.arange(len(trials)), [row[key] for row in trials], "o", label=key)
    silence.set(xlabel="trial", ylabel="after last target [ms]", ylim=(0, None))
    for axis in (steps, wall, silence):
        axis.legend(loc="best")
        axis.grid(alpha=0.3)
    return save_figure(figure, path)


def _tell(sentence: str) -> None:
    print(f"[bench] {sentence}", file=sys.stderr, flush=True)
