# SPDX-License-Identifier: Apache-2.0
"""One gradient step of each network, made of the losses in `td`, `sac`, `td3`, `calql`, `grasp`.

A step reads a batch and noise, changes the networks in place and returns its metrics; it draws no
random number and takes no branch that depends on data, so `fused_step` may compile it whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla_rl_ros.learning import calql, grasp, sac, td, td3
from vla_rl_ros.learning.acting import Grasp
from vla_rl_ros.learning.lowest_critic import lowest
from vla_rl_ros.learning.nets import Nets
from vla_rl_ros.learning.networks import actor_forward, critic_forward
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.residual import Drawn, clipped_part, compose, join

CRITIC_METRICS = ("critic_loss", "q_mean", "q_spread", "target_mean", "td_error")
CONSERVATIVE_METRICS = ("conservative_gap", "calibrated_part")
ACTOR_METRICS = ("actor_loss", "q_actor", "residual_mean", "clipped_part", "log_prob", "alpha")
GRASP_METRICS = ("grasp_loss", "grasp_q_mean", "grasp_keep_part")

Arrays = dict[str, Tensor]


@dataclass(slots=True)
class Candidates:
    """Actions of the conservative term.

    Attributes:
        actions: Shape (3 N, B, C); the first N are uniform.
        log_density: Shape (3 N, B); None for a policy without densities.
    """

    actions: Tensor
    log_density: Tensor | None


@dataclass(frozen=True, slots=True)
class GradientSteps:
    """The steps of one learner.

    Attributes:
        config: Settings.
        nets: What is changed.
        num_channels: Continuous channels of an action, C.
        value_range: TD targets are kept within, None for no bounds.
    """

    config: LearnerConfig
    nets: Nets
    num_channels: int
    value_range: tuple[float, float] | None = None

    def critic(
        self, batch: Arrays, noise: Arrays, *, is_conservative: bool, is_offline: bool
    ) -> Tensor:
        """One step of the critics and their target.

        Args:
            batch: Tensors of `batch.Batch`.
            noise: Of `UpdateNoise.critic` for the same kind of step.
            is_conservative: Whether the Cal-QL term is part of the loss.
            is_offline: Whether the next action is the one of `config.offline_target`.

        Returns:
            `CRITIC_METRICS`, then `CONSERVATIVE_METRICS` where that term is on.
        """
        critic = self.nets.critic
        obs = self.nets.scaled(batch["obs"])
        wanted = self._target(batch, noise, is_offline=is_offline)
        inputs = join(obs, batch["action"][:, : self.num_channels])
        candidates = self._candidates(batch, noise) if is_conservative else None

        def loss(views: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            q = critic_forward(views, inputs)[..., 0]
            total = td.loss(q, wanted)
            if candidates is None:
                return total, (total, q)
            gap, bounded = self._conservative_gap(views, obs, batch["mc_return"], candidates, q)
            total = total + self.config.conservative_weight * gap
            return total, (total, q, gap, bounded)

        gradients, (total, q, *more) = torch.func.grad(loss, has_aux=True)(critic.views())
        critic.step(gradients, self.config.critic_lr, self.config.max_grad_norm)
        critic.track(self.config.tau)
        spread = (q.amax(0) - q.amin(0)).mean()
        error = (q - wanted).abs().mean()
        return torch.stack([total, q.mean(), spread, wanted.mean(), error, *more])

    def actor(self, batch: Arrays, noise: Arrays) -> Tensor:
        """One step of the actor, and of the temperature in the SAC form.

        Args:
            batch: Tensors of `batch.Batch`.
            noise: Of `UpdateNoise.actor`; used by SAC only.

        Returns:
            `ACTOR_METRICS`.
        """
        config, nets = self.config, self.nets
        obs, base = nets.scaled(batch["obs"]), batch["base"]
        inputs = join(obs, base)
        critic_views, alpha = nets.critic.views(), nets.temperature.params[0].exp()

        def loss(views: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            head = actor_forward(views, inputs)
            drawn = (
                sac.draw(head, noise["now"], nets.bound, nets.is_moved)
                if config.algorithm == "sac"
                else td3.mean(head, nets.bound)
            )
            action = compose(base, drawn.residual)
            q = self._climbed(critic_views, obs, action)
            total = (
                sac.actor_loss(q, drawn.log_prob, alpha)
                if config.algorithm == "sac"
                else td3.actor_loss(q)
            )
            total = total + self._regularisers(batch, action, drawn)
            return total, (total, q.mean(), drawn.residual, drawn.log_prob)

        gradients, (total, q, residual, log_prob) = torch.func.grad(loss, has_aux=True)(
            nets.actor.views()
        )
        nets.actor.step(gradients, config.actor_lr, config.max_grad_norm)
        nets.actor.track(config.acting_tau)
        if config.algorithm == "sac":
            wanted_entropy = config.entropy_per_dim * nets.is_moved.sum()
            slope = sac.temperature_gradient(nets.temperature.params, log_prob, wanted_entropy)
            nets.temperature.step({"log_alpha": slope}, config.temperature_lr)
        return torch.stack(
            [
                total, q, residual.abs().mean(), clipped_part(base, residual), log_prob.mean(),
                alpha,
            ]
        )  # fmt: skip

    def grasp(self, batch: Arrays) -> Tensor:
        """One step of the grasp critic; returns `GRASP_METRICS`."""
        net, config = self.nets.grasp, self.config
        assert net is not None
        inputs = join(self.nets.scaled(batch["obs"]), batch["base"])
        next_inputs = join(self.nets.scaled(batch["next_obs"]), batch["next_base"])
        chosen = grasp.executed_choice(batch["action"][:, -1], batch["base"][:, -1])
        next_choice = grasp.choose(
            critic_forward(net.views(), next_inputs)[0],
            batch["next_base"][:, -1],
            config.grasp_margin,
        )
        next_value = grasp.value_of(
            critic_forward(net.target_views(), next_inputs)[0], next_choice
        )
        reward = batch["reward"] + batch["grasp_penalty"]
        wanted = td.target(reward, batch["discount"], next_value)

        def loss(views: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            q = critic_forward(views, inputs)[0]
            total = td.loss(grasp.value_of(q, chosen).unsqueeze(0), wanted)
            return total, (total, q.mean())

        gradients, (total, q) = torch.func.grad(loss, has_aux=True)(net.views())
        net.step(gradients, config.critic_lr, config.max_grad_norm)
        net.track(config.tau)
        keeps = (chosen == int(Grasp.KEEP)).float().mean()
        return torch.stack([total, q, keeps])

    def _target(self, batch: Arrays, noise: Arrays, *, is_offline: bool) -> Tensor:
        """TD target, shape (B,)."""
        config = self.config
        next_obs, next_base = self.nets.scaled(batch["next_obs"]), batch["next_base"]
        views = self.nets.critic.target_views()
        if config.num_target_critics < config.num_critics:
            views = td.pick_critics(views, noise["subset"])

        def lowest(action: Tensor) -> Tensor:
            return critic_forward(views, join(next_obs, action))[..., 0].amin(0)

        if is_offline and config.offline_target == "base":
            value = lowest(next_base[:, : self.num_channels].clamp(-1.0, 1.0))
        elif is_offline:
            many = noise["next_many"]
            drawn = self._draw(next_obs, next_base, many)
            actions = compose(next_base, drawn.residual)
            repeated = next_obs.expand(len(many), *next_obs.shape)
            flat = critic_forward(views, join(repeated, actions).flatten(0, 1))[..., 0]
            value = flat.view(len(flat), len(many), -1).amin(0).amax(0)
        else:
            drawn = self._draw(next_obs, next_base, noise["next"].unsqueeze(0))
            value = lowest(compose(next_base, drawn.residual[0]))
            if config.algorithm == "sac" and config.backup_entropy:
                alpha = self.nets.temperature.params[0].exp()
                value = sac.soft_value(value, drawn.log_prob[0], alpha)
        wanted = td.target(batch["reward"], batch["discount"], value)
        return wanted if self.value_range is None else wanted.clamp(*self.value_range)

    def _climbed(self, views: Arrays, obs: Tensor, action: Tensor) -> Tensor:
        """What the actor climbs, shape (B,)."""
        if self.config.actor_q == "mean":
            return critic_forward(views, action, given=obs)[..., 0].mean(0)
        value, slope = lowest(views, obs, action.detach())
        return value + ((action - action.detach()) * slope).sum(-1)

    def _draw(self, obs: Tensor, base: Tensor, noise: Tensor) -> Drawn:
        """Residuals (N, B, C) of the present policy for noise (N, B, C)."""
        head = actor_forward(self.nets.actor.views(), join(obs, base))
        head = head.expand(len(noise), *head.shape)
        if self.config.algorithm == "sac":
            return sac.draw(head, noise, self.nets.bound, self.nets.is_moved)
        return td3.draw(
            head,
            noise,
            self.nets.bound,
            std=self.config.target_std,
            noise_clip=self.config.noise_clip,
        )

    def _candidates(self, batch: Arrays, noise: Arrays) -> Candidates:
        """Actions to be valued no higher than data: N uniform, then 2 N of the policy."""
        base = batch["base"]
        drawn = [
            self._draw(self.nets.scaled(batch["obs"]), base, noise["now_many"]),
            self._draw(
                self.nets.scaled(batch["next_obs"]), batch["next_base"], noise["next_many"]
            ),
        ]
        uniform = self.nets.bound * noise["uniform"]
        actions = compose(base, torch.cat([uniform, *(each.residual for each in drawn)]))
        if self.config.algorithm != "sac":
            return Candidates(actions, None)
        log_uniform = calql.uniform_log_density(self.nets.is_moved.sum()).expand(
            uniform.shape[:-1]
        )
        return Candidates(actions, torch.cat([log_uniform, *(each.log_prob for each in drawn)]))

    def _conservative_gap(
        self,
        views: Arrays,
        obs: Tensor,
        mc_return: Tensor,
        candidates: Candidates,
        q_data: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Penalty of Cal-QL, and the part of policy candidates that the return bounds."""
        actions = candidates.actions
        repeated = obs.expand(len(actions), *obs.shape)
        flat = critic_forward(views, join(repeated, actions).flatten(0, 1))[..., 0]
        q = flat.view(len(flat), len(actions), -1)
        num_uniform = len(actions) // 3
        q_uniform, q_policy = q[:, :num_uniform], q[:, num_uniform:]
        bounded = (q_policy < mc_return).float().mean()
        if self.config.is_calibrated:
            q_policy = calql.calibrate(q_policy, mc_return)
            if self.config.calibrate_uniform:
                q_uniform = calql.calibrate(q_uniform, mc_return)
        soft_maximum = calql.log_sum_exp(
            torch.cat([q_uniform, q_policy], 1), candidates.log_density
        )
        return calql.penalty(soft_maximum, q_data), bounded

    def _regularisers(self, batch: Arrays, action: Tensor, drawn: Drawn) -> Tensor:
        """Optional pulls of the actor: to demonstrations (SACfD), to the base (RPD)."""
        config = self.config
        total = torch.zeros((), device=action.device)
        if config.bc_weight > 0.0:
            distance = (action - batch["action"][:, : self.num_channels]).square().sum(-1)
            total = total + config.bc_weight * (batch["is_demo"] * distance).mean()
        if config.residual_weight > 0.0:
            length = (drawn.residual / self.nets.bound.clamp(min=1e-6)).square().sum(-1)
            total = total + config.residual_weight * length.mean()
        return total
