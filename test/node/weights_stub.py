# SPDX-License-Identifier: Apache-2.0
"""Weights whose residual is known: the same in every channel, whatever is seen."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.learning.actor_bytes import ActorWeights
from vla_rl_ros.learning.actor_observation import ActorObservationSpec

SEEN = ActorObservationSpec(feature_dim=2, tower_hash="tower")
XI = 0.2
_HIDDEN = 8


def made_weights(
    *,
    moved: float = 0.1,
    version: int = 1,
    exploration_std: float = 0.0,
    seen: ActorObservationSpec = SEEN,
) -> ActorWeights:
    """TD3 weights with a residual of `moved` in every channel."""
    inputs = seen.dim + ACTION_DIM

    def scalar(value: float) -> np.ndarray:
        return np.array(value, np.float32)

    weights = {
        "actor.weight_0": np.zeros((inputs, _HIDDEN), np.float32),
        "actor.bias_0": np.zeros(_HIDDEN, np.float32),
        "actor.weight_out": np.zeros((_HIDDEN, ACTION_DIM), np.float32),
        "actor.bias_out": np.full(ACTION_DIM, np.arctanh(moved / XI), np.float32),
        "obs_mean": np.zeros(seen.dim, np.float32),
        "obs_scale": np.ones(seen.dim, np.float32),
        "setting.xi": scalar(XI),
        "setting.is_sac": scalar(0.0),
        "setting.from_scratch": scalar(0.0),
        "setting.exploration_std": scalar(exploration_std),
        "setting.noise_clip": scalar(0.3),
        "setting.grasp_margin": scalar(0.0),
        "setting.grasp_exploration": scalar(0.0),
    }
    return ActorWeights(
        weights=weights,
        version=version,
        made_ns=1,
        obs_version=seen.version,
        obs_names=seen.names,
    )
