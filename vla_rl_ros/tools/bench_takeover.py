# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench takeover`: how fast and how smoothly an operator gets the arm.

The whole graph runs with a policy, cameras and a recorder, and a simulated SpaceMouse below the
real driver. Four measurements:

- response: from a HID report to the first target of the arm that obeys it.
- jump: way of the arm's reference beyond what was commanded, in the period after a takeover, after
  letting go, and after the policy's first action.
- presses: of the gripper's button that reach the gripper's target and the rows.
- unplug: from pulling the plug while it is pushed to the reference at rest.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_rl_ros.ros.graph_options import SIM_ADDRESS, GraphOptions
from vla_rl_ros.sim.hid_mouse import MODELS
from vla_rl_ros.tools.stand_in import DEFAULT_MODEL
from vla_rl_ros.tools.takeover_run import measure
from vla_rl_ros.tools.up import default_out


def add_parser(benches: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add `takeover` to the benches."""
    parser = benches.add_parser(
        "takeover",
        help="how fast and how smoothly an operator gets the arm",
        description="Run the whole graph, drive it by the reports of a simulated SpaceMouse and "
        "measure response, jumps, presses and unplugging. Prints one JSON line last.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, about a minute")
    parser.add_argument("--policy", default="pi0", help="who drives otherwise (default: pi0)")
    parser.add_argument("--takeovers", type=int, help="takeovers (default: 60, quick: 15)")
    parser.add_argument("--presses", type=int, help="presses (default: 500, quick: 60)")
    parser.add_argument("--unplugs", type=int, help="times to unplug (default: 20, quick: 5)")
    parser.add_argument("--model", choices=tuple(MODELS), default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0, help="of pushes and resets (default: 0)")
    parser.add_argument("--no-record", action="store_true", help="run without the recorder")
    parser.add_argument("--robot-ip", default=SIM_ADDRESS, help="loopback address of the cell")
    parser.add_argument("--out", type=Path, help="where logs and rows go (default: out/<time>)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `bench takeover`; returns the exit code."""
    from vla_rl_ros.tools.bench import write_rows

    out: Path = arguments.out or default_out("bench_takeover")
    quick = arguments.quick
    options = GraphOptions(
        robot_ip=arguments.robot_ip,
        tasks=("peg",),
        policy=arguments.policy,
        operator="spacemouse",
        operator_mode="assist",
        seed=arguments.seed,
        record=not arguments.no_record,
        out=out,
        # Nothing that happens to the peg ends an episode.
        overrides={"supervisor": {"outcome_source": "operator"}},
    )
    counts = (
        _given(arguments.takeovers, 15 if quick else 60),
        _given(arguments.presses, 60 if quick else 500),
        _given(arguments.unplugs, 5 if quick else 20),
    )
    found = measure(options, counts, arguments.model, arguments.seed)
    rows: list[dict[str, Any]] = [
        {"kind": name, "jump_mm": 1e3 * jump.distance_m, **asdict(jump)}
        for name, jumps in found.jumps.items()
        for jump in jumps
    ]
    for kind in ("response_ms", "takeover_ms", "unplug_ms"):
        rows += [{"kind": kind, "ms": value} for value in getattr(found, kind)]
    figures = {"policy": arguments.policy, "model": arguments.model, **found.figures()}
    figures["rows"] = str(write_rows(rows, out / "takeover.jsonl"))
    print(json.dumps(figures), flush=True)
    return 0


def _given(count: int | None, default: int) -> int:
    return default if count is None else count
