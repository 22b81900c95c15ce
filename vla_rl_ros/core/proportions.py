# SPDX-License-Identifier: Apache-2.0
"""How sure a success rate is."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Score interval of a success rate (Wilson 1927), 95 % unless `z` says otherwise.

    Returns:
        Lower and upper end, in [0, 1]; all of it when there was no trial.
    """
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    margin = z * math.sqrt(rate * (1.0 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1.0 + z * z / trials
    # At the ends the formula is exact but for rounding.
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)
