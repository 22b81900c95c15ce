# SPDX-License-Identifier: Apache-2.0
"""``judges.json`` beside the rows of a run: which judge of success each code in them stands for.

Called by the memory of a run before it stores rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.verdict import judge_code

FILE_NAME = "judges.json"
_OR = " or "


class JudgeNames:
    """Names by `core.verdict.judge_code`."""

    def __init__(self, directory: Path) -> None:
        """Read what is known there.

        Args:
            directory: Of the rows; need not exist before there is something to write.

        Raises:
            ConfigError: The file is damaged.
        """
        self._path = directory / FILE_NAME
        try:
            texts = json.loads(self._path.read_text(encoding="utf-8"))
            self._names = {int(code): str(name) for code, name in texts.items()}
        except FileNotFoundError:
            self._names = {}
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{self._path} does not name judges: {error}") from error

    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter(self._names.values())

    def name(self, code: int) -> str:
        """Who it is; empty where rows do not say so, as those of older versions."""
        return self._names.get(code, "")

    def note(self, *judges: str) -> None:
        """Learn names; they are on the disk when this returns.

        Of two that have the same code, one pair in 65 535, rows cannot tell which one it was; then
        its name says so, and nothing stops.
        """
        known = dict(self._names)
        for judge in filter(None, judges):
            code = judge_code(judge)
            names = self._names.get(code, judge).split(_OR)
            self._names[code] = _OR.join([*names, *([] if judge in names else [judge])])
        if self._names == known:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        texts = {str(code): name for code, name in sorted(self._names.items())}
        unfinished.write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self._path)
