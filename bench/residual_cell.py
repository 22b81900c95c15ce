# SPDX-License-Identifier: Apache-2.0
"""Repeat the tables and the figure of docs/explanation/residual-cell.md.

    python bench/residual_cell.py --out out/cell [--only friction0 friction1 ...] [--report]

Every run is one `train residual` on the fast simulator and one `eval residual` each of the base
and of what the run left, on 100 starts that are never trained on. A run that was stopped goes on
where it was, a finished one is not repeated. `--report` makes tables and figure of what is there.
Needs an image of the cell: set MUJOCO_GL=egl where there is no display.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual_runs import command, evaluations, with_interval

_EVAL_EVERY, _EVAL_EPISODES, _GOAL = 4_000, 40, 0.95
_FINAL_EPISODES = 100
_TRANSLATION_ONLY = "learner.xi_parts=1,1,1,0,0,0,0"
_TILTING = "learner.xi_parts=1,1,1,0.4,0.4,0,0"
_SLOW_AVERAGE = "learner.acting_tau=0.0005"
_RAMP = (
    "learner.xi=0.25", "schedule.rule=ramp", "schedule.xi_start=0.05",
    "schedule.ramp_episodes=40", "schedule.return_p=0.002",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A task with a base that is weak on it.

    Attributes:
        task: Of the cell.
        variant: Of the scene.
        stop_at: Gradient steps of the base, of 6000 in its first phase; 0 for the shipped one.
        eyes: Options of `train eyes` where the residual sees by eyes that are trained on
            demonstrations of the case first; None for the base's own tower.
        steps: Of the simulator.
        execute_ticks: From one inference to the next, 0 for the policy's pace.
        final_start: First of the starts that neither an evaluation by the way nor anybody who
            chose a setting has seen.
        settings: Of the learner, beside those that all share.
    """

    task: str
    variant: str
    stop_at: int = 0
    eyes: tuple[str, ...] | None = None
    steps: int = 20_000
    execute_ticks: int = 4
    final_start: int = 1_000
    settings: tuple[str, ...] = (_TRANSLATION_ONLY,)

    def door(self, out: Path) -> list[str]:
        """Options that training and evaluation share."""
        base = ["--base-checkpoint", str(_base(out, self.stop_at))] if self.stop_at else []
        eyes = [] if self.eyes is None else ["--eyes", str(_eyes(out, self))]
        return [
            "--task", self.task, "--variant", self.variant, *base, *eyes,
            "--execute-ticks", str(self.execute_ticks),
        ]  # fmt: skip


