# SPDX-License-Identifier: Apache-2.0
"""The denoising loop of PI0, with promised actions in it.

transformers' `sample_actions` knows no promises; this is the same computation taken apart (a test
compares the two): images and instruction are encoded once, then every Euler step reads their keys
and values. Flow time is transformers': 1 is noise, 0 is clean, the model predicts noise - action;
papers on real-time chunking write tau = 1 - time. Called by `backend`, and by `graph`, which
records it, hence no branches on values here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla_rl_ros.policies.pi0.forward import embed_suffix


class _Collector:
    """Stands in for a transformers cache while the prefix is encoded: keeps keys and values."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        self.layers.append((keys, values))
        return keys, values


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What stays the same over all steps of one inference; nothing ever writes into it.

    Attributes:
        layers: Keys and values of images and instruction, per layer (1, heads, L, width).
        mask: Added to the attention of the suffix (state and H actions), (1, 1, 1 + H, L + 1 + H).
        positions: Of the suffix, (1, 1 + H).
        state: Normalised proprioception, (1, state_dim).
        seen: What the vision tower made of the images, (cameras, tokens, width).
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor
    positions: Tensor
    state: Tensor
    seen: Tensor

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """What attention calls on a cache: the suffix follows the prefix and is not kept."""
        past_keys, past_values = self.layers[layer_idx]
        size = (keys.shape[0], -1, -1, -1)
        return (
            torch.cat([past_keys.expand(size), keys], dim=2),
            torch.cat([past_values.expand(size), values], dim=2),
        )


class Flow:
    """A PI0 as two functions: `observe` once per inference, `velocity` once per step."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers' class is untyped
        """Take over a loaded `PI0ForConditionalGeneration`.

        Args:
            model: In eval mode; its weights are no longer trainable afterwards.
        """
        self._model = model.eval().requires_grad_(False)
        self.horizon = int(model.config.chunk_size)
        self.dtype: torch.dtype = model.action_out_proj.weight.dtype
        self.device: torch.device = model.action_out_proj.weight.device

    def observe(
        self, pixels: Tensor, tokens: Tensor, token_mask: Tensor, state: Tensor
    ) -> Context:
        """Encode images and instruction.

        Args:
            pixels: In [-1, 1], (1, cameras, 3, px, px).
            tokens: Instruction, (1, n); the tokens that stand for images are added here.
            token_mask: 1 for words, 0 for padding behind them, (1, n), int64.
            state: Normalised and padded, (1, state_dim).
        """
        vlm = self._model.model.vlm
        features = vlm.get_image_features(pixels[0].to(self.dtype)).pooler_output
        seen = features.reshape(1, -1, features.shape[-1])
        embeds = torch.cat([seen, vlm.get_input_embeddings()(tokens)], dim=1)
        shown = torch.cat([torch.ones_like(seen[:, :, 0], dtype=torch.int64), token_mask], dim=1)
        hidden = self._penalty(shown == 0)[:, None, None, :]
        cache = _Collector()
        vlm.language_model(
            inputs_embeds=embeds,
            attention_mask=hidden.expand(-1, -1, embeds.shape[1], -1),
            # As with stock `sample_actions` given a mask; without one PaliGemma counts from 1.
            position_ids=shown.cumsum(-1) - 1,
            past_key_values=cache,
        )
        size = 1 + self.horizon
        # The state token must not see the actions; the actions see everything.
        blocked = torch.zeros(size, size, dtype=torch.bool, device=self.device)
        blocked[0, 1:] = True
        own = self._penalty(blocked)[None, None]
        return Context(
            tuple(cache.layers),
            torch.cat([hidden.expand(-1, -1, size, -1), own], dim=-1),
            shown.sum(-1, keepdim=True) + torch.arange(size, device=self.device),
            state.to(self.dtype),
            features,
        )

    def velocity(self, context: Context, noisy: Tensor, times: Tensor) -> Tensor:
        """Predict noise - action.

        Args:
            context: From `observe`.
            noisy: Actions on their way, float32, (samples, H, action_dim).
            times: Flow time of every action, (samples, H).

        Returns:
            float32, (samples, H, action_dim), differentiable in `noisy`.
        """
        state = context.state.expand(noisy.shape[0], -1)
        output = self._model.model.dit(
            inputs_embeds=embed_suffix(self._model, state, noisy.to(self.dtype), times),
            attention_mask=context.mask,
            position_ids=context.positions,
            past_key_values=context,
        )
        flow: Tensor = self._model.action_out_proj(output.last_hidden_state[:, 1:])
        return flow.float()

    def _penalty(self, blocked: Tensor) -> Tensor:
        return blocked.to(self.dtype) * torch.finfo(self.dtype).min


@dataclass(frozen=True, slots=True, eq=False)
class Lock:
    """Rows that are decided.

    Attributes:
        actions: Normalised, (1, H, action_dim); what the other rows say does not matter.
        is_locked: (1, H), bool.
        is_clean: Whether the weights were trained with clean rows at flow time 0 among noisy ones
            (arXiv 2512.05964). Otherwise the rows are shown with as much noise as all others,
            which any flow model understands, if less exactly.
    """

    actions: Tensor
    is_locked: Tensor
    is_clean: bool

    def apply(self, noisy: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Overwrite the locked rows; returns actions and the flow time of every row."""
        rows = self.is_locked[..., None]
        if self.is_clean:
            clean_times = torch.where(self.is_locked, torch.zeros_like(times), times)
            return torch.where(rows, self.actions, noisy), clean_times
        mixed = times[..., None] * noise + (1.0 - times[..., None]) * self.actions
        return torch.where(rows, mixed, noisy), times


