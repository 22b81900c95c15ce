# SPDX-License-Identifier: Apache-2.0
"""Parameters of the success classifier."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class SuccessClassifierConfig:
    """Which classifiers judge, how often, and what is too old to be judged."""

    classifiers: tuple[str, ...] = param(
        ("",), doc="Directories that 'vla-rl-ros train classifier' wrote, one per task."
    )
    rate_hz: float = param(12.0, doc="Judgements per second.", unit="Hz", low=1.0, high=60.0)
    max_image_age_s: float = param(
        0.3, doc="Older images are not judged.", unit="s", low=0.02, high=5.0
    )
    max_skew_s: float = param(
        0.1, doc="Largest distance between the images of two cameras.", unit="s", low=0.0, high=1.0
    )
    max_state_age_s: float = param(
        0.5, doc="Largest age of what checks are about.", unit="s", low=0.02, high=5.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)
