# SPDX-License-Identifier: Apache-2.0
"""Episodes of success in the directory of an earlier run, for rewards learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.row_log import RowLog, read_layout
from vla_rl_ros.learning.rows import END, TERMINATED, RowArray
from vla_rl_ros.learning.run_start import REPLAY_DIRECTORY


def stored_successes(run: Path, obs_dim: int, obs_version: str) -> list[RowArray]:
    """Rows of whole episodes that ended in success, closing rows included.

    Args:
        run: Its ``--out``; nobody may be learning there.
        obs_dim: Width of an observation.
        obs_version: What observations mean; rows of another meaning are refused.

    Raises:
        ConfigError: No run there, other observations, or not one success.
        ReplayError: Its rows are damaged or in use.
    """
    found: list[RowArray] = []
    directories = [run / REPLAY_DIRECTORY / name for name in ("online", "offline")]
    layouts = {path: layout for path in directories if (layout := read_layout(path)) is not None}
    if not layouts:
        raise ConfigError(f"{run}: no run of 'train residual', there are no rows")
    # Successes stand in both where the base's are kept as demonstrations; a run from recordings
    # has the second alone.
    for directory, layout in layouts.items():
        if (layout.obs_dim, layout.obs_version) != (obs_dim, obs_version):
            raise ConfigError(
                f"{run} holds observations of another meaning ({layout.obs_dim} channels, "
                f"'{layout.obs_version}'): name a run with the same environment and base"
            )
        log = RowLog(directory, layout)
        try:
            found = found or _successes(log.rows)
        finally:
            log.close()
    if not found:
        raise ConfigError(f"{run} holds no episode that ended in success")
    return found


def _successes(rows: RowArray) -> list[RowArray]:
    ends = np.flatnonzero(rows["flags"] & END) + 1
    return [
        episode.copy()
        for episode in np.split(rows, ends)
        if len(episode) > 1 and (episode["flags"] & TERMINATED).any()
    ]
