# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.bag_writer import COMPRESSIONS, BagSettings
from vla_rl_ros.data.episode_recording import RecordingSettings
from vla_rl_ros.data.record_file import MIB


@dataclass(frozen=True, kw_only=True)
class RecorderConfig:
    """Where and how episodes are recorded."""

    directory: str = param("bags", doc="Gets one directory per episode.")
    compression: str = param("zstd", doc="Compression of bags.", choices=COMPRESSIONS)
    flush_period_s: float = param(
        0.25, doc="Bound on what a kill of the recorder loses.", unit="s", low=0.05, high=1.0
    )
    start_free_mib: int = param(
        1024, doc="Free disk space without which no bag is begun.", unit="MiB", low=1, high=10**7
    )
    stop_free_mib: int = param(
        256, doc="Free disk space below which a bag is closed.", unit="MiB", low=1, high=10**7
    )
    tail_s: float = param(
        0.2, doc="Recording goes on for so long after an episode.", unit="s", low=0.0, high=10.0
    )
    silence_s: float = param(
        5.0, doc="Silence of episode/state that closes a bag.", unit="s", low=1.0, high=60.0
    )
    parameters_deadline_s: float = param(
        3.0, doc="Time in which nodes must tell their parameters.", unit="s", low=0.1, high=30.0
    )
    poll_period_s: float = param(
        0.05, doc="Time between two looks at the subscriptions.", unit="s", low=0.002, high=0.1
    )
    queue_limit_mib: int = param(
        256, doc="Messages waiting for the disk, at most.", unit="MiB", low=1, high=10**5
    )

    def __post_init__(self) -> None:
        """Check bounds and the order of the space limits."""
        check_bounds(self)
        if self.stop_free_mib > self.start_free_mib:
            raise ConfigError(
                f"RecorderConfig.stop_free_mib={self.stop_free_mib} exceeds "
                f"start_free_mib={self.start_free_mib}"
            )

    def recording(self) -> RecordingSettings:
        """Settings of the bags."""
        return RecordingSettings(
            directory=Path(self.directory),
            bag=BagSettings(
                compression=self.compression,
                flush_period_s=self.flush_period_s,
                start_free_bytes=self.start_free_mib * MIB,
                stop_free_bytes=self.stop_free_mib * MIB,
            ),
            tail_s=self.tail_s,
            silence_s=self.silence_s,
        )
