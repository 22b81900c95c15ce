# SPDX-License-Identifier: Apache-2.0
"""The residual learner: owns weights, optimisers and random state, and knows no environment.

`gym_loop` and the `learner` node feed it batches; what acts gets `weights()`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError, LearningError
from vla_rl_ros.learning.acting import AnyFloatArray, Float32Array, ResidualActor, Weights
from vla_rl_ros.learning.batch import BATCH_KEYS, GRASP_KEY, Batch, as_tensors, check_shapes
from vla_rl_ros.learning.fused_step import Step, fused
from vla_rl_ros.learning.gradient_steps import (
    ACTOR_METRICS,
    CONSERVATIVE_METRICS,
    CRITIC_METRICS,
    GRASP_METRICS,
    GradientSteps,
)
from vla_rl_ros.learning.nets import make_nets
from vla_rl_ros.learning.networks import critic_forward
from vla_rl_ros.learning.older_runs import completed_learner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.update_noise import UpdateNoise

_SMALLEST_DEVIATION = 0.1
_SHAPING = (
    "algorithm", "xi", "xi_parts", "from_scratch", "hidden", "num_critics", "normalise_obs",
    "grasp",
)  # fmt: skip
"""Settings that decide what networks are and mean."""


class ResidualLearner:
    """Actor, critics and their gradient steps.

    Two learners with the same settings, seed and batches are equal bit for bit; so is one that is
    continued from `state_dict`.

    Attributes:
        config: Settings.
        obs_dim: Width of an observation, O.
        action_dim: Channels of an action, A.
        nets: Everything that learns.
    """

    def __init__(
        self,
        config: LearnerConfig,
        obs_dim: int,
        action_dim: int,
        seed: int,
        *,
        value_range: tuple[float, float] | None = None,
        execution: str = "eager",
        device: str = "cpu",
    ) -> None:
        """Initialise from the seed.

        Args:
            config: Settings.
            obs_dim: Width of an observation, O.
            action_dim: Channels of an action, A.
            seed: Of weights and all noise.
            value_range: Least and most that the reward can pay from anywhere, None if that is
                not known; used with `config.clip_target`.
            execution: "eager", or "compiled": twice as fast after a start of 15 s or more, needs
                a C++ compiler, equal to eager up to rounding.
            device: Torch device of the gradient steps.

        Raises:
            ConfigError: Sizes or execution make no sense.
        """
        self.config, self.obs_dim, self.action_dim = config, obs_dim, action_dim
        self._num_channels = action_dim - int(config.grasp)
        if obs_dim < 0 or self._num_channels < 1:
            raise ConfigError(
                f"obs_dim={obs_dim}, action_dim={action_dim}: the residual needs a channel"
                + (" besides the gripper's" if config.grasp else "")
            )
        self._device = torch.device(device)
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng([seed, 1])
        self.nets = make_nets(config, obs_dim, action_dim, self._generator, self._device)
        self._num_updates = 0
        self._num_actor_turns = 0
        self._execution = execution
        self._keys = (*BATCH_KEYS, GRASP_KEY) if config.grasp else BATCH_KEYS
        self._noise = UpdateNoise(config, self._num_channels, self._generator, self._device)
        steps = GradientSteps(
            config, self.nets, self._num_channels, value_range if config.clip_target else None
        )
        self._critic_steps = {
            (is_conservative, is_offline): fused(
                partial(steps.critic, is_conservative=is_conservative, is_offline=is_offline),
                execution,
                device,
            )
            for is_conservative in (False, True)
            for is_offline in (False, True)
        }
        self._actor_step: Step = fused(steps.actor, execution, device)
        self._grasp_step: Step = fused(steps.grasp, execution, device)
        self._actor: ResidualActor | None = None

    @property
    def xi(self) -> float:
        """Bound of the residual; may be set at any time."""
        return float(self.nets.xi)

    @xi.setter
    def xi(self, xi: float) -> None:
        if not 0.0 <= xi <= 2.0:
            raise ConfigError(f"xi={xi} is outside [0, 2]")
        self.nets.xi.fill_(xi)
        self._actor = None

    @property
    def bound(self) -> Float32Array:
        """Largest residual of every channel, the gripper's included, shape (A,)."""
        return self._acting().bound

    def widest_weights(self) -> Weights:
        """`weights` with all of the bound that the settings allow one day, for the warm-up.

        However small the schedule lets the residual begin: critics have to know more than that.
        """
        return self.weights() | {"setting.xi": np.array(self.config.xi, dtype=np.float32)}

    @property
    def num_updates(self) -> int:
        """Calls of `update` so far."""
        return self._num_updates

    def fit_normaliser(self, obs: AnyFloatArray) -> None:
        """Scale observations by mean and deviation of these, shape (N, O); call once, first.

        Channels that hardly vary are not blown up. Does nothing where `config.normalise_obs` is
        off.

        Raises:
            ConfigError: Updates were done already, or the width is wrong.
        """
        if self._num_updates:
            raise ConfigError("fit_normaliser after an update would change what was learned")
        if obs.ndim != 2 or obs.shape[1] != self.obs_dim:
            raise ConfigError(f"observations have shape {obs.shape}, expected (N, {self.obs_dim})")
        if not self.config.normalise_obs:
            return
        values = np.asarray(obs, dtype=np.float64)
        deviation = np.maximum(values.std(0), _SMALLEST_DEVIATION)
        self.nets.obs_mean.copy_(torch.from_numpy(values.mean(0)))
        self.nets.obs_scale.copy_(torch.from_numpy(1.0 / deviation))
        self._actor = None

    def update(
        self, batch: Batch, *, critic_only: bool = False, offline: bool = False
    ) -> dict[str, float]:
        """One critic step, and every `actor_every`-th time one of actor and temperature.

        Args:
            batch: Transitions.
            critic_only: Leave the actor alone.
            offline: The phase before going online: offline target, and the conservative term
                unless it is never on.

        Returns:
            Metrics of this step; the documentation of the algorithm has their formulas.

        Raises:
            ConfigError: The batch lacks a key or has wrong shapes.
            LearningError: A metric is not finite; the weights are lost.
        """
        arrays = as_tensors(batch, self._keys, self._device)
        check_shapes(arrays, self.obs_dim, self.action_dim)
        if self._execution == "compiled":
            # Columns of a packed array would be compiled again.
            arrays = {key: values.contiguous() for key, values in arrays.items()}
        if self.config.from_scratch:
            arrays["base"] = torch.zeros_like(arrays["base"])
            arrays["next_base"] = torch.zeros_like(arrays["next_base"])
        when = self.config.conservative
        is_conservative = when == "always" or (when == "offline" and offline)
        num_rows = len(arrays["reward"])
        noise = self._noise.critic(num_rows, is_conservative=is_conservative, is_offline=offline)
        names = CRITIC_METRICS + (CONSERVATIVE_METRICS if is_conservative else ())
        measured = [self._critic_steps[is_conservative, offline](arrays, noise)]
        if self.config.grasp:
            names += GRASP_METRICS
            measured.append(self._grasp_step(arrays))
        if not critic_only:
            self._num_actor_turns += 1
            if self._num_actor_turns % self.config.actor_every == 0:
                names += ACTOR_METRICS
                measured.append(self._actor_step(arrays, self._noise.actor(num_rows)))
        self._num_updates += 1
        self._actor = None
        metrics = dict(zip(names, torch.cat(measured).tolist(), strict=True))
        if not all(math.isfinite(value) for value in metrics.values()):
            raise LearningError(f"update {self._num_updates} is not finite: {metrics}")
        return metrics

    def act(
        self, obs: AnyFloatArray, base: AnyFloatArray, *, deterministic: bool = False
    ) -> Float32Array:
        """Residual for one observation (O,) and base action (A,), normalised, shape (A,).

        `acting.execute` makes the executed action of it, so that a zero residual leaves the base
        bit for bit as it was.
        """
        return self._acting().act(obs, base, rng=None if deterministic else self._rng)

    def _acting(self) -> ResidualActor:
        if self._actor is None:
            self._actor = ResidualActor(self.weights())
        return self._actor

    def q(self, obs: AnyFloatArray, action: AnyFloatArray) -> Float32Array:
        """Values of executed actions (N, A) at observations (N, O), shape (E, N)."""
        with torch.no_grad():
            inputs = torch.cat(
                [
                    self.nets.scaled(self._tensor(obs)),
                    self._tensor(action)[:, : self._num_channels],
                ],
                dim=1,
            )
            values: Float32Array = (
                critic_forward(self.nets.critic.views(), inputs)[..., 0].cpu().numpy()
            )
        return values

    def q_gradient(self, obs: AnyFloatArray, action: AnyFloatArray) -> Float32Array:
        """Gradient of the mean value by the action, shape (N, A); zero in a grasp channel."""
        scaled, actions = self.nets.scaled(self._tensor(obs)), self._tensor(action)

        def total(values: Tensor) -> Tensor:
            inputs = torch.cat([scaled, values[:, : self._num_channels]], dim=1)
            return critic_forward(self.nets.critic.views(), inputs)[..., 0].mean(0).sum()

        gradient: Float32Array = torch.func.grad(total)(actions).cpu().numpy()
        return gradient

    def _tensor(self, values: AnyFloatArray) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32), device=self._device)

    def weights(self) -> Weights:
        """Copy of all that acting needs; `acting.ResidualActor` and `load` take it."""
        return self.nets.weights(self.config)

    def load(self, weights: Mapping[str, Float32Array]) -> None:
        """Take over the acting part of another learner, e.g. the best snapshot.

        Raises:
            ConfigError: They are of other sizes.
        """
        self.nets.load_weights(weights)
        self._actor = None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; tensors and plain values for `torch.save`."""
        return {
            "config": asdict(self.config),
            "sizes": (self.obs_dim, self.action_dim),
            "nets": self.nets.state_dict(),
            "num_updates": self._num_updates,
            "num_actor_turns": self._num_actor_turns,
            "generator": self._generator.get_state(),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called.

        Raises:
            ConfigError: The state is of a learner with other settings or sizes, or damaged.
        """
        try:
            self._check_same(state)
            self.nets.load_state_dict(state["nets"])
            self._num_updates = int(state["num_updates"])
            self._num_actor_turns = int(state["num_actor_turns"])
            self._generator.set_state(state["generator"])
            self._rng.bit_generator.state = state["rng"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"this is not the state of a residual learner: {error}") from error
        self._actor = None

    def adopt(self, state: Mapping[str, Any]) -> None:
        """Begin with what another learner has learned; losses, rates and noise stay ours.

        Args:
            state: Its `state_dict`.

        Raises:
            ConfigError: Its networks are of other sizes or mean something else; names why.
        """
        self._check_same(state, _SHAPING)
        self.nets.load_state_dict(state["nets"])
        self._actor = None

    def _check_same(self, state: Mapping[str, Any], names: Collection[str] = ()) -> None:
        theirs, ours = completed_learner(state["config"]), asdict(self.config)
        different = [
            f"{name}={theirs.get(name)}"
            for name in names or ours
            if theirs.get(name) != ours[name]
        ]
        if tuple(state["sizes"]) != (self.obs_dim, self.action_dim):
            different.append(f"(obs_dim, action_dim)={tuple(state['sizes'])}")
        if different:
            raise ConfigError(f"the state was begun with {', '.join(different)}")
