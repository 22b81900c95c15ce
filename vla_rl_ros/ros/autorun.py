# SPDX-License-Identifier: Apache-2.0
"""How many episodes were begun without being asked; outlives a supervisor that is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE

FILE_NAME = "autorun.count"


class AutorunLedger:
    """A count in the run directory of the launcher.

    A supervisor that is started again must not begin the whole series anew. Without a launcher
    there is no run directory and nobody who starts it again; then the count lives in memory.
    It does so as well while the disk is full: counting stops no episode.

    Attributes:
        num_begun: Episodes begun so far.
    """

    def __init__(self, warn: Callable[[str], object], run_dir: str | None = None) -> None:
        """Read what an earlier supervisor of this launch left.

        Args:
            warn: Told in a sentence what is wrong with the file.
            run_dir: Directory of the launcher, from the environment when None.
        """
        folder = os.environ.get(RUN_DIR_VARIABLE, "") if run_dir is None else run_dir
        self._path = Path(folder) / FILE_NAME if folder else None
        self._warn = warn
        self.num_begun = self._read()

    def begin(self) -> None:
        """Count one more; written down, whole or not at all, before the episode begins."""
        self.num_begun += 1
        if self._path is None:
            return
        half_done = self._path.with_suffix(".new")
        try:
            half_done.write_text(str(self.num_begun), encoding="ascii")
            half_done.replace(self._path)
        except OSError as error:
            self._warn(
                f"the number of episodes begun, {self.num_begun}, is not written down ({error}); "
                "a supervisor that is started again would begin some of them anew"
            )

    def _read(self) -> int:
        if self._path is None:
            return 0
        try:
            return int(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            self._warn(f"{self._path} cannot be read ({error}); episodes are counted from zero")
            return 0
