# SPDX-License-Identifier: Apache-2.0
"""Weights that a run beside a robot gives out, with what they are for; called by `online_run`."""

from __future__ import annotations

from dataclasses import replace

from vla_rl_ros.learning.actor_bytes import ActorWeights
from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.schedule import Driver


def present_weights(
    state: OnlineState, driver: Driver, made_ns: int, *, is_warming_up: bool
) -> ActorWeights:
    """What the actor gets now.

    Args:
        state: Of the run.
        driver: Who is to drive.
        made_ns: Time of the last update.
        is_warming_up: Whether who explores wanders instead of following the weights.
    """
    wanders = is_warming_up and state.config.warm_up_noise > 0.0
    weights = state.learner.widest_weights() if wanders else state.learner.weights()
    return ActorWeights(
        weights=weights,
        version=state.progress.published,
        updates=state.learner.num_updates,
        made_ns=made_ns,
        driver=driver,
        wander_std=state.config.warm_up_noise if is_warming_up else 0.0,
        wander_ticks=state.config.warm_up_ticks,
        obs_version=state.online.layout.obs_version,
        obs_names=state.obs_names,
    )


def weights_to_keep(state: OnlineState) -> ActorWeights:
    """The policy to use without a learner; the base drives until a residual is proven."""
    schedule, best = state.schedule, state.best
    # A comparison with NaN is false: a base that never played proves nothing.
    is_proven = best is not None and not schedule.best_success < schedule.success(Driver.BASE)
    driver = Driver.RESIDUAL if is_proven else Driver.BASE
    present = present_weights(state, driver, 0, is_warming_up=False)
    return present if best is None else replace(present, weights=best)
