# SPDX-License-Identifier: Apache-2.0
"""The forward pass of any PI0 in two parts: images and instruction once, then flow per step.

Works on pi0-nano and on a full-size `PI0ForConditionalGeneration` alike, in batches and with
gradients. The training in `learning` is built on it; the denoising loop of the `pi0` back end
takes `embed_suffix` and is tested against the rest.

Flow time runs as in transformers: t = 1 is noise, t = 0 is the clean action,
``x_t = t * noise + (1 - t) * action`` and the network predicts ``v = noise - action``, so a
denoising step of width h is ``x <- x - h * v``. (Papers on real-time chunking use tau = 1 - t.)

Prefix conditioning (arXiv 2512.05964) gives every action token a flow time of its own: promised
actions enter clean with t = 0. `PI0ActionTimeEmbedding` takes one time per sample; `embed_suffix`
is the same network applied per token, equal to it when all times of a sample are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, PI0ForConditionalGeneration


@dataclass(slots=True)
class PrefixCache:
    """Keys and values of images and instruction, computed once per observation.

    Attributes:
        keys_values: Of every layer; `suffix_hidden` leaves it as it found it.
        attention_mask: 1 for tokens, 0 for padding, shape (B, L).
        hidden: Output of the last layer but one, (B, L, width), where it was asked for.
    """

    keys_values: Cache
    attention_mask: Tensor
    hidden: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of prefix tokens L."""
        return int(self.attention_mask.shape[1])

    def repeat(self, times: int) -> None:
        """Repeat every sample `times` times, neighbours together; gradients flow through."""
        self.keys_values.batch_repeat_interleave(times)
        self.attention_mask = self.attention_mask.repeat_interleave(times, 0)


def encode_prefix(
    model: PI0ForConditionalGeneration,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    with_hidden: bool = False,
) -> PrefixCache:
    """Run the vision-language part.

    Positions count the tokens that `attention_mask` shows, from 0 and on into the suffix: the same
    as stock `sample_actions` *with* a mask. Without one PaliGemma counts from 1, the suffix starts
    on the last prefix position, and the answer differs.

    Args:
        model: pi0-nano or any PI0.
        pixel_values: Images in [-1, 1], shape (B, cameras, 3, h, w), in the order of training.
        input_ids: Image tokens of every camera, then the text, shape (B, L).
        attention_mask: 1 for tokens, 0 for padding, shape (B, L).
        with_hidden: Whether to keep hidden states, for auxiliary losses.
    """
    batch, cameras = pixel_values.shape[:2]
    shown = torch.ones(batch, cameras, dtype=torch.bool, device=pixel_values.device)
    embeds = model.model.embed_prefix(input_ids, pixel_values, shown)
    output = model.model.vlm(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        position_ids=attention_mask.cumsum(-1) - 1,
        token_type_ids=torch.zeros_like(embeds)[:, :, 0],
        use_cache=True,
        output_hidden_states=with_hidden,
    )
    hidden = output.hidden_states[-2] if with_hidden else None
    return PrefixCache(output.past_key_values, attention_mask, hidden)


def embed_suffix(
    model: PI0ForConditionalGeneration, state: Tensor, noisy_actions: Tensor, token_times: Tensor
) -> Tensor:
    """State and action tokens with a flow time per action token.

    Args:
        model: pi0-nano or any PI0.
        state: Normalised proprioception, shape (B, state_dim).
        noisy_actions: Shape (B, H, action_dim).
        token_times: Flow time of each action, 1 noise, 0 clean, shape (B, H).

    Returns:
        Shape (B, 1 + H, width).
    """
    net = model.embed_action_time
    actions = net.action_in_proj(noisy_actions)
    angles = token_times[..., None].float() * net.sinusoid_embeds.sinusoid_freq
    times = torch.cat([angles.sin(), angles.cos()], dim=-1).to(actions.dtype)
    mixed = functional.silu(net.action_time_mlp_in(torch.cat([actions, times], dim=-1)))
    tokens = net.action_time_mlp_out(mixed)
    return torch.cat([net.state_proj(state)[:, None, :], tokens], dim=1)


def suffix_hidden(
    model: PI0ForConditionalGeneration,
    cache: PrefixCache,
    state: Tensor,
    noisy_actions: Tensor,
    token_times: Tensor,
) -> Tensor:
    """Output of the action expert for the state and every action, shape (B, 1 + H, width)."""
    output = model.model(
        action_embeds=embed_suffix(model, state, noisy_actions, token_times),
        attention_mask=cache.attention_mask,
        past_key_values=cache.keys_values,
    )
    # The expert appends its own keys; the next step must not see them.
    cache.keys_values.crop(cache.length - cache.keys_values.get_seq_length())
    hidden: Tensor = output.last_hidden_state
    return hidden
