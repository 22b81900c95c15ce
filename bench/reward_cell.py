# SPDX-License-Identifier: Apache-2.0
"""Repeat the tables of docs/explanation/reward-results.md about the success classifier.

    MUJOCO_GL=egl python bench/reward_cell.py --out out/reward [--only lift peg button] [--report]

Per task: label episodes of the fast simulator (at most 200 frames of success, 1,000 others),
train, label more of them with the frames first that this classifier gets wrong, train again,
measure on held-out episodes, then let the classifier decide 100 episodes of the policy and 100
failures as the supervisor would. Every step is a command of the product or goes on where it was
stopped; finished ones are not repeated. Results of another protocol are refused.
`--report` prints the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from reward_judge import MIN_HOLD_S, Judge
from reward_tables import Verdict, read_verdicts, report

if TYPE_CHECKING:
    from vla_rl_ros.learning.classifier_episodes import EpisodeMaker
    from vla_rl_ros.learning.classifier_model import SuccessModel

TASKS = ("lift", "peg", "button")
PROTOCOL = 2
"""Of the steps in `run_task`; whoever changes what they do counts it up."""
PROTOCOL_FILE = "protocol.json"
TRAINING_SEED, HARD_SEED = 0, 1_000
HELD_OUT_SEED = {"lift": 72_000, "peg": 76_000, "button": 72_000}
VERDICT_SEED = {"lift": 82_000, "peg": 92_000, "button": 82_000}
"""Those of the peg are newer: with the older ones earlier classifiers had been looked into."""
MEMBERS = {"lift": 1, "peg": 3, "button": 1}
"""Of the last classifier; the first only says which frames are hard."""
NUM_VERDICTS = 100
CHECKS = {
    # How high is not for a camera to say.
    "lift": ("--check", "tcp.z_m", 0.09, 1.0, "--check", "gripper.width_m", 0.03, 0.05),
}
VARIANTS = {"peg": ("default", "peg_friction_tight")}
"""Held by friction the peg slides up in the hand: another picture of failure, and half of the
policy's episodes fail there."""


def main() -> int:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--steps", type=int, default=800, help="of the last training")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    tasks = [] if arguments.report else arguments.only
    # Before the first one takes its time.
    for task in tasks:
        check_protocol(task, arguments.out / task, arguments.steps)
    for task in tasks:
        note_protocol(task, arguments.out / task, arguments.steps)
        run_task(task, arguments.out / task, arguments.steps)
    print(report(arguments.out, TASKS))
    return 0


def protocol(task: str, steps: int) -> dict[str, Any]:
    """What results of a task depend on; those of another protocol are not to be mixed in."""
    return {
        "protocol": PROTOCOL,
        "steps": steps,
        "training_seed": TRAINING_SEED,
        "hard_seed": HARD_SEED,
        "held_out_seed": HELD_OUT_SEED[task],
        "verdict_seed": VERDICT_SEED[task],
        "verdicts": NUM_VERDICTS,
        "members": MEMBERS[task],
        "variants": list(VARIANTS.get(task, ("default",))),
        "checks": list(map(str, CHECKS.get(task, ()))),
        "hold_s": MIN_HOLD_S,
    }


def check_protocol(task: str, out: Path, steps: int) -> None:
    """Refuse to go on with results that came about in another way.

    Raises:
        SystemExit: There are such.
    """
    path, wanted = out / PROTOCOL_FILE, protocol(task, steps)
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise SystemExit(
                f"{out} holds results without {PROTOCOL_FILE}, of an older protocol: give another "
                "--out, or --report to print them"
            )
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    names = sorted({*found, *wanted})
    other = [name for name in names if found.get(name) != wanted.get(name)]
    if other:
        told = ", ".join(f"{name}={found.get(name)} not {wanted.get(name)}" for name in other)
        raise SystemExit(f"{out} holds results of another protocol ({told}): give another --out")