@torch.no_grad()
def denoise(
    flow: Flow, context: Context, noise: Tensor, num_steps: int, lock: Lock | None = None
) -> Tensor:
    """Integrate from noise to actions by Euler's rule.

    Args:
        flow: The model.
        context: Of the observation.
        noise: Standard normal, (samples, H, action_dim).
        num_steps: Number of steps.
        lock: Rows to overwrite before every step and at the end.

    Returns:
        Normalised actions, (samples, H, action_dim).
    """
    actions = noise
    for times in _times(noise, num_steps):
        if lock is not None:
            actions, times = lock.apply(actions, noise, times)
        actions = actions - flow.velocity(context, actions, times) / num_steps
    if lock is None:
        return actions
    return torch.where(lock.is_locked[..., None], lock.actions, actions)


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """A plan that pulls on the answer (real-time chunking, arXiv 2506.07339, eq. 2-4).

    Attributes:
        target: The plan Y, normalised, (1, H, action_dim).
        weights: How much each number of it counts, 0 to 1, (1, H, action_dim).
        gain: Guidance weight as a function of tau = 1 - time.
        is_jacobian: Whether the error is carried back through the model, as in the paper;
            otherwise the Jacobian of the clean estimate is taken for the identity, which costs no
            backward pass and pulls only where the plan has weight.
    """

    target: Tensor
    weights: Tensor
    gain: Callable[[float], float]
    is_jacobian: bool


def denoise_guided(
    flow: Flow, context: Context, noise: Tensor, num_steps: int, guide: Guide
) -> Tensor:
    """Integrate like `denoise`, pulled towards a plan.

    Per step of width 1 / n, with v = -velocity and the clean estimate Ahat = A - time * velocity:
    ``A += (v + gain(tau) * ((Y - Ahat) * W)^T dAhat/dA) / n``.
    """
    actions = noise
    for step, times in enumerate(_times(noise, num_steps)):
        pull, velocity = _pull(flow, context, actions, times, guide)
        gain = guide.gain(step / num_steps)
        actions = actions + (gain * pull - velocity) / num_steps
    return actions


def _pull(
    flow: Flow, context: Context, actions: Tensor, times: Tensor, guide: Guide
) -> tuple[Tensor, Tensor]:
    """The guidance term before its gain, and the velocity; neither carries gradients."""
    with torch.set_grad_enabled(guide.is_jacobian):
        source = actions.detach().requires_grad_(guide.is_jacobian)
        velocity = flow.velocity(context, source, times)
        clean = source - times[..., None] * velocity
    error = (guide.target - clean.detach()) * guide.weights
    if not guide.is_jacobian:
        return error, velocity
    (pull,) = torch.autograd.grad(clean, source, grad_outputs=error)
    return pull, velocity.detach()


def _times(noise: Tensor, num_steps: int) -> Iterator[Tensor]:
    """Flow time before each step, one per row of every sample: 1, 1 - 1/n, ..., 1/n."""
    for step in range(num_steps):
        yield torch.full_like(noise[..., 0], 1.0 - step / num_steps)