CASES = {
    # Too easy for what ships.
    "friction": Case("peg", "peg_friction_tight", stop_at=6000),
    # Pressed so hard the peg turns in the hand: without tilting even the best has 18 of 20, and
    # the tower of the base hardly sees where its tip is.
    "hard": Case(
        "peg",
        "peg_hard",
        eyes=(
            "--episodes",
            "900",
            "--frames",
            "72000",
            "--steps",
            "3000",
            "--threads",
            "2",
        ),
        steps=36_000,
        execute_ticks=0,
        # How residuals failed on starts 1000 to 1099 has shaped its eyes; settings were compared
        # on 2000 to 2099, and policies on 3000 to 6099.
        final_start=8_000,
        # A peg that is stuck until its time is up is worth nothing. A discount of 0.99 would pay
        # half a second as much as one peg in twenty that does not get stuck.
        settings=(
            _TILTING,
            _SLOW_AVERAGE,
            "learner.offline_part=0.1",
            "learner.timeout_ends=true",
            "learner.clip_target=true",
            "learner.gamma=0.997",
        ),
    ),
    # So early a tower does not know where the cube is.
    "lift": Case(
        "lift",
        "default",
        stop_at=1300,
        eyes=("--episodes", "450", "--frames", "24000", "--steps", "2500"),
        steps=36_000,
        execute_ticks=0,
        # How a residual failed on starts 1000 to 1099 has shaped its eyes.
        final_start=2_000,
        settings=(_TRANSLATION_ONLY, _SLOW_AVERAGE),
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the table.

    Attributes:
        case: Of `CASES`.
        seed: Of the run.
        label: What is different.
        settings: Of the learner and its schedule.
    """

    case: str
    seed: int
    label: str = "ours"
    settings: tuple[str, ...] = ()


RUNS = {
    **{
        f"{name}{seed}": Run(name, seed, settings=(*case.settings, *_RAMP))
        for name, case in CASES.items()
        for seed in range(3)
    },
    "all_channels": Run("friction", 0, "rotations, too, at once", ("learner.xi=0.25",)),
    "at_once": Run(
        "friction", 0, "preset as it is, translations only", ("learner.xi=0.25", _TRANSLATION_ONLY)
    ),
}


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not arguments.report:
        for name in arguments.only:
            _play(name, out)
    found = {name: _figures(out, name) for name in RUNS if (out / f"{name}.json").exists()}
    print(_table(found))
    if arguments.figure is not None:
        _plot(found, out, arguments.figure)
    return 0


def _base(out: Path, stop_at: int) -> Path:
    return out / f"base{stop_at}" / "checkpoint"


def _eyes(out: Path, case: Case) -> Path:
    return out / f"eyes_{case.task}_{case.variant}"


def _play(name: str, out: Path) -> None:
    """Train and evaluate, unless that is done."""
    result = out / f"{name}.json"
    if result.exists():
        return
    run, directory = RUNS[name], out / name
    case = CASES[run.case]
    print(f"[bench] {name}: {run.label}", file=sys.stderr, flush=True)
    if case.stop_at and not _base(out, case.stop_at).exists():
        command(
            ["train", "base", "--out", str(_base(out, case.stop_at).parent), "--seed", "0",
             "--episodes", "300", "--steps", "6000", "--relays", "0",
             "--stop-at", str(case.stop_at)]
        )  # fmt: skip
    if case.eyes is not None and not (_eyes(out, case) / "eyes.json").exists():
        command(
            ["train", "eyes", "--simulate", case.task, "--variant", case.variant,
             "--out", str(_eyes(out, case)), *case.eyes]
        )  # fmt: skip
    door = case.door(out)
    trained = command(
        ["train", "residual", *door, "--out", str(directory), "--seed", str(run.seed),
         "--steps", str(case.steps), "--eval-every", str(_EVAL_EVERY),
         "--eval-episodes", str(_EVAL_EPISODES), "--compiled", "--set", *run.settings]
    )  # fmt: skip
    evaluated = {
        policy: command(
            ["eval", "residual", *door, "--policy", policy, "--out", str(directory),
             "--episodes", str(_FINAL_EPISODES), "--seed", str(case.final_start)]
        )
        for policy in ("base", "residual")
    }  # fmt: skip
    found = {"train": trained, **evaluated, "settings": [*door, *run.settings]}
    result.write_text(json.dumps(found), encoding="utf-8")


def _figures(out: Path, name: str) -> dict[str, Any]:
    """What a row of the table says."""
    result: dict[str, Any] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    base, learned = evaluations(out, name)
    reached = [line["step"] for line in learned if line["success"] >= _GOAL]
    lowest = min(line["success"] for line in learned) - base["success"]
    return {**result, "lowest": lowest, "reached": reached[0] if reached else None}


def _table(found: dict[str, dict[str, Any]]) -> str:
    """Rows in Markdown."""
    rows = [
        f"| run | | base, {_FINAL_EPISODES} starts | kept policy, {_FINAL_EPISODES} starts | mean "
        "ticks | lowest on the way | 95 % at step | falls back | returns | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        train, base, kept = row["train"], row["base"], row["residual"]
        cells = [
            name, RUNS[name].label, with_interval(base),
            f"{with_interval(kept)}{' (base)' if kept.get('driver') == 'base' else ''}",
            f"{base['mean_steps']:.0f} to {kept['mean_steps']:.0f}",
            f"base {100 * row['lowest']:+.0f}", str(row["reached"] or "never"),
            str(train["fall_backs"]), str(train["returns"]), f"{train['wall_s'] / 60:.0f}",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _plot(found: dict[str, dict[str, Any]], out: Path, path: Path) -> None:
    """Held-out success over steps, a panel for each case that was run."""
    from matplotlib.figure import Figure

    cases = [case for case in CASES if any(RUNS[name].case == case for name in found)]
    figure = Figure(figsize=(4 * len(cases), 4))
    panels = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for axis, case in zip(panels, cases, strict=True):
        for name in (name for name in found if RUNS[name].case == case):
            base, learned = evaluations(out, name)
            run = RUNS[name]
            axis.plot(
                [line["step"] for line in learned],
                [100 * line["success"] for line in learned],
                "o-" if run.label == "ours" else "x:", markersize=3, linewidth=1,
                label=f"seed {run.seed}" if run.label == "ours" else run.label,
            )  # fmt: skip
        level = 100 * base["success"]
        axis.axhline(level, color="tab:gray", label="base")
        axis.axhline(level - 10, color="tab:gray", linestyle=":", label="base - 10")
        where = f"{CASES[case].task}, {CASES[case].variant}"
        axis.set(title=where, xlabel="simulated ticks", ylim=(-2, 102))
        axis.locator_params(axis="x", nbins=5)
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    panels[0].set_ylabel(f"success on {_EVAL_EPISODES} held-out starts [%]")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
