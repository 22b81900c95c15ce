# SPDX-License-Identifier: Apache-2.0
"""Where denoising begins: noise that belongs to ticks, not to chunks.

Two chunks drawn from fresh noise differ even when they answer to the same scene, and the arm
feels the difference at the seam. Here each control tick has one row of noise, and every chunk that
covers the tick begins there (common random numbers): what still jumps at a seam comes from what
the policy saw meanwhile. Called by `policy.CheckpointPolicy`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class TickNoise:
    """Rows of standard normal noise by tick, drawn when first asked for."""

    def __init__(self, seed: int, period_s: float, horizon: int, dim: int) -> None:
        """Begin without rows.

        Args:
            seed: Of the noise.
            period_s: From one element of a chunk to the next.
            horizon: Elements of a chunk.
            dim: Channels of an element.
        """
        self._rng = np.random.default_rng(seed)
        self._period_ns = round(1e9 * period_s)
        self._horizon = horizon
        self._rows = np.empty((0, dim), dtype=np.float32)
        self._first_ns = 0

    def rows(self, stamp_ns: int) -> NDArray[np.float32]:
        """Noise of the ticks from a stamp on, shape (horizon, dim).

        Args:
            stamp_ns: Of the tick of element 0. Rows of earlier ticks are forgotten; a stamp before
                the last one, or beyond all ticks drawn, begins anew.
        """
        # Counted from the last stamp, as ticks may fall anywhere between multiples of the period.
        passed = round((stamp_ns - self._first_ns) / self._period_ns)
        kept = self._rows[passed:] if passed >= 0 else self._rows[:0]
        missing = (self._horizon - len(kept), self._rows.shape[1])
        fresh = self._rng.standard_normal(missing, dtype=np.float32)
        self._rows, self._first_ns = np.concatenate([kept, fresh]), stamp_ns
        return self._rows.copy()

    def draw(self, num_samples: int) -> NDArray[np.float32]:
        """Fresh noise of several chunks that belongs to no tick, (num_samples, horizon, dim)."""
        size = (num_samples, self._horizon, self._rows.shape[1])
        return self._rng.standard_normal(size, dtype=np.float32)

    def forget(self) -> None:
        """Begin an episode: no two begin alike, as the stream of noise goes on."""
        self._rows = self._rows[:0]
