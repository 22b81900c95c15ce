# SPDX-License-Identifier: Apache-2.0
"""What `reward_cell.py` found out, as the tables of docs/explanation/reward-results.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the classifier decided an episode, and what was true.

    Attributes:
        variant: Of the scene.
        kind: Of the episode.
        seed: Of it.
        said: Whether the classifier ended it as a success.
        is_true: Whether it was one when it ended.
        ever_true: Whether it ever was for 0.2 s.
        ticks: How long it took.
        late_s: From the first moment of a success to the verdict, None where there was none.
        wrong_frames: Frames judged wrongly, of all, also those at the edge of success.
        frames: Of the episode.
        false_frames: Frames of failure that were taken for success.
    """

    variant: str
    kind: str
    seed: int
    said: bool
    is_true: bool
    ever_true: bool
    ticks: int
    late_s: float | None
    wrong_frames: int
    frames: int
    false_frames: int

    @property
    def agrees(self) -> bool:
        """Whether verdict and truth are the same."""
        return self.is_true if self.said else not self.ever_true

    @property
    def is_failure(self) -> bool:
        """Whether it was none: never for 0.2 s, and not when the verdict cut it short either."""
        return not self.ever_true and not (self.said and self.is_true)


def read_verdicts(path: Path) -> list[Verdict]:
    """Episodes decided so far."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Verdict(**{"variant": "default", **json.loads(line)}) for line in lines]


def report(out: Path, tasks: Sequence[str]) -> str:
    """The tables of docs/explanation/reward-results.md, of what is there so far."""
    rows = [
        "| task | trained on (success + other) | held-out frames | accuracy | recall "
        "| taken for success: staged failures | policy | inference p50, p99 (of the processor) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    verdicts = [
        "| task | policy episodes | agree | late, median | failed episodes | false successes "
        "| frames judged rightly | failures taken for success |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        final, timing = out / task / "5_final.json", out / task / "7_time.json"
        if final.exists():
            rows.append(_accuracy_row(task, json.loads(final.read_text()), timing))
        found = read_verdicts(out / task / "6_verdicts.jsonl")
        if found:
            verdicts.append(_verdict_row(task, found))
    return "\n".join([*rows, "", *verdicts])


def _accuracy_row(task: str, figures: dict[str, Any], timing: Path) -> str:
    held = figures["held_out"]
    kinds = dict(held["false_positives_by_kind"])
    own, own_total = kinds.pop("policy", (0, 0))
    passed, total = (sum(column) for column in zip(*kinds.values(), strict=True))
    times = json.loads(timing.read_text()) if timing.exists() else {}
    return (
        f"| {task} | {figures['positives']} + {figures['negatives']}, {figures['episodes']} "
        f"episodes | {held['frames']} of {held['episodes']} episodes | {held['accuracy']:.2%} | "
        f"{held['recall']:.2%} | {passed} of {total} | {own} of {own_total} | "
        f"{times.get('p50_ms', '')}, {times.get('p99_ms', '')} ms "
        f"({times.get('p50_cpu_ms', '')}, {times.get('p99_cpu_ms', '')}) |"
    )


def _verdict_row(task: str, found: list[Verdict]) -> str:
    policy = [v for v in found if v.kind == "policy"]
    failed = [v for v in found if v.is_failure]
    frames = sum(v.frames for v in found)
    wrong = sum(v.wrong_frames for v in found)
    late = [v.late_s for v in policy if v.late_s is not None]
    return (
        f"| {task} | {len(policy)} | {sum(v.agrees for v in policy)} | "
        f"{float(np.median(late)) if late else 0.0:.1f} s | "
        f"{len(failed)} | {sum(v.said for v in failed)} | "
        f"{1.0 - wrong / frames:.2%} of {frames} | {sum(v.false_frames for v in found)} |"
    )
