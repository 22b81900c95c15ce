# SPDX-License-Identifier: Apache-2.0
"""What is proposed and executed in a tick, and who drives: the words of the gate.

`core.gate` has its rules. Used by everybody who proposes actions or learns from executed ones.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.types import FloatArray, finite_array

NO_STEP = -1
"""`chunk_step` of a tick at which no element of a chunk was executed."""


class Anchor(enum.Enum):
    """What an increment is added to."""

    MEASURED = "measured"
    """The newest measured TCP pose, as in HIL-SERL."""
    LAST_TARGET = "last_target"
    """The last target, for policies trained on differences of targets."""


class Source(enum.Enum):
    """Who drove a tick."""

    VLA = "vla"
    RESIDUAL = "residual"
    HUMAN = "human"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyAction:
    """What the actor proposes for one tick.

    Attributes:
        stamp_ns: Stamp of the tick.
        epoch: Episode epoch of the chunk.
        chunk_id: Chunk the base action is taken from.
        chunk_step: Index in the chunk.
        delay_ticks: Delay the chunk was conditioned for.
        base: The policy's action, SI, shape (7,).
        residual: What the actor adds, SI, shape (7,).
    """

    stamp_ns: int
    epoch: int
    chunk_id: int
    chunk_step: int
    delay_ticks: int
    base: FloatArray
    residual: FloatArray

    def __post_init__(self) -> None:
        """Validate shapes and finiteness."""
        for name in ("base", "residual"):
            object.__setattr__(self, name, finite_array(getattr(self, name), (ACTION_DIM,), name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExecutedAction:
    """What was done in one tick.

    Attributes:
        stamp_ns: Stamp of the tick.
        epoch: Episode epoch.
        source: Who drove.
        executed: Increment of the target from the anchor after all limits, and the gripper
            value that was followed; SI, shape (7,).
        base: The policy's action, zeros when nobody proposed one.
        residual: The actor's part, zeros when nobody proposed one.
        chunk_id: Chunk of the base action, that of the last one while holding.
        chunk_step: Index in the chunk, `NO_STEP` while holding.
        limits: Names of the limits that acted, out of ``range``, ``box``, ``step``, ``tilt``.
    """

    stamp_ns: int
    epoch: int
    source: Source
    executed: FloatArray
    base: FloatArray
    residual: FloatArray
    chunk_id: int
    chunk_step: int
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What the gate may change live.

    Attributes:
        anchor: What an increment is added to.
        limits: Limits of targets; steps are measured from the measured pose.
        spec: Range of actions.
    """

    anchor: Anchor
    limits: ReferenceLimits
    spec: ActionSpec


def choose(
    policy: PolicyAction, human: FloatArray | None, spec: ActionSpec
) -> tuple[FloatArray, Source, tuple[str, ...]]:
    """Human over residual over policy.

    Args:
        policy: The actor's proposal.
        human: The operator's action in SI, shape (7,), None while nobody takes over.
        spec: Range of actions.

    Returns:
        The wanted action, who drives, and ``("range",)`` when it had to be clipped.
    """
    if human is not None:
        wanted, source = human, Source.HUMAN
    elif np.any(policy.residual):
        wanted, source = policy.base + policy.residual, Source.RESIDUAL
    else:
        # Not the sum: it would turn a negative zero into a positive one.
        wanted, source = policy.base, Source.VLA
    clipped = clip_action(wanted, spec)
    # The sum of base and residual may leave the range by a rounding error.
    is_beyond = bool(np.abs(clipped - wanted).max() > 1e-9)
    return clipped, source, ("range",) if is_beyond else ()
