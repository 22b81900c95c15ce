# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench seams`: what each mode of execution makes of slow answers.

Every mode runs every task at every injected delay, on the same layouts and with the same delays,
in lock-step on the fast simulator (`tools/seam_cells.py`); a long run of the timing core alone is
added (`tools/soak.py`). What the figures mean is told in docs/explanation/seams.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.types import Mode
from vla_rl_ros.ros.share import known_tasks
from vla_rl_ros.tools.argument_types import count
from vla_rl_ros.tools.up import default_out

if TYPE_CHECKING:
    from vla_rl_ros.tools.seam_cells import Cell

Row = dict[str, Any]

MODES = tuple(mode.value for mode in Mode)
DELAYS_TICKS = (0, 1, 2, 4, 8)
TASKS = ("lift", "peg", "button")
QUICK_DELAYS_TICKS = (0, 2)
QUICK_TASKS = ("button",)
JUMPS = ("boundary_jump_ratio", "seam_step_ratio", "handover_jump_ratio")
SOAK_TICKS = 12_000
"""Ten minutes at 20 Hz."""
_WORKER_ENVIRONMENT = {
    "MUJOCO_GL": "egl",
    "LP_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def add_parser(benches: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    """Add `seams` to the benches."""
    parser = benches.add_parser(
        "seams",
        help="modes of asynchronous execution against the delay of answers",
        description="Run every mode of execution at every injected delay on every task, in "
        "lock-step on the fast simulator, and soak the timing core. Prints one JSON line last.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one task, one episode a cell, under 60 s"
    )
    parser.add_argument("--policy", default="pi0", help="whose chunks (default: pi0)")
    parser.add_argument("--path", default="", help="its weights, where not the shipped ones")
    parser.add_argument(
        "--horizon", type=count, default=16, help="elements of a chunk, where the policy leaves it"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: all")
    parser.add_argument(
        "--delays", nargs="+", type=_ticks, metavar="TICKS", help="default: 0 1 2 4 8"
    )
    parser.add_argument("--tasks", nargs="+", choices=known_tasks(), help="default: all three")
    parser.add_argument("--variant", default="default", help="named difficulty of the scene")
    parser.add_argument("--episodes", type=count, help="episodes a cell (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--jobs", type=count, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep rows of the same weights that --out has already, run the others",
    )
    parser.add_argument("--out", type=Path, help="where rows and figure go (default: out/<time>)")
    parser.set_defaults(run=run)


def _ticks(text: str) -> int:
    """A delay from the command line."""
    ticks = int(text)
    if ticks < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return ticks


def run(arguments: argparse.Namespace) -> int:
    """Run `bench seams`; returns the exit code."""
    # Read when the libraries are loaded, here and in the processes that compute the cells.
    for name, value in _WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vla_rl_ros.tools.bench import write_rows
    from vla_rl_ros.tools.seam_plot import plot_seams
    from vla_rl_ros.tools.soak import soak_summary

    out: Path = arguments.out or default_out("bench_seams")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "seams.jsonl"
    _tell(f"rows and figure in {out.resolve()}")
    done = read_rows(path) if arguments.resume else []
    cells = plan_cells(arguments)
    rows = run_cells(cells, done, path, arguments.jobs)
    soaks = run_soaks(arguments.seed, SOAK_TICKS // 10 if arguments.quick else SOAK_TICKS)
    write_rows([*rows, *soaks], path)
    figures = {
        **summarise(rows),
        "soak": soak_summary(soaks),
        "rows": str(path),
        "figure": str(plot_seams(rows, out / "seams.png")),
    }
    print(json.dumps(figures), flush=True)
    return 0


def plan_cells(arguments: argparse.Namespace) -> list[Cell]:
    """Every mode at every delay on every task that was asked for."""
    from vla_rl_ros.tools.seam_cells import Cell, weights_hash

    quick = arguments.quick
    delays = arguments.delays or (QUICK_DELAYS_TICKS if quick else DELAYS_TICKS)
    weights = weights_hash(arguments.policy, arguments.path)
    return [
        Cell(
            policy=arguments.policy,
            path=arguments.path,
            weights=weights,
            horizon=arguments.horizon,
            mode=mode,
            delay_ticks=delay,
            task=task,
            variant=arguments.variant,
            episodes=arguments.episodes or (1 if quick else 100),
            seed=arguments.seed,
        )
        for task in arguments.tasks or (QUICK_TASKS if quick else TASKS)
        for delay in delays
        for mode in arguments.modes or MODES
    ]


def run_cells(cells: Sequence[Cell], done: Sequence[Row], path: Path, jobs: int) -> list[Row]:
    """Compute the cells that no row is there for, each in one of `jobs` processes.

    Args:
        cells: All cells.
        done: Rows of an earlier run.
        path: File that gets every row as soon as it is there.
        jobs: Number of processes.

    Returns:
        Rows of all cells, in their order.
    """
    from tqdm import tqdm

    from vla_rl_ros.tools.seam_cells import key_of, run_cell

    order = [key_of(cell) for cell in cells]
    rows = [row for row in done if row_key(row, order[0]) in order]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    known = [row_key(row, order[0]) for row in rows]
    missing = [cell for cell, key in zip(cells, order, strict=True) if key not in known]
    with (
        tqdm(total=len(cells), initial=len(rows), desc="bench seams", unit="cell") as progress,
        path.open("a", encoding="utf-8", buffering=1) as file,
        closing(_computed(run_cell, missing, jobs)) as computed,
    ):
        for row in computed:
            rows.append(row)
            file.write(f"{json.dumps(row)}\n")
            progress.update()
            progress.set_postfix_str(f"{row['mode']} d={row['delay_ticks']} {row['task']}")
    return sorted(rows, key=lambda row: order.index(row_key(row, order[0])))


def _computed(
    compute: Callable[[Cell], Row], cells: Sequence[Cell], jobs: int
) -> Generator[Row, None, None]:
    """Rows as they come. Closing it ends the processes."""
    if not cells:
        return
    others = active_children()
    # Spawned, not forked: EGL and torch do not survive a fork.
    pool = ProcessPoolExecutor(
        min(jobs, len(cells)),
        mp_context=get_context("spawn"),
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )
    try:
        for future in as_completed([pool.submit(compute, cell) for cell in cells]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # A cell takes minutes, and whoever interrupts does not want to wait for it.
        for process in set(active_children()) - set(others):
            process.terminate()


def _begin_worker(owner_pid: int) -> None:
    from vla_rl_ros.tools.child import die_with_parent

    die_with_parent()
    if os.getppid() != owner_pid:
        # It was killed before it could take this process with it.
        os._exit(1)
    # Ctrl-C reaches the whole group; whoever waits for the results decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def row_key(row: Row, like: Row) -> Row:
    """The fields of a row that tell which cell it is of."""
    return {name: row.get(name) for name in like}


def read_rows(path: Path) -> list[Row]:
    """Rows of cells that an earlier run wrote; a half-written last line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] in ("cell", "skipped")]


