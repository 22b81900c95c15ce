# SPDX-License-Identifier: Apache-2.0
"""What a base policy is trained on: flow matching with locked prefixes, and localisation.

Loss of a sample with delay d, flow time t and noise e (action-prefix conditioning, arXiv
2512.05964): rows before d enter clean with time 0, the others as ``t e + (1 - t) a``, and the
prediction of ``e - a`` is judged on the unmasked rows from d on. t is drawn as PI0 draws it.
Several draws of (e, t) share the cost of one encoded observation.

Two linear heads, thrown away after training, have to say where the object of the instruction is:
without them the model learns several times slower what the words mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.learning.base_data import TASK_ORDER
from vla_rl_ros.learning.base_labels import Samples
from vla_rl_ros.learning.base_language import wording_tokens
from vla_rl_ros.policies.pi0.forward import PrefixCache, encode_prefix, suffix_hidden
from vla_rl_ros.policies.pi0.nano import IMAGE_PX, IMAGE_TOKEN_ID, PAD_ID, PATCH_PX, make_nano

NUM_CAMERAS = 2
_IMAGE_TOKENS = NUM_CAMERAS * (IMAGE_PX // PATCH_PX) ** 2
_DM_PER_M = 10.0
_HUBER_DM = 0.1
# Beta(1.5, 1) squeezed into [0.001, 1]: more noise than data (pi0, appendix B).
_TIME_ALPHA, _TIME_SCALE, _TIME_OFFSET = 1.5, 0.999, 0.001


@dataclass(slots=True)
class Losses:
    """Scalars of one batch.

    Attributes:
        flow: Mean squared error of the flow, normalised units.
        where: Huber loss of the localisation.
    """

    flow: Tensor
    where: Tensor


class BaseLearner(nn.Module):
    """pi0-nano with what only training needs.

    Attributes:
        model: What is shipped.
    """

    tokens: Tensor

    def __init__(self) -> None:
        """Initialise from torch's random state."""
        super().__init__()
        self.model = make_nano()
        width = self.model.expert_hidden_size
        self.where_prefix = nn.Linear(width, 3)
        self.where_state = nn.Linear(width, 3)
        text = torch.from_numpy(wording_tokens(list(TASK_ORDER)))
        images = torch.full((*text.shape[:2], _IMAGE_TOKENS), IMAGE_TOKEN_ID)
        self.register_buffer("tokens", torch.cat([images, text], dim=-1), persistent=False)

    def losses(
        self, samples: Samples, wordings: Tensor, *, draws: int, generator: torch.Generator
    ) -> Losses:
        """Losses of a batch.

        Args:
            samples: Batch of B.
            wordings: How each task is called, shape (B,).
            draws: Draws of noise and time per sample.
            generator: Source of noise and time.
        """
        tasks = torch.from_numpy(samples.tasks)
        cache = self.encode(torch.from_numpy(samples.images), self.tokens[tasks, wordings])
        text = cache.hidden
        cache.repeat(draws)
        actions, masks, delays, states, targets = (
            torch.from_numpy(values).repeat_interleave(draws, 0)
            for values in (
                samples.actions, samples.masks, samples.delays, samples.states, samples.targets_m
            )
        )  # fmt: skip
        times = _token_times(delays, actions.shape[1], generator)
        noise = torch.randn(actions.shape, generator=generator)
        mixed = times[..., None] * noise + (1.0 - times[..., None]) * actions
        hidden = suffix_hidden(self.model, cache, states, mixed, times)
        flow = self.model.action_out_proj(hidden[:, 1:])
        where = _where_loss(self.where_state(hidden[:, 0]), targets)
        if text is not None:
            # The first text token: all of the prefix sees all of it.
            guess = self.where_prefix(text[:, _IMAGE_TOKENS])
            where = where + _where_loss(guess, torch.from_numpy(samples.targets_m))
        return Losses(masked_error(flow, noise - actions, masks), where)

    def encode(self, images: Tensor, tokens: Tensor) -> PrefixCache:
        """Encode images (B, 2, 64, 64, 3), uint8, and tokens (B, L)."""
        pixels = images.permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0
        mask = (tokens != PAD_ID).long()
        return encode_prefix(self.model, pixels, tokens, mask, with_hidden=True)

    @torch.no_grad()
    def locate(self, samples: Samples) -> Tensor:
        """Guess of the object's position relative to the TCP in metres, shape (B, 3)."""
        tasks = torch.from_numpy(samples.tasks)
        cache = self.encode(
            torch.from_numpy(samples.images), self.tokens[tasks, torch.zeros_like(tasks)]
        )
        noise = torch.zeros(samples.actions.shape)
        times = torch.ones(samples.actions.shape[:2])
        hidden = suffix_hidden(self.model, cache, torch.from_numpy(samples.states), noise, times)
        guess: Tensor = self.where_state(hidden[:, 0]) / _DM_PER_M
        return guess


def masked_error(flow: Tensor, wanted: Tensor, masks: Tensor) -> Tensor:
    """Mean squared error over the rows that count; zero where none does."""
    error = (flow - wanted).square().mean(-1)
    return (error * masks).sum() / masks.sum().clamp(min=1)


def _token_times(delays: Tensor, horizon: int, generator: torch.Generator) -> Tensor:
    """Flow time per row, 0 in the prefix, shape (B, horizon)."""
    # The inverse of the distribution function of Beta(alpha, 1) is u ** (1 / alpha).
    uniform = torch.rand(len(delays), generator=generator)
    times = uniform ** (1.0 / _TIME_ALPHA) * _TIME_SCALE + _TIME_OFFSET
    is_prefix = torch.arange(horizon) < delays[:, None]
    return times[:, None].expand(-1, horizon).masked_fill(is_prefix, 0.0)


def _where_loss(guess_dm: Tensor, target_m: Tensor) -> Tensor:
    return functional.smooth_l1_loss(guess_dm, _DM_PER_M * target_m, beta=_HUBER_DM)
