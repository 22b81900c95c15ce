# SPDX-License-Identifier: Apache-2.0
"""pi0-nano: a PI0 of 0.4 million parameters, and the two calls that every PI0 is run by.

Owns the architecture of the small model (`NanoPI0`, `build_config`, `make_nano`, `load_nano`) and,
for it and for a full-size `PI0ForConditionalGeneration` alike, `encode_prefix` and `velocity`. The
denoising loop of the `pi0` back end and the training in `learning` are their callers.

Flow time runs as in transformers: t = 1 is noise, t = 0 is the clean action,
``x_t = t * noise + (1 - t) * action`` and the network predicts ``v = noise - action``, so a
denoising step of width h is ``x <- x - h * v``. (Papers on real-time chunking use tau = 1 - t.)

Prefix conditioning (arXiv 2512.05964) gives every action token a flow time of its own: promised
actions enter clean with t = 0. `PI0ActionTimeEmbedding` takes one time per sample; `embed_suffix`
is the same network applied per token, equal to it when all times of a sample are equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, PI0Config, PI0ForConditionalGeneration

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ACTION_DIM

STEM_KEY, STEM_CONV = "vla_rl_ros_stem", "conv"
TOKEN_TIME_KEY = "vla_rl_ros_token_time"
HORIZON = 16
STATE_DIM = 10
IMAGE_PX = 64
PATCH_PX = 16
VOCABULARY_SIZE = 64
IMAGE_TOKEN_ID = VOCABULARY_SIZE - 1
PAD_ID, BEGIN_ID, END_ID, UNKNOWN_ID = 0, 1, 2, 3

_WIDTH = 64
_LAYERS = 3
_HEADS = 4
_FEED_FORWARD = 128
_STEM_CHANNELS = (24, 48)
_GROUPS = 4


def build_config() -> PI0Config:
    """Configuration of pi0-nano.

    Deviations from a scaled-down PI0: no padding of action and state to 32 channels (the model
    would have to denoise noise), as many key heads as heads, chunks of 16.
    """
    gemma = {
        "model_type": "gemma",
        "hidden_size": _WIDTH,
        "num_hidden_layers": _LAYERS,
        "intermediate_size": _FEED_FORWARD,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": _WIDTH // _HEADS,
        "vocab_size": VOCABULARY_SIZE,
        "pad_token_id": PAD_ID,
        "bos_token_id": BEGIN_ID,
        "eos_token_id": END_ID,
    }
    siglip = {
        "model_type": "siglip_vision_model",
        "hidden_size": _WIDTH,
        "intermediate_size": _FEED_FORWARD,
        "num_hidden_layers": 1,
        "num_attention_heads": _HEADS,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
        "vision_use_head": False,
    }
    vlm = {
        "model_type": "paligemma",
        "text_config": dict(gemma),
        "vision_config": siglip,
        "projection_dim": _WIDTH,
        "image_token_id": IMAGE_TOKEN_ID,
    }
    config = PI0Config(
        vlm_config=vlm,
        dit_config=dict(gemma),
        chunk_size=HORIZON,
        max_state_dim=STATE_DIM,
        max_action_dim=ACTION_DIM,
        num_inference_steps=5,
    )
    setattr(config, STEM_KEY, STEM_CONV)
    setattr(config, TOKEN_TIME_KEY, True)
    return config


class ConvStem(nn.Module):
    """Four strided convolutions in place of SigLIP's linear patches, which learn far slower.

    Attributes:
        weight: A single zero; SigLIP reads the type of the patch embedding's weight.
    """

    def __init__(self, width: int) -> None:
        """Build for images whose side is a multiple of `PATCH_PX`; `width` channels come out."""
        super().__init__()
        first, second = _STEM_CHANNELS
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.layers = nn.Sequential(
            *_convolution(3, first, kernel=5),
            *_convolution(first, second, kernel=3),
            *_convolution(second, width, kernel=3),
            *_convolution(width, width, kernel=3),
            nn.Conv2d(width, width, kernel_size=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, width, h / 16, w / 16)."""
        features: Tensor = self.layers(images)
        return features


def _convolution(channels_in: int, channels_out: int, *, kernel: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=kernel // 2),
        nn.GroupNorm(_GROUPS, channels_out),
        nn.ReLU(),
    )


