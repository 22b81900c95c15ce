# SPDX-License-Identifier: Apache-2.0
"""How long a classifier should be asked: verdicts of several debouncings on the same episodes.

    MUJOCO_GL=egl python bench/reward_debounce.py --classifier out/reward/peg/final --out out/d

Plays episodes that no classifier ends, keeps what the classifier says in every tick, and decides
afterwards as node and supervisor would. Goes on where it was stopped. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.success import Debounce, violated_check
from vla_rl_ros.core.verdict import SuccessHold

if TYPE_CHECKING:
    from vla_rl_ros.core.types import FloatArray, ImageArray
    from vla_rl_ros.learning.classifier_episodes import EpisodeMaker
    from vla_rl_ros.learning.classifier_model import SuccessModel

PERIOD_S = 0.1
HELD_TICKS = 3
AFTER_TICKS = 14
DEBOUNCINGS = ((3, 4, 0.2), (3, 4, 0.3), (3, 4, 0.4), (5, 6, 0.2), (3, 4, 0.8))
"""Frames needed, of so many, and seconds of the supervisor's hold."""


def main() -> int:
    """Play what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="peg_friction_tight")
    parser.add_argument("--seed", type=int, default=90_000)
    parser.add_argument("--episodes", type=int, default=40, help="of the policy, as many staged")
    parser.add_argument("--threshold", type=float, help="in place of the classifier's own")
    arguments = parser.parse_args()
    from vla_rl_ros.learning.classifier_model import SuccessModel

    model = SuccessModel(arguments.classifier)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{model.manifest.model_hash[:12]}_{arguments.variant}.jsonl"
    play(model, arguments.variant, arguments.seed, arguments.episodes, path)
    threshold = model.manifest.threshold if arguments.threshold is None else arguments.threshold
    print(table([json.loads(line) for line in path.read_text().splitlines()], threshold))
    return 0


def play(model: SuccessModel, variant: str, seed: int, count: int, path: Path) -> None:
    """Keep probability and truth of every tick, one line per episode."""
    from vla_rl_ros.learning.classifier_episodes import POLICY, EpisodeMaker
    from vla_rl_ros.learning.classifier_staging import STAGED
    from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
    from vla_rl_ros.sim.scene_ids import CAMERAS
    from vla_rl_ros.sim.tasks import task_by_name

    task = task_by_name(model.manifest.task)
    cases = [(POLICY, seed + number) for number in range(count)]
    cases += [(STAGED[task][n % len(STAGED[task])], seed + n) for n in range(count)]
    lines = path.read_text().splitlines() if path.exists() else []
    known = {(row["kind"], row["seed"]) for row in map(json.loads, lines)}
    maker = EpisodeMaker(task, None, variant)
    maker.policy = make_policy(
        "pi0",
        PolicySettings(device="cpu"),
        PolicyEnvironment(control_period_s=maker.sim.spec.control_period_s, cameras=CAMERAS),
    )
    with path.open("a", encoding="utf-8") as file:
        for kind, number in cases:
            if (kind, number) not in known:
                row = watched(maker, model, kind, number)
                print(json.dumps({"kind": kind, "seed": number, **row}), file=file, flush=True)
    maker.close()


def watched(maker: EpisodeMaker, model: SuccessModel, kind: str, seed: int) -> dict[str, Any]:
    """One episode, which ends when success has lasted longer than any debouncing asks."""
    from vla_rl_ros.data.label_frames import STATE_NAMES

    probabilities: list[float] = []
    lasted = 0

    def watch(images: Mapping[str, ImageArray], state: FloatArray) -> bool:
        nonlocal lasted
        measured = dict(zip(STATE_NAMES, state.tolist(), strict=True))
        is_kept = violated_check(model.manifest.checks, measured) is None
        probabilities.append(model.probability(images) if is_kept else 0.0)
        lasted = lasted + 1 if maker.sim.is_success() else 0
        return lasted >= AFTER_TICKS

    truth = maker.play(kind, seed, watch).truth
    assert truth is not None
    # A staged episode that succeeded by chance was staged again: the last time counts.
    return {"p": np.round(probabilities[-len(truth) :], 4).tolist(), "truth": truth.tolist()}


def table(rows: list[dict[str, Any]], threshold: float) -> str:
    """One line per debouncing."""
    lines = [
        "| debouncing, hold | agree | false successes | late, median |",
        "|---|---|---|---|",
    ]
    for needed, window, hold_s in DEBOUNCINGS:
        agree, failed, false, late = 0, 0, 0, []
        for row in rows:
            truth = np.array(row["truth"])
            ended = verdict_tick(np.array(row["p"]) >= threshold, needed, window, hold_s)
            seen = truth if ended is None else truth[: ended + 1]
            was_true = bool((np.convolve(seen, np.ones(HELD_TICKS), "valid") > 2.5).any())
            failed += not was_true
            if ended is None:
                agree += not was_true
                continue
            agree += bool(truth[ended])
            false += not was_true
            if truth[ended]:
                late.append(PERIOD_S * (ended - int(truth.argmax())))
        median = f"{np.median(late):.1f} s" if late else ""
        lines.append(
            f"| {needed} of {window}, {hold_s:g} s | {agree} of {len(rows)} "
            f"| {false} of {failed} | {median} |"
        )
    return "\n".join(lines)


def verdict_tick(said: np.ndarray, needed: int, window: int, hold_s: float) -> int | None:
    """When node and supervisor would have ended the episode, None for never."""
    debounce, hold = Debounce(needed, window), SuccessHold(hold_s)
    for tick, is_success in enumerate(said.tolist()):
        hold.update(debounce.update(is_success), PERIOD_S * tick)
        if hold.is_held:
            return tick
    return None


if __name__ == "__main__":
    sys.exit(main())
