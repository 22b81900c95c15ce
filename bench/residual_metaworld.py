# SPDX-License-Identifier: Apache-2.0
"""Repeat the tables and the figure of docs/explanation/residual-results.md.

    python bench/residual_metaworld.py --out out/metaworld [--only push0 peg0 ...] [--report]

What to install is said there. Every run is one
`train residual` and one `eval residual` of what it left; a run that was stopped goes on where it
was, a finished one is not repeated. `--report` makes tables and figure of what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual_runs import command, evaluations, with_interval

_ENVIRONMENTS = {"push": "push-v3", "peg": "peg-insert-side-v3"}
_TASK_OPTIONS = {
    "push": (),
    # Hundred ticks to success, and a grasp that cannot be undone by the bound: values have to come
    # from afar, and a peg that is stuck must not be worth anything.
    "peg": (
        "learner.xi=0.25", "learner.num_critics=10", "learner.n_step=10",
        "learner.timeout_ends=true", "learner.clip_target=true", "learner.acting_tau=0.0005",
    ),
}  # fmt: skip
_EVAL_EVERY, _GOAL = 2_000, 0.95


@dataclass(frozen=True, slots=True)
class Run:
    """One row of a table.

    Attributes:
        task: Of `_ENVIRONMENTS`.
        seed: Of the run.
        label: What is different.
        options: Further options of `train residual`.
        steps: Of the environment.
    """

    task: str
    seed: int
    label: str = "ours"
    options: tuple[str, ...] = ()
    steps: int = 20_000

    @property
    def door(self) -> list[str]:
        """Options that training and evaluation share."""
        arguments = json.dumps({"env_name": _ENVIRONMENTS[self.task]})
        base = f"vla_rl_ros.learning.base_policies:metaworld_{self.task}"
        return [
            "--gym", "metaworld:Meta-World/MT1", "--gym-arguments", arguments, "--base", base,
            "--max-ticks", "200",
        ]  # fmt: skip

    def training(self, out: Path) -> list[str]:
        """Command of the training."""
        changes = [*_TASK_OPTIONS[self.task], *self.options]
        preset = [part for part in changes if part.startswith("--preset=")]
        settings = [part for part in changes if part not in preset]
        return [
            "train", "residual", *self.door, "--out", str(out), "--seed", str(self.seed),
            "--steps", str(self.steps), "--eval-every", str(_EVAL_EVERY), "--compiled", *preset,
            *(["--set", *settings] if settings else []),
        ]  # fmt: skip


def _ablation(label: str, *options: str) -> Run:
    return Run("push", 0, label, options, steps=14_000)


_SMALL = (
    "learner.num_critics=2", "learner.hidden=128,128", "learner.batch_size=128",
    "learner.actor_every=2",
)  # fmt: skip
RUNS = {
    **{f"{task}{seed}": Run(task, seed) for task in _ENVIRONMENTS for seed in range(3)},
    "no_warm_up": _ablation("no warm-up", "learner.warm_up_steps=0"),
    "no_offline": _ablation("no offline data", "learner.offline_part=0"),
    "no_critic_phase": _ablation("no critic-only updates", "learner.critic_only_updates=0"),
    "no_weight": _ablation("no weight on the residual", "learner.residual_weight=0"),
    "xi_1": _ablation("xi 1.0", "learner.xi=1"),
    "xi_03": _ablation("xi 0.03", "learner.xi=0.03"),
    "one_step": _ablation("1-step returns", "learner.n_step=1"),
    "ramp": _ablation(
        "xi ramped from 0.04 to 0.4 in 60 episodes", "learner.xi=0.4", "schedule.rule=ramp",
        "schedule.xi_start=0.04", "schedule.ramp_episodes=60",
    ),
    "rlpd": _ablation(
        "RLPD from scratch, two critics, two updates per step", "--preset=rlpd", *_SMALL,
        "learner.from_scratch=true", "learner.xi=1", "learner.utd=2",
    ),
    "wsrl": _ablation(
        "WSRL, two critics, one update per step, 3000 offline updates", "--preset=wsrl", *_SMALL,
        "learner.utd=1", "learner.offline_updates=3000", "learner.num_candidates=4",
    ),
}  # fmt: skip
"""The tables; small networks everywhere, because what is compared is the method."""


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    arguments = parser.parse_args()
    if not arguments.report:
        for name in arguments.only:
            _play(name, arguments.out)
    found = {
        name: _figures(arguments.out, name)
        for name in RUNS
        if (arguments.out / f"{name}.json").exists()
    }
    print(_table([name for name in found if RUNS[name].label == "ours"], found))
    print(_table([name for name in found if RUNS[name].task == "push"], found))
    if arguments.figure is not None:
        _plot(found, arguments.out, arguments.figure)
    return 0


def _play(name: str, out: Path) -> None:
    """Train and evaluate, unless that is done."""
    result = out / f"{name}.json"
    if result.exists():
        return
    run, directory = RUNS[name], out / name
    print(f"[bench] {name}: {run.label}", file=sys.stderr, flush=True)
    trained = command(run.training(directory))
    evaluated = command(
        ["eval", "residual", *run.door, "--policy", "residual", "--out", str(directory)]
    )
    result.write_text(json.dumps({"train": trained, "eval": evaluated}), encoding="utf-8")


def _figures(out: Path, name: str) -> dict[str, Any]:
    """What a row of a table says."""
    result = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    base, learned = evaluations(out, name)
    reached = [line["step"] for line in learned if line["success"] >= _GOAL]
    return {
        "base": base,
        "last": learned[-1],
        "lowest": min(line["success"] for line in learned) - base["success"],
        "reached": reached[0] if reached else None,
        "kept": result["eval"],
        "train": result["train"],
    }


def _table(names: Sequence[str], found: dict[str, dict[str, Any]]) -> str:
    """Rows in Markdown; all successes are of 50 held-out starts, in percent."""
    rows = [
        "| run | | base | at the end | lowest on the way | 95 % at step | policy kept "
        "| falls back | returns | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        row, train = found[name], found[name]["train"]
        kept = row["kept"].get("driver", "residual")
        cells = [
            name, RUNS[name].label, with_interval(row["base"]), with_interval(row["last"]),
            f"base {100 * row['lowest']:+.0f}", str(row["reached"] or "never"),
            f"{with_interval(row['kept'])}{'' if kept == 'residual' else ' (base)'}",
            str(train["fall_backs"]), str(train["returns"]), f"{train['wall_s'] / 60:.0f}",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _plot(found: dict[str, dict[str, Any]], out: Path, path: Path) -> None:
    """Held-out success over steps: both tasks, and what each part of the recipe does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4))
    axes = figure.subplots(1, 3, sharey=True)
    panels = [
        (axis, task, [n for n in found if RUNS[n].task == task and RUNS[n].label == "ours"])
        for axis, task in zip(axes, _ENVIRONMENTS, strict=False)
    ]
    panels.append((axes[2], "push", [n for n in found if RUNS[n].label != "ours"]))
    for axis, task, names in panels:
        for name in names:
            _, learned = evaluations(out, name)
            run = RUNS[name]
            axis.plot(
                [line["step"] for line in learned],
                [100 * line["success"] for line in learned],
                "o-", markersize=3, linewidth=1,
                label=f"seed {run.seed}" if run.label == "ours" else run.label.split(",")[0],
            )  # fmt: skip
        if names:
            base = 100 * found[names[0]]["base"]["success"]
            axis.axhline(base, color="tab:gray", label="base")
            axis.axhline(base - 10, color="tab:gray", linestyle=":", label="base - 10")
        axis.set(title=_ENVIRONMENTS[task], xlabel="environment steps", ylim=(-2, 102))
        axis.legend(fontsize=7, loc="lower right")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("success on 50 held-out starts [%]")
    axes[2].set_title("push-v3, parts changed (seed 0)")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
