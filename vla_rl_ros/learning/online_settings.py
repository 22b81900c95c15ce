# SPDX-License-Identifier: Apache-2.0
"""How fast a run learns beside a robot; the rest is in the presets. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class OnlineSettings:
    """How fast a run learns beside the robot."""

    seed: int = param(0, doc="Of weights, noise and batches.", low=0, high=2**31 - 1)
    max_utd: float = param(
        2.0, doc="Most updates per executed tick once the residual learns; 0 for no limit.",
        low=0.0, high=1000.0,
    )  # fmt: skip
    execution: str = param("eager", doc="Of the gradient steps.", choices=("eager", "compiled"))
    init: str = param("", doc="Directory of an earlier run to start from; empty for none.")

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)
