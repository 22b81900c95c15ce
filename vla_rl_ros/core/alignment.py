# SPDX-License-Identifier: Apache-2.0
"""Bring measurements of several rates to one stamp. Knows nothing of messages or clocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bracket(Generic[T]):
    """The two samples around a stamp.

    Attributes:
        before: Sample at or before the stamp, or the oldest one.
        after: Sample after the stamp, or the newest one.
        fraction: Where the stamp lies between them, in [0, 1].
        age_ns: Stamp minus the nearest sample's stamp; negative when that sample is later.
    """

    before: T
    after: T
    fraction: float
    age_ns: int


class StampedBuffer(Generic[T]):
    """The newest samples of one source in the order of their stamps."""

    def __init__(self, size: int) -> None:
        """Hold at most `size` samples."""
        if size < 1:
            raise ConfigError(f"size={size} must be positive")
        self._samples: deque[tuple[int, T]] = deque(maxlen=size)

    def __len__(self) -> int:
        """Number of samples held."""
        return len(self._samples)

    def clear(self) -> None:
        """Forget every sample."""
        self._samples.clear()

    def add(self, stamp_ns: int, sample: T) -> bool:
        """Append a sample.

        Returns:
            False when it was not newer than the last one and was dropped.
        """
        if self._samples and stamp_ns <= self._samples[-1][0]:
            return False
        self._samples.append((stamp_ns, sample))
        return True

    def newest(self) -> tuple[int, T] | None:
        """Stamp and value of the newest sample, None when empty."""
        return self._samples[-1] if self._samples else None

    def before(self, stamp_ns: int) -> tuple[int, T] | None:
        """Stamp and value of the newest sample at or before a stamp, None when there is none."""
        return next((s for s in reversed(self._samples) if s[0] <= stamp_ns), None)

    def at(self, stamp_ns: int) -> Bracket[T] | None:
        """The samples around a stamp, None when empty; beyond the ends both are the end sample."""
        after: tuple[int, T] | None = None
        for sample in reversed(self._samples):
            if sample[0] <= stamp_ns:
                return _between(sample, after or sample, stamp_ns)
            after = sample
        return None if after is None else _between(after, after, stamp_ns)


def _between(before: tuple[int, T], after: tuple[int, T], stamp_ns: int) -> Bracket[T]:
    span_ns = after[0] - before[0]
    fraction = (stamp_ns - before[0]) / span_ns if span_ns > 0 else 0.0
    nearest_ns = before[0] if fraction <= 0.5 else after[0]
    return Bracket(before[1], after[1], fraction, stamp_ns - nearest_ns)


def lerp(before: FloatArray, after: FloatArray, fraction: float) -> FloatArray:
    """Linear interpolation; exact at both ends."""
    return np.asarray((1.0 - fraction) * before + fraction * after, dtype=np.float64)
