# SPDX-License-Identifier: Apache-2.0
"""``human_time.jsonl`` beside a label set: how long people worked on it, one line per session.

Mostly no graph runs while somebody labels, so no ledger hears of it. Called by `vla-rl-ros label`,
which writes, and by `vla-rl-ros bag human`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError

FILE_NAME = "human_time.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTime:
    """One session.

    Attributes:
        who: Name of the person.
        begin: When it began, UTC, ISO 8601.
        labelling_s: How long he worked.
        ledger_s: How much of that the ledger of a running graph heard of.
    """

    who: str
    begin: str
    labelling_s: float
    ledger_s: float


def note(directory: Path, time: LabelTime) -> None:
    """Add a session to what is noted of a label set."""
    with (directory / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(time)) + "\n")


def noted(directory: Path) -> list[LabelTime]:
    """Sessions of a label set; none where nobody has looked at it.

    Raises:
        ConfigError: A line is damaged; names it.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_session(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _session(line: str, where: str) -> LabelTime:
    try:
        time = LabelTime(**json.loads(line))
        datetime.fromisoformat(time.begin)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} is no session of labelling") from error
    return time
