# SPDX-License-Identifier: Apache-2.0
"""What online learning takes over from an earlier run: networks, scale of observations, rows.

Reads directories of `offline_run` and of `gym_loop` alike. Called by whoever has ``--init``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.gym_files import SNAPSHOT_FILE, RunFiles
from vla_rl_ros.learning.judge_names import JudgeNames
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.row_log import RowLog
from vla_rl_ros.learning.rows import RowArray, RowLayout

REPLAY_DIRECTORY = Path("replay")
ROWS_DIRECTORY = REPLAY_DIRECTORY / "offline"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunStart:
    """An earlier run.

    Attributes:
        path: Its directory.
        learner: `ResidualLearner.state_dict` of its end.
        rows: What it learned from offline.
        judges: Names of those who judged its episodes.
    """

    path: Path
    learner: dict[str, Any]
    rows: RowArray
    judges: tuple[str, ...] = ()

    def begin(self, learner: ResidualLearner) -> None:
        """Take its networks over; settings and random streams stay those of the new run.

        Raises:
            ConfigError: Networks of other sizes; names what differs.
        """
        try:
            learner.adopt(self.learner)
        except ConfigError as error:
            raise ConfigError(f"--init {self.path}: {error}") from error


def read_start(path: Path, layout: RowLayout) -> RunStart:
    """Read the end of an earlier run.

    Args:
        path: Its directory, ``--out`` of that time.
        layout: Of the new run; the rows must be of the same.

    Raises:
        ConfigError: No run there, or observations, actions or rewards that mean something else.
        ReplayError: Its rows are damaged, or the run is still going on.
    """
    if not (path / SNAPSHOT_FILE).is_file():
        raise ConfigError(f"--init {path}: no run to start from, {SNAPSHOT_FILE} is missing")
    # The lock on the rows says that nobody is learning there.
    log = RowLog(path / ROWS_DIRECTORY, layout)
    try:
        rows = log.rows.copy()
        values = RunFiles(path).read() or {}
        judges = tuple(JudgeNames(path / REPLAY_DIRECTORY))
    finally:
        log.close()
    return RunStart(path=path, learner=values["learner"], rows=rows, judges=judges)
