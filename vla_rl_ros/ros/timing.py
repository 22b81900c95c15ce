# SPDX-License-Identifier: Apache-2.0
"""Rolling statistics for gauges in diagnostics."""

from __future__ import annotations

import math
from collections import deque


class Window:
    """The newest values of one quantity."""

    def __init__(self, size: int) -> None:
        """Keep `size` values."""
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Append a value, forgetting the oldest when full."""
        self._values.append(value)

    def quantile(self, q: float) -> float:
        """Smallest value that covers the share `q`, NaN when empty."""
        if not self._values:
            return math.nan
        ordered = sorted(self._values)
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
