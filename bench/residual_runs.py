# SPDX-License-Identifier: Apache-2.0
"""What the benches of the residual share: running a command, reading what a run noted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def command(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command of the package; returns its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "vla_rl_ros.tools.cli", *arguments],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def evaluations(out: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The base's evaluation, and those of the residual in order."""
    text = (out / name / "log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    found = [line for line in lines if line["kind"] == "evaluation"]
    base = next(line for line in found if line["policy"] == "base")
    return base, [line for line in found if line["policy"] == "residual"]


def with_interval(line: dict[str, Any]) -> str:
    """Success of an evaluation in percent, with Wilson's interval."""
    low, high = 100 * line["wilson_low"], 100 * line["wilson_high"]
    return f"{100 * line['success']:.0f} ({low:.0f}-{high:.0f})"
