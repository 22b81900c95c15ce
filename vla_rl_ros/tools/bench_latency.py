# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench latency`: what the runtime adds between a camera and the arm.

The whole graph runs, with the simulated cell's cameras and again with RealSense recordings played
through the SDK. For every chunk, the time from the exposure of the older of its images to the new
target of the arm is taken apart (`tools/latency_chain.py`):

- overhead: camera to delivered image, tick to its report by the gate, report to begin of the
  inference, end of the inference to delivered chunk, tick to target. It is what software can be
  blamed for.
- waiting: for the next control tick, twice. A faster clock shortens it, nothing else does.
- model: between begin and end of the inference.

An image is delivered when the middleware of a process on the same host has it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.graph_options import SIM_ADDRESS
from vla_rl_ros.tools.argument_types import count, positive
from vla_rl_ros.tools.up import default_out

if TYPE_CHECKING:
    from vla_rl_ros.tools.latency_run import SourceResult

SOURCES = ("sim", "realsense")
QUICK_DURATION_S = 8.0


def add_parser(benches: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add `latency` to the benches."""
    parser = benches.add_parser(
        "latency",
        help="what the runtime adds between camera and arm, and what messages cost",
        description="Run the whole graph with simulated and with played-back RealSense images and "
        "follow every chunk from the exposure of its images to the arm's target. Prints one JSON "
        "line last.",
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds each, under 60 s")
    parser.add_argument("--policy", default="pi0", help="policy that looks (default: pi0)")
    parser.add_argument("--path", default="", help="its weights, where not the shipped ones")
    parser.add_argument(
        "--duration-s", type=positive, default=60.0, help="execution per source (default: 60)"
    )
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=SOURCES,
        default=list(SOURCES),
        help="where images come from",
    )
    parser.add_argument(
        "--image-px", type=count, default=128, help="size of images (default: 128)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first reset (default: 0)")
    parser.add_argument("--robot-ip", default=SIM_ADDRESS, help="loopback address of the cell")
    parser.add_argument("--out", type=Path, help="where rows and figure go (default: out/<time>)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `bench latency`; returns the exit code."""
    from vla_rl_ros.ros.codec_costs import codec_costs
    from vla_rl_ros.tools.bench import write_rows
    from vla_rl_ros.tools.latency_plot import plot_latency
    from vla_rl_ros.tools.latency_run import LatencyPlan, measure

    out: Path = arguments.out or default_out("bench_latency")
    plan = LatencyPlan(
        policy=arguments.policy,
        path=arguments.path,
        duration_s=QUICK_DURATION_S if arguments.quick else arguments.duration_s,
        recording_s=2.0 if arguments.quick else 6.0,
        robot_ip=arguments.robot_ip,
        image_px=arguments.image_px,
        seed=arguments.seed,
    )
    _tell(f"logs, rows and figure in {out.resolve()}")
    results = {source: measure(source, plan, out / source) for source in arguments.sources}
    costs = codec_costs(plan.image_px, 16, 100 if arguments.quick else 1000)
    rows = [
        {"kind": "chain", "source": source, "overhead_ms": chain.overhead_ms, **asdict(chain)}
        for source, result in results.items()
        for chain in result.chains
    ]
    rows += [{"kind": "codec", **asdict(cost)} for cost in costs]
    figures: dict[str, Any] = {"policy": plan.policy, "cameras": len(CAMERAS), **_worst(results)}
    for source, result in results.items():
        figures[source] = _rounded(result.summary())
    figures["codecs"] = {cost.message: _rounded(asdict(cost), skip="message") for cost in costs}
    figures["rows"] = str(write_rows(rows, out / "latency.jsonl"))
    figures["figure"] = str(plot_latency(results, costs, out / "latency.png"))
    print(json.dumps(figures), flush=True)
    return 0


def _worst(results: dict[str, SourceResult]) -> dict[str, float]:
    """The keys that requirements speak of, of the worse source."""
    names = ["overhead_p50_ms", "overhead_p99_ms", "tick_jitter_p99_ms"]
    names += ["inference_p50_ms", "inference_p99_ms"]
    summaries = [result.summary() for result in results.values()]
    return {name: round(max(each[name] for each in summaries), 3) for name in names}


def _rounded(values: dict[str, Any], skip: str = "") -> dict[str, Any]:
    return {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in values.items()
        if key != skip
    }


def _tell(sentence: str) -> None:
    print(f"[bench] {sentence}", file=sys.stderr, flush=True)
