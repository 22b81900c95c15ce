# SPDX-License-Identifier: Apache-2.0
"""Weights of real-time chunking: how strongly the plan under way pulls a denoising step.

Formulas of arXiv 2506.07339, equations 2 to 5, with flow time 0 for noise and 1 for the clean
action. Called by policies that can be guided; knows nothing of the model.
"""

from __future__ import annotations

import math

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray

MAX_GAIN = 5.0
"""The paper's beta: a larger gain makes five denoising steps diverge."""


def prefix_weights(horizon: int, num_locked: int, num_executed: int) -> FloatArray:
    """Weight of each row of the plan in the guidance.

    1 for rows that will have been executed, 0 for rows that the plan does not reach, and between
    ``c (exp(c) - 1) / (e - 1)`` with ``c_i = (H - s - i) / (H - s - d + 1)``.

    Args:
        horizon: Rows H of a chunk.
        num_locked: Delay d in ticks.
        num_executed: Ticks s from one observation to the next: the plan ends at row H - s.

    Returns:
        Shape (H,), in [0, 1], falling.

    Raises:
        ConfigError: Unless 0 <= d and 0 <= s <= H.

    Example:
        H = 8, d = 2, s = 3 gives 1, 1, 0.488, 0.189, 0.041, 0, 0, 0 (rounded).
    """
    if num_locked < 0 or not 0 <= num_executed <= horizon:
        raise ConfigError(
            f"no weights for horizon={horizon}, num_locked={num_locked}, "
            f"num_executed={num_executed}"
        )
    end = horizon - num_executed
    rows = np.arange(horizon)
    fall = (end - rows) / max(1, end - num_locked + 1)
    soft = fall * np.expm1(np.clip(fall, 0.0, 1.0)) / (math.e - 1.0)
    # What is executed is locked even where the plan ends before, and is padded by a hold.
    return np.where(rows < num_locked, 1.0, np.where(rows < end, soft, 0.0))


def guidance_gain(tau: float, beta: float = MAX_GAIN) -> float:
    """Factor of the correction at flow time `tau`.

    ``min(beta, (1 - tau) / (tau r2))`` with ``r2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2)``.

    Args:
        tau: Flow time in [0, 1]; 0 is noise.
        beta: Largest gain.

    Raises:
        ConfigError: `tau` outside of [0, 1].
    """
    if not 0.0 <= tau <= 1.0:
        raise ConfigError(f"flow time tau={tau} is outside [0, 1]")
    noise = 1.0 - tau
    # (1 - tau) / (tau r2) without the division by zero at both ends, where it is infinite.
    if tau == 0.0 or noise == 0.0:
        return beta
    return min(beta, (tau * tau + noise * noise) / (tau * noise))
