# SPDX-License-Identifier: Apache-2.0
"""From probabilities to a verdict: several of the last samples, and limits of what was measured.

One frame in which a shadow looks like a peg must not end an episode. Called by the node
`success_classifier` and by the benches of the classifier.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from vla_rl_ros.core.errors import ConfigError


class Debounce:
    """Decides when `needed` of the last `window` samples said yes.

    Example:
        With 3 of 4, the samples yes, yes, no, yes decide at the fourth.
    """

    def __init__(self, needed: int, window: int) -> None:
        """Start undecided.

        Raises:
            ConfigError: More are needed than looked at.
        """
        if not 1 <= needed <= window:
            raise ConfigError(f"debounce: {needed} of the last {window} samples make no sense")
        self._needed = needed
        self._samples: deque[bool] = deque(maxlen=window)

    def reset(self) -> None:
        """Forget what was seen: another episode, or a gap in what is seen."""
        self._samples.clear()

    def update(self, is_success: bool) -> bool:
        """Take a sample; returns whether enough of the last ones agree, this one among them."""
        self._samples.append(is_success)
        return is_success and sum(self._samples) >= self._needed


def violated_check(
    checks: Mapping[str, tuple[float, ...]], measured: Mapping[str, float]
) -> str | None:
    """First limit that a measurement does not keep, as a sentence; None if all are kept.

    Args:
        checks: Low and high by channel, e.g. ``{"gripper.width_m": (0.03, 0.05)}``.
        measured: Values by channel; one that is missing or NaN keeps no limit.
    """
    for name, (low, high) in checks.items():
        value = measured.get(name, math.nan)
        if not low <= value <= high:
            return f"{name}={value:.4g} is outside [{low:g}, {high:g}]"
    return None
