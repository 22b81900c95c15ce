# SPDX-License-Identifier: Apache-2.0
"""pi0-nano: a PI0 of 0.4 million parameters.

Owns the architecture of the small model: its configuration, its convolutional stem and how its
weights begin. The training in `learning` makes new ones, `nano_files` reads and writes them,
`forward` runs them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PI0Config, PI0ForConditionalGeneration

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
