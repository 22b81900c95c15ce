# SPDX-License-Identifier: Apache-2.0
"""Offline from recordings alone, then online: how far success dips, and beside it plain SAC.

    python bench/offline_metaworld.py --out out/offline --figure offline_to_online.png

push-v3 with the weak base of docs/explanation/residual-results.md. What is recorded is the first
part of an earlier run: 20 episodes of the base alone, 31 with slow noise around it, and 12 in
which a residual was learning. Then one is learned from the recorded rows without the environment,
by the offline preset and by plain SAC; then each goes on online, beside a SAC that begins with
nothing but the same recordings in its offline buffer. That page says what to install. A run that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_rl_ros.core.changes import changed
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.verdict import ENVIRONMENT
from vla_rl_ros.learning.fused_step import tune_cpu
from vla_rl_ros.learning.offline_run import OfflineSettings, OfflineTrainer
from vla_rl_ros.learning.presets import preset
from vla_rl_ros.learning.row_log import RowLog, read_layout

_DOOR = (
    "--gym", "metaworld:Meta-World/MT1", "--gym-arguments", '{"env_name": "push-v3"}',
    "--base", "vla_rl_ros.learning.base_policies:metaworld_push", "--max-ticks", "200",
)  # fmt: skip
_PRESET = "pld"
_COMMON = (
    "learner.hidden=128,128", "learner.batch_size=128", "learner.num_candidates=4",
    "learner.offline_actor=true", "learner.offline_target=policy_max", "learner.actor_lr=1e-4",
    "learner.critic_only_updates=0", "learner.warm_up_steps=0", "learner.conservative=always",
    "learner.conservative_weight=0.1",
)  # fmt: skip
_RECORDED_STEPS, _UPDATES, _ONLINE_STEPS, _EVAL_EVERY = 8_500, 4_000, 4_000, 1_000
_FROZEN = ("learner.critic_lr=0", "learner.actor_lr=0", "learner.temperature_lr=0")
# Everything but the conservative term and the form of the actor is as in the first arm.
_PLAIN = (
    "learner.conservative=never", "learner.algorithm=sac", "learner.residual_weight=0",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arm:
    """One line of the figure.

    Attributes:
        label: In the legend.
        changes: Of the settings.
        updates: Offline.
        frozen: Further changes of the offline settings.
    """

    label: str
    changes: tuple[str, ...] = ()
    updates: int = _UPDATES
    frozen: tuple[str, ...] = ()


ARMS = {
    "calql": Arm("Cal-QL offline, then online"),
    "sac": Arm("SAC offline, then online", _PLAIN),
    "untrained": Arm("SAC, untrained at the start", _PLAIN, updates=1, frozen=_FROZEN),
}


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=1, help="of everything but the recording")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--figure", type=Path, help="file of the figure")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not arguments.report:
        tune_cpu()
        _record(out / "recorded")
        for seed in range(arguments.seeds):
            for name in arguments.only:
                _play(out, name, seed)
    found = {
        (name, seed): _evaluations(out / f"{name}{seed}")
        for name in ARMS
        for seed in range(arguments.seeds)
        if (out / f"{name}{seed}" / "log.jsonl").exists()
    }
    print(_table(found))
    if arguments.figure is not None:
        _plot(found, arguments.figure)
    return 0


def _record(out: Path) -> None:
    """What an earlier run saw before it was good."""
    _command("--out", out, "--preset", "pld", "--steps", _RECORDED_STEPS, "--eval-episodes", 0)


def _play(out: Path, name: str, seed: int) -> None:
    """Learn from the recorded rows, then online."""
    arm, start = ARMS[name], out / f"offline_{name}{seed}"
    _learn_offline(out / "recorded" / "replay" / "online", start, arm, seed)
    _command(
        "--out", out / f"{name}{seed}", "--preset", _PRESET, "--init", start,
        "--steps", _ONLINE_STEPS, "--seed", seed, "--eval-every", _EVAL_EVERY,
        "--set", *_COMMON, "learner.base_episodes=0", *arm.changes,
    )  # fmt: skip


def _learn_offline(rows: Path, out: Path, arm: Arm, seed: int) -> None:
    layout = read_layout(rows)
    if layout is None:
        raise ConfigError(f"{rows} holds no rows")
    changes = (*_COMMON, *arm.changes, *arm.frozen)
    config = changed(preset(_PRESET), "learner", changes)
    settings = OfflineSettings(updates=arm.updates, seed=seed)
    trainer = OfflineTrainer(out, layout, (), config, settings)
    try:
        if not trainer.known_episodes:
            log = RowLog(rows, layout)
            trainer.add(log.rows.copy(), ENVIRONMENT)
            log.close()
        found = trainer.run(tell=lambda _done, _metrics: None)
        print(f"[bench] {arm.label}: {json.dumps(found)}", file=sys.stderr, flush=True)
    finally:
        trainer.close()


def _command(*words: object) -> None:
    """Run `train residual`; one that is finished returns at once."""
    command = [sys.executable, "-m", "vla_rl_ros.tools.cli", "train", "residual", *_DOOR]
    subprocess.run([*command, *map(str, words)], check=True, stdout=sys.stderr)


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """The base's evaluation first, then those of the residual in order."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    found = [line for line in lines if line["kind"] == "evaluation"]
    return sorted(found, key=lambda line: (line["policy"] != "base", line["step"]))


def _table(found: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    """Rows in Markdown; successes are of 50 held-out starts, in percent."""
    rows = [
        "| start | seed | base | offline | lowest online | at the end |",
        "|---|---|---|---|---|---|",
    ]
    for (name, seed), (base, *learned) in found.items():
        online = [line["success"] for line in learned[1:]]
        cells = [
            ARMS[name].label, str(seed), _percent(base), _percent(learned[0]),
            f"{100 * min(online):.0f}" if online else "", _percent(learned[-1]),
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _percent(line: dict[str, Any]) -> str:
    low, high = 100 * line["wilson_low"], 100 * line["wilson_high"]
    return f"{100 * line['success']:.0f} ({low:.0f}-{high:.0f})"


def _plot(found: dict[tuple[str, int], list[dict[str, Any]]], path: Path) -> None:
    """Held-out success over online steps; step 0 is what came out of the recordings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axis = figure.subplots()
    colours = dict(zip(ARMS, ("tab:blue", "tab:orange", "tab:red"), strict=True))
    for (name, seed), (base, *learned) in found.items():
        axis.plot(
            [line["step"] for line in learned],
            [100 * line["success"] for line in learned],
            "o-", markersize=3, color=colours[name],
            label=ARMS[name].label if seed == 0 else None,
        )  # fmt: skip
        if (name, seed) == next(iter(found)):
            level = 100 * base["success"]
            axis.axhline(level, color="tab:gray", label="base")
            axis.axhline(level - 10, color="tab:gray", linestyle=":", label="base - 10")
    axis.set(
        xlabel="online environment steps", ylabel="success on 50 held-out starts [%]",
        ylim=(-2, 102), title="push-v3: learned from recordings, then online",
    )  # fmt: skip
    axis.legend(fontsize=8, loc="lower right")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
