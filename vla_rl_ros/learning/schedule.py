# SPDX-License-Identifier: Apache-2.0
"""How far the residual may go, and when the base has to take over again.

Pure bookkeeping of episode outcomes; the training loop and the `residual_actor` ask it before each
episode. xi rises only while the rolling success does not drop, the weights of the best window are
to be kept, a residual that is measurably worse than that window gets them back, and one that is
measurably worse than the base is replaced by the base for some episodes.

What "measurably worse" means is said in `learning.fisher`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.fisher import are_latest_worse

_ROUNDING = 1e-9


class Driver(Enum):
    """Who plays the next episode."""

    BASE = "base"
    RESIDUAL = "residual"


class XiRule(Enum):
    """Why xi is what it is."""

    FIXED = "fixed"
    RATCHET = "ratchet"
    RAMP = "ramp"


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """When xi grows, when weights are kept, and when the base takes over."""

    rule: str = param(
        "fixed",
        doc="xi stays at its limit, rises with success (ratchet) or with episodes (ramp).",
        choices=tuple(rule.value for rule in XiRule),
    )
    xi_start: float = param(0.05, doc="First xi of ratchet and ramp.", low=0.0, high=2.0)
    xi_factor: float = param(1.25, doc="Growth of xi per step of the ratchet.", low=1.0, high=10.0)
    ramp_episodes: int = param(100, doc="Episodes from xi_start to the limit.", low=1)
    window: int = param(20, doc="Episodes of the rolling success.", low=2, high=1000)
    slack: float = param(
        0.05, doc="Rolling success below the best at which newer weights still replace it.",
        low=0.0, high=1.0,
    )  # fmt: skip
    good_enough: float = param(
        0.95, doc="Rolling success above which xi grows no further.", low=0.0, high=1.0
    )
    worse_p: float = param(
        0.02, doc="Largest p-value at which the residual counts as worse.", low=0.0, high=0.5
    )
    return_p: float = param(
        0.02,
        doc="The same next to the best window. That one was chosen for being the best, so it "
        "promises too much: with 0.02 a residual that stays at 0.9 returns every 125 episodes.",
        low=0.0, high=0.5,
    )  # fmt: skip
    least_episodes: int = param(
        6, doc="Episodes of the residual before it is judged.", low=1, high=1000
    )
    base_turn: int = param(10, doc="Episodes the base plays after a fall-back.", low=1, high=1000)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do after an episode.

    Attributes:
        driver: Who plays the next one.
        xi: Bound of the residual from now on.
        is_best: Keep the present weights: no earlier window was better by more than the slack.
        restore_best: Act with the kept weights again.
        reason: Sentence for log and diagnostics, empty if nothing changed.
    """

    driver: Driver
    xi: float
    is_best: bool = False
    restore_best: bool = False
    reason: str = ""


