# SPDX-License-Identifier: Apache-2.0
"""Parameters of the residual actor."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class ResidualActorConfig:
    """Control rate, residual bound, and where weights come from."""

    control_period_s: float = param(
        0.1, doc="Time between two ticks.", unit="s", low=0.02, high=1.0
    )
    residual_scale: float = param(
        0.3,
        doc="Largest residual per channel whatever the weights ask for, as a share of the "
        "action's range; 0 leaves the base alone.",
        low=0.0,
        high=1.0,
        live=True,
    )
    residual: str = param(
        "",
        doc="Weights to begin with: a policy.safetensors or the directory of a run; those of a "
        "learner replace them.",
    )
    explore: bool = param(
        False, doc="Whether the residual carries the noise it is trained with.", live=True
    )
    explore_seed: int = param(0, doc="Of that noise.", low=0, high=2**31 - 1)
    shadow: bool = param(
        False, doc="Whether to go on proposing while a human drives; the gate's mode is shadow."
    )
    max_state_age_s: float = param(
        0.1, doc="Largest age of the arm's state at a tick.", unit="s", low=0.01, high=1.0
    )
    max_gripper_age_s: float = param(
        0.5, doc="Largest age of the gripper's state at a tick.", unit="s", low=0.02, high=2.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)