def run_soaks(seed: int, num_ticks: int) -> list[Row]:
    """Soak the mode that promises and, to show what it spares the arm, the one without care."""
    from vla_rl_ros.tools.soak import LATENCIES_S, Soak, run_soak

    return [
        run_soak(Soak(mode=mode.value, latency_s=latency_s, num_ticks=num_ticks, seed=seed))
        for mode in (Mode.PREFIX_LOCK, Mode.NAIVE)
        for latency_s in LATENCIES_S
    ]


def summarise(rows: Sequence[Row]) -> Row:
    """Per mode and delay, over the tasks: mean success, worst jump, sums of mishaps."""
    ran = [row for row in rows if row["kind"] == "cell"]
    skipped = {row["mode"]: row["reason"] for row in rows if row["kind"] == "skipped"}
    summary: Row = {
        "policy": rows[0]["policy"],
        "episodes_per_cell": rows[0]["episodes"],
        "cells": len(ran),
        "success": _table(ran, "success", _mean),
    }
    for name in (*JUMPS, "prefix_mismatch"):
        summary[name] = _table(ran, name, max)
    for name in ("underflows", "late_chunks"):
        summary[name] = _table(ran, name, sum)
    summary["jerk_p95_m_per_s3"] = _table(ran, "jerk_p95_m_per_s3", _mean)
    summary["episode_s"] = _table(ran, "episode_s", _mean)
    return {**summary, "skipped": skipped}


def _table(rows: Sequence[Row], name: str, reduce: Callable[[list[float]], float]) -> Row:
    """Mode to delay to a figure over the tasks, None where no task has it."""
    table: Row = {}
    for mode in dict.fromkeys(row["mode"] for row in rows):
        mine = [row for row in rows if row["mode"] == mode]
        for delay in dict.fromkeys(row["delay_ticks"] for row in mine):
            values = [row[name] for row in mine if row["delay_ticks"] == delay]
            known = [value for value in values if value is not None]
            cell = round(reduce(known), 4) if known else None
            table.setdefault(mode, {})[str(delay)] = cell
    return table


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _tell(sentence: str) -> None:
    print(f"[bench] {sentence}", file=sys.stderr, flush=True)