class NanoPI0(PI0ForConditionalGeneration):  # type: ignore[no-untyped-call]
    """PI0 with a convolutional stem; everything else, `sample_actions` too, is transformers'."""

    def __init__(self, config: PI0Config) -> None:
        """Build with transformers' initialisation; `make_nano` gives one that learns.

        Raises:
            ConfigError: The configuration is not marked as pi0-nano's.
        """
        stem = getattr(config, STEM_KEY, None)
        if stem != STEM_CONV:
            raise ConfigError(f"config.json: {STEM_KEY}={stem!r}, pi0-nano needs '{STEM_CONV}'")
        super().__init__(config)
        tower = self.model.vlm.vision_tower
        tower = getattr(tower, "vision_model", tower)
        tower.embeddings.patch_embedding = ConvStem(tower.config.hidden_size)


def make_nano(config: PI0Config | None = None) -> NanoPI0:
    """Make an untrained pi0-nano; deterministic under `torch.manual_seed`.

    Linear layers start with deviation 1 / sqrt(inputs): the 0.02 of transformers is meant for
    thousands of channels and drowns the signal at 64. Words start as large as image tokens (they
    are scaled by sqrt(width)), or a layer later nothing would be left of them. The output starts
    at zero.
    """
    model = NanoPI0(config or build_config())
    words: Any = model.get_input_embeddings()
    nn.init.normal_(words.weight, std=words.embedding_dim**-0.5)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.zeros_(model.action_out_proj.weight)
    return model


def load_nano(directory: Path) -> NanoPI0:
    """Load ``config.json`` and ``model.safetensors`` of a pi0-nano, as float32 in eval mode.

    Raises:
        ConfigError: A file is missing, unreadable or not a pi0-nano; names file and field.
    """
    config = _read_config(directory / "config.json")
    model = NanoPI0(config)
    _load_weights(model, directory / "model.safetensors")
    model.train(False)
    return model


def save_nano(model: NanoPI0, directory: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float32) into an existing directory.

    Whoever reads meanwhile, or after a kill, finds whole weights: these or those of before.
    """
    from safetensors.torch import save

    config = {**model.config.to_dict(), "architectures": ["PI0ForConditionalGeneration"]}
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (directory / "config.json").write_text(text + "\n", encoding="utf-8")
    tensors = {name: value.contiguous() for name, value in _own_tensors(model).items()}
    # Not `save_file`: it makes files that only their owner can read.
    unfinished = directory / "model.part"
    unfinished.write_bytes(save(tensors, metadata={"format": "pt"}))
    unfinished.replace(directory / "model.safetensors")


def _own_tensors(model: NanoPI0) -> dict[str, Tensor]:
    """Weights by name, every shared tensor once."""
    seen: dict[int, str] = {}
    return {
        name: value
        for name, value in sorted(model.state_dict().items())
        if seen.setdefault(value.data_ptr(), name) == name
    }


def _read_config(path: Path) -> PI0Config:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    for key, wanted in (("model_type", "pi0"), (STEM_KEY, STEM_CONV), (TOKEN_TIME_KEY, True)):
        if values.get(key) != wanted:
            raise ConfigError(f"{path}: {key}={values.get(key)!r}, pi0-nano needs {wanted!r}")
    try:
        return PI0Config(**values)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: not a configuration of PI0 ({error})") from error


def _load_weights(model: NanoPI0, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    wanted = _own_tensors(model)
    if problem := _difference(wanted, tensors):
        raise ConfigError(f"{path}: {problem}; is it the file that belongs to config.json?")
    model.load_state_dict(tensors, strict=False)


def _difference(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """First difference between two sets of tensors as half a sentence, empty if there is none."""
    for name, value in wanted.items():
        if name not in found:
            return f"tensor '{name}' is missing"
        if found[name].shape != value.shape:
            return f"tensor '{name}' is {tuple(found[name].shape)}, not {tuple(value.shape)}"
        if not torch.isfinite(found[name]).all():
            return f"tensor '{name}' is not finite"
    extra = sorted(set(found) - set(wanted))
    return f"tensor '{extra[0]}' is unexpected" if extra else ""


@dataclass(slots=True)
class PrefixCache:
    """Keys and values of images and instruction, computed once per observation.

    Attributes:
        keys_values: Of every layer; `velocity` leaves it as it found it.
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


def velocity(
    model: PI0ForConditionalGeneration,
    cache: PrefixCache,
    state: Tensor,
    noisy_actions: Tensor,
    token_times: Tensor,
) -> Tensor:
    """Predict the flow ``noise - action`` of every action; one denoising step's work.

    Differentiable in `noisy_actions`. Arguments as in `embed_suffix`; `cache` can be used again.

    Returns:
        Shape (B, H, action_dim).
    """
    hidden = suffix_hidden(model, cache, state, noisy_actions, token_times)
    flow: Tensor = model.action_out_proj(hidden[:, 1:])
    return flow