class Schedule:
    """Keeps the books of one run.

    Attributes:
        config: As given.
        xi_limit: xi never exceeds it.
        xi: Bound of the residual now.
        driver: Who plays the next episode.
        best_success: Best rolling success, NaN before there was a full window.
        num_fall_backs: How often the base had to take over.
        num_returns: How often the residual had to go back to its best weights.
    """

    def __init__(self, config: ScheduleConfig, xi_limit: float) -> None:
        """Begin a run.

        Args:
            config: Rules.
            xi_limit: Largest xi, of the learner's settings.
        """
        self.config, self.xi_limit = config, xi_limit
        is_fixed = config.rule == XiRule.FIXED.value
        self.xi = xi_limit if is_fixed else min(config.xi_start, xi_limit)
        self.driver = Driver.RESIDUAL
        self.best_success = float("nan")
        self.num_fall_backs = 0
        self.num_returns = 0
        self._base_outcomes = [0, 0]
        self._recent: deque[bool] = deque(maxlen=config.window)
        self._best_xi = self.xi
        self._num_residual = 0
        self._since_change = 0
        self._success_before = 0.0
        self._base_left = 0

    def record(self, driver: Driver, *, is_success: bool) -> Advice:
        """Take in the outcome of an episode.

        Args:
            driver: Who played it; one that a human played from end to end is not to be recorded.
            is_success: Whether the driver did the task unaided. People help where a policy is
                stuck: if helped episodes were left out, it would look perfect.
        """
        if driver is Driver.BASE:
            self._base_outcomes[int(is_success)] += 1
            return self._after_base()
        self._recent.append(is_success)
        self._num_residual += 1
        self._since_change += 1
        failures, successes = self._base_outcomes
        if self._is_worse_than(successes, failures + successes, self.config.worse_p):
            return self._fall_back()
        window = self.config.window
        has_best = not math.isnan(self.best_success)
        best = round(self.best_success * window) if has_best else 0
        if has_best and self._is_worse_than(best, window, self.config.return_p):
            return self._return_to_best()
        return self._after_residual()

    def success(self, driver: Driver) -> float:
        """Success so far of the base, or rolling one of the residual; NaN before any episode."""
        if driver is Driver.BASE:
            failures, successes = self._base_outcomes
            return successes / (failures + successes) if failures + successes else float("nan")
        return sum(self._recent) / len(self._recent) if self._recent else float("nan")

    def _after_base(self) -> Advice:
        if self.driver is Driver.RESIDUAL:
            return self._advice()
        self._base_left -= 1
        if self._base_left > 0:
            return self._advice()
        self.driver = Driver.RESIDUAL
        return self._advice(reason=f"the residual plays again with xi {self.xi:.3f}")

    def _is_worse_than(self, successes: int, episodes: int, p_value: float) -> bool:
        least = self.config.least_episodes
        return are_latest_worse(self._recent, successes, episodes, p_value, least=least)

    def _return_to_best(self) -> Advice:
        reason = (
            f"the residual succeeds {sum(self._recent)} of {len(self._recent)} times, its best "
            f"weights at {self.best_success:.2f}: they are restored"
        )
        self.num_returns += 1
        self._recent.clear()
        self._since_change, self._success_before = 0, 0.0
        if self.config.rule == XiRule.RATCHET.value:
            self.xi = self._best_xi
        return self._advice(restore_best=True, reason=reason)

    def _fall_back(self) -> Advice:
        reason = (
            f"the residual succeeds {sum(self._recent)} of {len(self._recent)} times, "
            f"the base at {self.success(Driver.BASE):.2f}: the base takes over"
        )
        self.driver, self._base_left = Driver.BASE, self.config.base_turn
        self.num_fall_backs += 1
        self._recent.clear()
        self._since_change, self._success_before = 0, 0.0
        has_best = not math.isnan(self.best_success)
        if self.config.rule == XiRule.RATCHET.value:
            self.xi = self._best_xi if has_best else min(self.config.xi_start, self.xi_limit)
        return self._advice(restore_best=has_best, reason=reason)

    def _after_residual(self) -> Advice:
        success, reason, is_best = self.success(Driver.RESIDUAL), "", False
        is_full = len(self._recent) == self.config.window
        base_success = self.success(Driver.BASE)
        # Comparisons with NaN are false: before any base episode every window counts.
        needed = self.best_success - self.config.slack - _ROUNDING
        if is_full and not success < base_success and not success < needed:
            self.best_success = float(np.fmax(self.best_success, success))
            self._best_xi, is_best = self.xi, True
        before = self.xi
        if self.config.rule == XiRule.RAMP.value:
            part = min(1.0, self._num_residual / self.config.ramp_episodes)
            start = min(self.config.xi_start, self.xi_limit)
            self.xi = start + part * (self.xi_limit - start)
        elif self.config.rule == XiRule.RATCHET.value and self._may_grow(success):
            self.xi = min(self.xi_limit, self.xi * self.config.xi_factor)
            self._since_change, self._success_before = 0, success
            if self.xi != before:
                reason = f"xi grows from {before:.3f} to {self.xi:.3f} at success {success:.2f}"
        return self._advice(is_best=is_best, reason=reason)

    def _may_grow(self, success: float) -> bool:
        has_full_window = self._since_change >= self.config.window
        is_needed = success < self.config.good_enough
        return has_full_window and is_needed and success >= self._success_before

    def _advice(
        self, *, is_best: bool = False, restore_best: bool = False, reason: str = ""
    ) -> Advice:
        return Advice(
            driver=self.driver,
            xi=self.xi,
            is_best=is_best,
            restore_best=restore_best,
            reason=reason,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue; JSON values."""
        has_best = not math.isnan(self.best_success)
        return {
            "xi": self.xi,
            "driver": self.driver.value,
            "best_success": self.best_success if has_best else None,
            "num_fall_backs": self.num_fall_backs,
            "num_returns": self.num_returns,
            "base_outcomes": list(self._base_outcomes),
            "recent": list(self._recent),
            "best_xi": self._best_xi,
            "num_residual": self._num_residual,
            "since_change": self._since_change,
            "success_before": self._success_before,
            "base_left": self._base_left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called.

        Raises:
            ConfigError: It is incomplete.
        """
        try:
            best = state["best_success"]
            failures, successes = state["base_outcomes"]
            self.xi, self.driver = float(state["xi"]), Driver(state["driver"])
            self.best_success = float("nan") if best is None else float(best)
            self.num_fall_backs = int(state["num_fall_backs"])
            self.num_returns = int(state["num_returns"])
            self._base_outcomes = [int(failures), int(successes)]
            self._recent = deque(map(bool, state["recent"]), maxlen=self.config.window)
            self._best_xi = float(state["best_xi"])
            self._num_residual = int(state["num_residual"])
            self._since_change = int(state["since_change"])
            self._success_before = float(state["success_before"])
            self._base_left = int(state["base_left"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"this is not the state of a schedule: {error}") from error
