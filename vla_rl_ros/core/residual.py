# SPDX-License-Identifier: Apache-2.0
"""Base action plus a bounded residual, as in PLD and ResFiT: ``a = clip(a_base + xi tanh(u))``.

Called by the actor that proposes and by the gate that executes. A zero residual leaves the base
bit for bit as it was, so a runtime without a learned actor plays the policy unchanged.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.types import FloatArray


def compose(base: FloatArray, u: FloatArray, xi: float) -> FloatArray:
    """Executed action ``clip(a_base + xi tanh(u), -1, 1)``, normalised, shape (..., 7).

    Args:
        base: The policy's action, normalised.
        u: Output of the actor before the bound.
        xi: Largest residual per channel, normalised.

    Returns:
        Where the residual is zero, exactly `base`, even outside [-1, 1].
    """
    return added(base, xi * np.tanh(u))


def added(base: FloatArray, residual: FloatArray) -> FloatArray:
    """As `compose`, from the bounded residual."""
    return np.where(residual == 0.0, base, np.clip(base + residual, -1.0, 1.0))


def clip_action(action: FloatArray, spec: ActionSpec) -> FloatArray:
    """Clip an SI action of shape (..., 7) to the range of `spec`; values inside stay bit-equal."""
    ones = np.ones(ACTION_DIM)
    return np.clip(action, spec.to_si(-ones), spec.to_si(ones))


def residual_action(base: FloatArray, u: FloatArray, xi: float, spec: ActionSpec) -> FloatArray:
    """What the residual adds to an SI base action, in SI, after the clip, shape (..., 7).

    Args:
        base: The policy's action in SI, within the range of `spec`.
        u: Output of the actor before the bound.
        xi: Largest residual per channel, normalised.
        spec: Scale between normalised and SI.

    Returns:
        The difference between the composed action and the base; exactly 0.0 where ``u`` is 0.
    """
    return residual_in_si(base, xi * np.tanh(u), spec)


def residual_in_si(base: FloatArray, residual: FloatArray, spec: ActionSpec) -> FloatArray:
    """As `residual_action`, from the bounded residual in normalised units, shape (..., 7)."""
    normalised = spec.to_normalised(base)
    scale = spec.to_si(np.ones(ACTION_DIM)) - spec.to_si(np.zeros(ACTION_DIM))
    return (added(normalised, residual) - normalised) * scale
