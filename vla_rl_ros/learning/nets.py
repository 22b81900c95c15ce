# SPDX-License-Identifier: Apache-2.0
"""All networks of a learner: how they begin, what acting needs of them, how they resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import sac, td3
from vla_rl_ros.learning.acting import Float32Array, Weights
from vla_rl_ros.learning.flat_net import FlatNet
from vla_rl_ros.learning.networks import Layout, actor_layout, critic_layout, initialise
from vla_rl_ros.learning.presets import LearnerConfig

NUM_GRASPS = 3
_CONSTANTS = ("xi", "xi_parts", "obs_mean", "obs_scale")


@dataclass(slots=True)
class Nets:
    """All that learns, and what gradient steps only read.

    Attributes:
        critic: Ensemble with target.
        actor: Residual actor; its target, where it has one, is what acts.
        temperature: log alpha, shape (1,).
        grasp: Grasp critic with target; None without one.
        xi: Bound of the residual, scalar.
        xi_parts: What of it each channel may use, shape (C,).
        obs_mean: Shape (O,).
        obs_scale: Shape (O,).
    """

    critic: FlatNet
    actor: FlatNet
    temperature: FlatNet
    grasp: FlatNet | None
    xi: Tensor
    xi_parts: Tensor
    obs_mean: Tensor
    obs_scale: Tensor

    @property
    def bound(self) -> Tensor:
        """Largest residual of every channel, shape (C,)."""
        return self.xi * self.xi_parts

    @property
    def is_moved(self) -> Tensor:
        """1 for each channel that the residual may move however small xi is now, shape (C,)."""
        return (self.xi_parts > 0.0).to(self.xi_parts.dtype)

    def scaled(self, obs: Tensor) -> Tensor:
        """Normalised observation."""
        return (obs - self.obs_mean) * self.obs_scale

    def weights(self, config: LearnerConfig) -> Weights:
        """Copy of all that acting needs, with the settings it depends on."""
        weights = {
            name: tensor.cpu().numpy().copy() for name, tensor in self._acting_tensors().items()
        }
        settings = {
            "is_sac": config.algorithm == "sac",
            "from_scratch": config.from_scratch,
            "exploration_std": config.exploration_std,
            "noise_clip": config.noise_clip,
            "grasp_margin": config.grasp_margin,
            "grasp_exploration": config.grasp_exploration,
        }
        for name, value in settings.items():
            weights[f"setting.{name}"] = np.array(value, dtype=np.float32)
        return weights

    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Take over what `weights` gave; settings stay ours.

        Raises:
            ConfigError: Something is missing or of another size; nothing was changed.
        """
        targets = self._acting_tensors()
        weights = {"xi_parts": np.ones(len(self.xi_parts), dtype=np.float32), **weights}
        for name, target in targets.items():
            if name not in weights or np.shape(weights[name]) != tuple(target.shape):
                found = f"shape {np.shape(weights[name])}" if name in weights else "nothing"
                raise ConfigError(f"weights '{name}': {found}, expected {tuple(target.shape)}")
        for name, target in targets.items():
            target.copy_(torch.from_numpy(np.array(weights[name])))
        if self.actor.target is not None:
            self.actor.params.copy_(self.actor.target)

    def _acting_tensors(self) -> dict[str, Tensor]:
        actor = self.actor.views() if self.actor.target is None else self.actor.target_views()
        tensors = {f"actor.{name}": view for name, view in actor.items()}
        if self.grasp is not None:
            tensors |= {f"grasp.{name}": view for name, view in self.grasp.views().items()}
        tensors |= {"obs_mean": self.obs_mean, "obs_scale": self.obs_scale, "setting.xi": self.xi}
        return tensors | {"xi_parts": self.xi_parts}

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that changes."""
        learning = {"critic": self.critic, "actor": self.actor, "temperature": self.temperature}
        if self.grasp is not None:
            learning["grasp"] = self.grasp
        state: dict[str, Any] = {name: net.state_dict() for name, net in learning.items()}
        return state | {name: getattr(self, name).cpu().clone() for name in _CONSTANTS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Older ones lack ``xi_parts``, which were ones, and those of learners that act with the
        actor itself its slow average, which begins there.
        """
        actor = {"target": state["actor"]["params"], **state["actor"]}
        state = {"xi_parts": torch.ones(len(self.xi_parts)), **state, "actor": actor}
        for name in self.state_dict():
            if name in _CONSTANTS:
                getattr(self, name).copy_(state[name])
            else:
                getattr(self, name).load_state_dict(state[name])


def make_nets(
    config: LearnerConfig,
    obs_dim: int,
    action_dim: int,
    generator: torch.Generator,
    device: torch.device,
) -> Nets:
    """Initialise all networks; the actor's and the grasp critic's last layers are zero.

    Args:
        config: Settings.
        obs_dim: Width of an observation, O.
        action_dim: Channels of an action, A, with the gripper's.
        generator: Source of randomness.
        device: Where they live.
    """
    num_channels = action_dim - int(config.grasp)
    form = sac if config.algorithm == "sac" else td3

    def net(layout: Layout, *, is_end_zero: bool, has_target: bool) -> FlatNet:
        params = initialise(layout, generator, is_end_zero=is_end_zero).to(device)
        return FlatNet(layout, params, has_target=has_target)

    critic = critic_layout(config.num_critics, obs_dim, num_channels, config.hidden)
    head = actor_layout(obs_dim + action_dim, config.hidden, form.num_outputs(num_channels))
    grasp = critic_layout(1, obs_dim, action_dim, config.hidden, NUM_GRASPS)
    log_alpha = torch.tensor([math.log(config.initial_temperature)], device=device)
    nets = Nets(
        critic=net(critic, is_end_zero=False, has_target=True),
        actor=net(head, is_end_zero=True, has_target=config.acting_tau < 1.0),
        temperature=FlatNet(Layout((("log_alpha", (1,)),)), log_alpha, has_target=False),
        grasp=net(grasp, is_end_zero=True, has_target=True) if config.grasp else None,
        xi=torch.tensor(config.xi, device=device),
        xi_parts=torch.tensor(_xi_parts(config, action_dim)[:num_channels], device=device),
        obs_mean=torch.zeros(obs_dim, device=device),
        obs_scale=torch.ones(obs_dim, device=device),
    )
    if config.algorithm == "sac":
        nets.actor.views()["bias_out"][num_channels:] = config.initial_log_std
        nets.actor.track(1.0)
    return nets


def _xi_parts(config: LearnerConfig, action_dim: int) -> tuple[float, ...]:
    parts = config.xi_parts or (1.0,) * action_dim
    if len(parts) != action_dim:
        raise ConfigError(
            f"LearnerConfig.xi_parts has {len(parts)} values, an action {action_dim} channels"
        )
    return parts
