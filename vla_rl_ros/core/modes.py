# SPDX-License-Identifier: Apache-2.0
"""The modes of asynchronous execution as data, and what has to hold before one may run.

========== ============ ============================= ======================= ===================
mode       asks policy  new chunk on the ticks it     later than conditioned  next request
           for          shares with the old plan      for
========== ============ ============================= ======================= ===================
sync       nothing      there are none: the arm       cannot be: starts at    when nothing is
                        holds while the model thinks  the next tick           left
naive      nothing      replaces it                   played from its index   after s ticks
ensemble   nothing      votes ``exp(-m i)``, i = 0    played from its index   every tick
                        the oldest, m = 0.01
weighted   nothing      0.3 old + 0.7 new             played from its index   after s ticks
rtc        GUIDE        replaces it                   played from its index   after s ticks
prefix_lock LOCK        repeats d rows bit for bit,   dropped                 after s ticks
                        then replaces it
========== ============ ============================= ======================= ===================

Every mode asks earlier when the plan runs out within d + margin ticks. A chunk that was asked for
while the arm stood still starts with element 0 at the next tick, in every mode: nothing was
executed since its observation, so nothing of it has passed. ``sync`` plays the first s elements
of each chunk only.

Blends average every channel. Increments are at most 0.1 rad a tick, where the mean of rotation
vectors differs from the mean rotation by less than 1e-4 rad. The gripper's mean is a vote in
[0, 1]; the gate decides with hysteresis.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray, Mode

ENSEMBLE_DECAY = 0.01
"""m of ``exp(-m i)`` (ACT, arXiv 2304.13705, section IV-B)."""
NEW_WEIGHT = 0.7
"""Share of the new chunk in LeRobot's ``weighted_average``."""


class Merge(enum.Enum):
    """What happens on ticks that both the plan and a new chunk cover."""

    REPLACE = "replace"
    ENSEMBLE = "ensemble"
    WEIGHTED = "weighted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeRules:
    """One mode.

    Attributes:
        conditioning: What is asked of the policy.
        merge: How a new chunk enters the plan.
        is_locked: The first d rows are overwritten by the promise, and a chunk that comes later
            is dropped.
        is_waiting: The arm holds while the model thinks.
        asks_every_tick: Whether s is one, whatever is set.
    """

    conditioning: Conditioning = Conditioning.NONE
    merge: Merge = Merge.REPLACE
    is_locked: bool = False
    is_waiting: bool = False
    asks_every_tick: bool = False


