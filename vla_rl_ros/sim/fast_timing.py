# SPDX-License-Identifier: Apache-2.0
"""Resolution of the fast simulator in time: physics, torque and reference; read by `FastSim`."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FastSimConfig:
    """Resolution of the fast simulator in time."""

    timestep_s: float = param(0.002, doc="Physics step.", unit="s", low=0.0005, high=0.0025)
    hold_steps: int = param(
        2, doc="Steps for which a torque is held; 10 ms of holding is unstable.", low=1, high=4
    )
    reference_period_s: float = param(
        0.01, doc="Time between two samples of the reference.", unit="s", low=0.001, high=0.01
    )

    def __post_init__(self) -> None:
        """Check bounds, and that steps fill a period."""
        check_bounds(self)
        ratio = self.reference_period_s / self.timestep_s
        if abs(ratio - round(ratio)) > 1e-6:
            raise ConfigError(
                f"reference_period_s={self.reference_period_s} must be a whole number of "
                f"timestep_s={self.timestep_s}"
            )
