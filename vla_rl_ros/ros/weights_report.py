# SPDX-License-Identifier: Apache-2.0
"""What the operator can see of the weights that act: which, how old, who drives, why not."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.acting_residual import ActingResidual
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.schedule import Driver
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.diagnostics import Diagnostics
from vla_rl_ros.ros.timing import Window


class WeightsReport:
    """Gauges and counters about `ActingResidual` in a node's diagnostics."""

    def __init__(self, diag: Diagnostics, residual: ActingResidual) -> None:
        """Report on `residual` to `diag`."""
        self._diag, self._residual = diag, residual
        self._latency_s = Window(600)
        self._is_new = False

    def taken(self) -> None:
        """Weights of a learner were taken."""
        self._is_new = True
        self._diag.count("weights_taken")

    def refused(self, error: InvalidCommandError) -> None:
        """Weights were refused."""
        self._diag.count(f"rejected.weights.{error.reason}")
        self._diag.set("weights_refused", str(error))

    def acted(self, residual: FloatArray) -> None:
        """A tick was proposed."""
        self._diag.count("ticks_with_residual", int(np.any(residual)))

    def show(self, seen: ActorObservationSpec, cap: float, now_ns: int) -> None:
        """Set the gauges of a tick."""
        held, diag = self._residual.held, self._diag
        driver = self._residual.driver(seen) if cap > 0.0 else Driver.BASE
        diag.set("driver", driver.value)
        if held is None:
            diag.set("weights", "none")
            return
        xi = self._residual.xi
        misfit = self._residual.misfit(seen)
        if misfit:
            state = misfit
        elif held.driver is Driver.BASE:
            state = "resting: the learner lets the base drive"
        elif xi > cap:
            state = f"acting, their xi {xi:.3g} cut to residual_scale {cap:.3g}"
        else:
            state = "acting"
        diag.set("weights", state)
        diag.set("weights_version", str(held.version))
        diag.set("weights_xi", xi)
        if self._is_new:
            # They are in force from this tick on, whether an episode runs or not.
            self._is_new = False
            self._latency_s.add((now_ns - held.made_ns) / NS_PER_S)
            diag.set("weights_latency_p50_s", self._latency_s.quantile(0.5))
            diag.set("weights_latency_max_s", self._latency_s.quantile(1.0))
        if held.made_ns:
            diag.set("weights_age_s", (now_ns - held.made_ns) / NS_PER_S)
