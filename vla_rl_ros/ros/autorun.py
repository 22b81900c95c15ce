# SPDX-License-Identifier: Apache-2.0
"""How many episodes were begun without being asked; outlives a supervisor that is killed."""

from __future__ import annotations

import os
from pathlib import Path

from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE

FILE_NAME = "autorun.count"


class AutorunLedger:
    """A count in the run directory of the launcher.

    A supervisor that is started again must not begin the whole series anew. Without a launcher
    there is no run directory and nobody who starts it again; then the count lives in memory.
    """

    def __init__(self, run_dir: str | None = None) -> None:
        """Read what an earlier supervisor of this launch left.

        Args:
            run_dir: Directory of the launcher, from the environment when None.
        """
        folder = os.environ.get(RUN_DIR_VARIABLE, "") if run_dir is None else run_dir
        self._path = Path(folder) / FILE_NAME if folder else None
        has_file = self._path is not None and self._path.is_file()
        self.num_begun = int(self._path.read_text()) if self._path and has_file else 0

    def begin(self) -> None:
        """Count one more; written down before the episode begins."""
        self.num_begun += 1
        if self._path is not None:
            self._path.write_text(str(self.num_begun), encoding="ascii")
