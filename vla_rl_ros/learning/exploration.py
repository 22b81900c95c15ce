# SPDX-License-Identifier: Apache-2.0
"""Noise that a critic can learn from, before any actor moves.

A base that acts the same way each time tells nothing about what other actions would have led to,
so the slope of a critic fitted to it is arbitrary, and an actor that climbs it first gets worse.
White noise cancels out within a few ticks; noise that stays on one side for a while does not.
Called by the training loops.
"""

from __future__ import annotations

import math

import numpy as np

from vla_rl_ros.learning.acting import AnyFloatArray, Float32Array


class Wanderer:
    """Residual of one episode that changes slowly: an autoregressive process of first order.

    ``x_t = c x_(t-1) + sqrt(1 - c^2) eps``, ``c = exp(-1 / ticks)``, ``x_0`` standard normal;
    the residual is ``xi clip(std x_t, -1, 1)``.
    """

    def __init__(
        self,
        std: float,
        ticks: float,
        xi: float | Float32Array,
        rng: np.random.Generator,
    ) -> None:
        """Begin an episode.

        Args:
            std: Deviation in parts of xi.
            ticks: After so many the correlation has fallen to 1 / e.
            xi: Bound of the residual, scalar or of each channel, shape (A,).
            rng: Source of randomness.
        """
        self._std, self._xi, self._rng = std, xi, rng
        self._kept = math.exp(-1.0 / ticks)
        self._value: AnyFloatArray | None = None

    def __call__(self, obs: AnyFloatArray, base: AnyFloatArray) -> Float32Array:
        """Residual of the next tick, normalised, shape (A,), whatever is seen."""
        fresh = self._rng.standard_normal(len(base))
        if self._value is None:
            self._value = fresh
        else:
            self._value = self._kept * self._value + math.sqrt(1.0 - self._kept**2) * fresh
        residual = self._xi * np.clip(self._std * self._value, -1.0, 1.0)
        return residual.astype(np.float32)