def note_protocol(task: str, out: Path, steps: int) -> None:
    """Say beside the results of a task how they come about."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(protocol(task, steps), indent=1) + "\n"
    (out / PROTOCOL_FILE).write_text(text, encoding="utf-8")


def run_task(task: str, out: Path, steps: int) -> None:
    """Everything about one task."""
    labels, first, final, held = (out / name for name in ("labels", "first", "final", "held_out"))
    variants = VARIANTS.get(task, ("default",))

    def collect(number: int, into: Path, policy: int, staged: int, *more: object) -> None:
        """Label so many episodes, in equal parts of all variants."""
        each = ("--episodes", policy // len(variants), "--staged", staged // len(variants))
        for name in variants:
            suffix = "" if name == "default" else f"_{name}"
            step(
                out / f"{number}_labels{suffix}.json",
                ["label", "--simulate", task, "--variant", name, "--from-truth", "--out", into,
                 *each, *more],
            )  # fmt: skip

    few = ("--positives", 2, "--negatives", 3)
    limits = ("--most-positives", 200, "--most-negatives", 1000)
    collect(1, labels, 40, 40, "--seed", TRAINING_SEED, *few, *limits)
    step(
        out / "2_first.json",
        ["train", "classifier", "--labels", labels, "--out", first, "--steps", 300],
    )
    collect(3, labels, 100, 150, "--seed", HARD_SEED, *few, *limits, "--hard-first", first)
    collect(
        4, held, 60, 60, "--seed", HELD_OUT_SEED[task], "--positives", 6, "--negatives", 12,
        "--most-positives", 1000, "--most-negatives", 10000,
    )  # fmt: skip
    step(
        out / "5_final.json",
        ["train", "classifier", "--labels", labels, "--out", final, "--held-out", held,
         "--steps", steps, "--max-fpr", 0.01, "--set", "classifier.test_part=0.0",
         f"classifier.members={MEMBERS[task]}",
         *CHECKS.get(task, ())],
    )  # fmt: skip
    decide(task, final, out / "6_verdicts.jsonl")
    measure_time(final, held, out / "7_time.json")


def step(result: Path, command: list[object]) -> None:
    """Run a command of the product once; its last line is kept."""
    if result.exists():
        return
    words = [sys.executable, "-m", "vla_rl_ros.tools.cli", *map(str, command)]
    print("[bench]", *words[2:], file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(done.stdout.splitlines()[-1] + "\n", encoding="utf-8")


def decide(task_name: str, classifier: Path, path: Path) -> None:
    """100 episodes of the policy and 100 failures, ended by the classifier alone."""
    from vla_rl_ros.learning.classifier_episodes import POLICY, EpisodeMaker
    from vla_rl_ros.learning.classifier_model import SuccessModel
    from vla_rl_ros.learning.classifier_staging import STAGED
    from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
    from vla_rl_ros.sim.scene_ids import CAMERAS
    from vla_rl_ros.sim.tasks import task_by_name

    known = {(verdict.variant, verdict.kind, verdict.seed) for verdict in read_verdicts(path)}
    kinds = STAGED[task_by_name(task_name)]
    variants = VARIANTS.get(task_name, ("default",))
    model = SuccessModel(classifier)
    for variant in variants:
        numbers = range(NUM_VERDICTS // len(variants))
        first = VERDICT_SEED[task_name]
        cases = [(POLICY, first + number) for number in numbers]
        cases += [(kinds[n % len(kinds)], first + n) for n in numbers]
        left = [case for case in cases if (variant, *case) not in known]
        if not left:
            continue
        maker = EpisodeMaker(task_by_name(task_name), None, variant)
        period_s = maker.sim.spec.control_period_s
        maker.policy = make_policy(
            "pi0",
            PolicySettings(device="cpu"),
            PolicyEnvironment(control_period_s=period_s, cameras=CAMERAS),
        )
        with path.open("a", encoding="utf-8") as file:
            for number, (kind, seed) in enumerate(left):
                verdict = one_verdict(maker, model, variant, kind, seed)
                file.write(json.dumps(asdict(verdict)) + "\n")
                file.flush()
                told = f"{number + 1} of {len(left)}: {verdict}"
                print(f"[bench] {told}", file=sys.stderr, flush=True)
        maker.close()


def one_verdict(
    maker: EpisodeMaker, model: SuccessModel, variant: str, kind: str, seed: int
) -> Verdict:
    """One episode, looked at every tick, decided as node and supervisor decide."""
    judge = Judge(maker, model)
    frames = maker.play(kind, seed, judge)
    truth, judged = frames.truth, np.array(judge.said)
    runs = np.convolve(truth, np.ones(3), "valid") if len(truth) >= 3 else np.zeros(1)
    first = int(truth.argmax()) if truth.any() else None
    return Verdict(
        variant=variant,
        kind=kind,
        seed=seed,
        said=judge.has_ended,
        is_true=bool(truth[-1]),
        ever_true=bool((runs > 2.5).any()),
        ticks=len(judged),
        late_s=None if first is None or not judge.has_ended else 0.1 * (len(judged) - 1 - first),
        wrong_frames=int((judged != truth).sum()),
        frames=len(judged),
        false_frames=int((judged & ~truth).sum()),
    )


def measure_time(classifier: Path, held_out: Path, path: Path) -> None:
    """Inference on one core, one frame of every camera at a time."""
    if path.exists():
        return
    from vla_rl_ros.data.label_set import LabelSet
    from vla_rl_ros.learning.classifier_model import SuccessModel

    model, frames = SuccessModel(classifier), LabelSet(held_out).load()
    times_ms = []  # by the clock, and of the processor: on a busy machine they differ
    for number in range(600):
        images = {name: stack[number % len(frames)] for name, stack in frames.images.items()}
        begin_s = np.array([time.perf_counter(), time.process_time()])
        model.probability(images)
        times_ms.append(1e3 * (np.array([time.perf_counter(), time.process_time()]) - begin_s))
    (p50, p50_cpu), (p99, p99_cpu) = np.quantile(times_ms[20:], [0.5, 0.99], axis=0).round(2)
    figures = {"p50_ms": p50, "p99_ms": p99, "p50_cpu_ms": p50_cpu, "p99_cpu_ms": p99_cpu}
    path.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    sys.exit(main())