RULES: dict[Mode, ModeRules] = {
    Mode.SYNC: ModeRules(is_waiting=True),
    Mode.NAIVE: ModeRules(),
    Mode.ENSEMBLE: ModeRules(merge=Merge.ENSEMBLE, asks_every_tick=True),
    Mode.WEIGHTED: ModeRules(merge=Merge.WEIGHTED),
    Mode.RTC: ModeRules(conditioning=Conditioning.GUIDE),
    Mode.PREFIX_LOCK: ModeRules(conditioning=Conditioning.LOCK, is_locked=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTraits:
    """What timing has to know of a policy.

    Attributes:
        horizon: Elements H of a chunk.
        conditionings: What it can do with a prefix.
        max_locked: Longest locked prefix it answers well to.
    """

    horizon: int
    conditionings: frozenset[Conditioning]
    max_locked: int


@dataclass(frozen=True, kw_only=True)
class AsyncSettings:
    """How one embodiment executes chunks."""

    mode: str = param(
        Mode.PREFIX_LOCK.value,
        doc="How chunks are executed while the next one is inferred.",
        choices=tuple(mode.value for mode in Mode),
    )
    control_period_s: float = param(
        0.1, doc="Time between two elements of a chunk.", unit="s", low=0.02, high=1.0
    )
    execute_ticks: int = param(
        0,
        doc="Ticks s from one request to the next; 0 for as many as the latency budget takes, "
        "in mode sync for the whole chunk.",
        low=0,
        high=256,
    )
    latency_budget_s: float = param(
        0.05, doc="Time an answer may take from its tick on.", unit="s", low=0.0, high=10.0
    )
    margin_ticks: int = param(
        1, doc="Elements left beyond the delay at which a request is sent.", low=0, high=64
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)

    @property
    def rules(self) -> ModeRules:
        """Rules of the mode."""
        return RULES[Mode(self.mode)]

    @property
    def period_ns(self) -> int:
        """Control period."""
        return round(self.control_period_s * 1e9)

    @property
    def budget_ticks(self) -> int:
        """Index at which an answer is first used that takes the whole latency budget."""
        # A nanosecond below: a budget of exactly one period is not used up by rounding.
        return math.floor((self.latency_budget_s - 1e-9) / self.control_period_s) + 1

    def ticks_per_request(self, traits: PolicyTraits) -> int:
        """Ticks s from one request to the next."""
        if self.rules.asks_every_tick:
            return 1
        automatic = traits.horizon if self.rules.is_waiting else max(1, self.budget_ticks)
        return self.execute_ticks or automatic

    def max_delay(self, traits: PolicyTraits) -> int:
        """Longest delay a chunk may be conditioned for: ``min(H - s, max_locked)``, at least 1."""
        limit = traits.horizon - self.ticks_per_request(traits)
        if self.conditioning(traits) is Conditioning.LOCK:
            limit = min(limit, traits.max_locked)
        return max(1, limit)

    def conditioning(self, traits: PolicyTraits) -> Conditioning:
        """What the policy is asked for.

        A policy that cannot be told of a prefix still runs in ``prefix_lock``: the runtime locks
        the rows, and only the continuation behind them does not know of it.
        """
        wanted = self.rules.conditioning
        if wanted is Conditioning.LOCK and wanted not in traits.conditionings:
            return Conditioning.NONE
        return wanted

    def check(self, traits: PolicyTraits) -> None:
        """Refuse what cannot work: ``d <= s <= H - d`` with d from the latency budget.

        Raises:
            ConfigError: Names the field and what to change.
        """
        horizon, delay = traits.horizon, self.budget_ticks
        steps = self.ticks_per_request(traits)
        if Conditioning.GUIDE is self.rules.conditioning not in traits.conditionings:
            known = ", ".join(sorted(c.value for c in traits.conditionings))
            raise ConfigError(
                f"mode='{self.mode}' guides the inference, and this policy knows only: {known}; "
                "choose mode='prefix_lock'"
            )
        if self.rules.is_waiting:
            if steps > horizon:
                raise ConfigError(f"execute_ticks={steps} is above the horizon of {horizon}")
            return
        if not self.rules.asks_every_tick and steps < delay:
            raise ConfigError(
                f"execute_ticks={steps} is below the {delay} ticks that latency_budget_s="
                f"{self.latency_budget_s:g} takes at control_period_s={self.control_period_s:g}; "
                "raise execute_ticks (0 sets it by itself)"
            )
        if steps + delay > horizon:
            raise ConfigError(
                f"settings.horizon={horizon} is too small: {steps} ticks from one request to the "
                f"next (execute_ticks) and a delay of {delay} (latency_budget_s="
                f"{self.latency_budget_s:g} at control_period_s={self.control_period_s:g}) "
                f"need {steps + delay}"
            )
        if delay > self.max_delay(traits):
            raise ConfigError(
                f"latency_budget_s={self.latency_budget_s:g} is a delay of {delay} ticks, and the "
                f"policy answers well to a locked prefix of at most {traits.max_locked} "
                "(max_locked)"
            )


def lock_rows(actions: FloatArray, prefix: Prefix) -> FloatArray:
    """Overwrite the first rows of an answer with what was promised, bit for bit.

    Args:
        actions: The policy's answer, shape (H, 7).
        prefix: The promise; its locked rows beyond H are left out.

    Returns:
        A copy, shape (H, 7).
    """
    locked = actions.copy()
    num_rows = min(prefix.num_locked, len(actions))
    locked[:num_rows] = prefix.actions[:num_rows]
    return locked


def ensemble_mean(votes: FloatArray, decay: float = ENSEMBLE_DECAY) -> FloatArray:
    """Mean with weights ``exp(-m i)``, i = 0 the oldest.

    Args:
        votes: What each chunk proposes for one tick, oldest first, shape (n, 7).
        decay: m.

    Returns:
        Shape (7,).
    """
    weights = np.exp(-decay * np.arange(len(votes)))
    return np.asarray(weights @ votes / weights.sum(), dtype=np.float64)


def weighted_mean(old: FloatArray, new: FloatArray) -> FloatArray:
    """LeRobot's ``weighted_average``: 0.3 old + 0.7 new, any equal shapes."""
    return (1.0 - NEW_WEIGHT) * old + NEW_WEIGHT * new
