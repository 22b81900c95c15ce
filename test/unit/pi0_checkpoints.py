# SPDX-License-Identifier: Apache-2.0
"""Small random PI0 checkpoints and observations for them, made in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PI0Config, PI0ForConditionalGeneration

from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.policies.manifest import (
    ActionSection,
    PolicyManifest,
    PrefixSection,
    StateSection,
    write_manifest,
)
from vla_rl_ros.policies.pi0.nano import make_nano
from vla_rl_ros.policies.pi0.nano_files import save_nano
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings

torch.set_num_threads(1)

CAMERAS = ("wrist", "front")
INSTRUCTION = "lift the red cube"
WORDS = ("<pad>", "<bos>", "\n", "<unk>", *INSTRUCTION.split(), "press", "yellow", "button")
STOCK_HORIZON = 8
NANO_HORIZON = 16
NANO_STATE = (
    "tcp.x_m",
    "tcp.y_m",
    "tcp.z_m",
    *(f"tcp.r6d_{i}" for i in range(6)),
    "gripper.width_m",
)
STD = (0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.5)
MEAN = (0.001, 0.0, -0.002, 0.0, 0.0, 0.01, 0.5)
ENVIRONMENT = PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS)


def write_stock(directory: Path, *, horizon: int = STOCK_HORIZON) -> Path:
    """A stock PI0 with padded states and actions, untrained, without prefix conditioning."""
    torch.manual_seed(0)
    gemma = {
        "model_type": "gemma",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 32,
    }
    siglip = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "vision_use_head": False,
    }
    vlm = {
        "model_type": "paligemma",
        "text_config": dict(gemma),
        "vision_config": siglip,
        "projection_dim": 32,
        "image_token_id": 32,
    }
    config = PI0Config(
        vlm_config=vlm,
        dit_config=dict(gemma),
        chunk_size=horizon,
        max_state_dim=12,
        max_action_dim=9,
        num_inference_steps=4,
    )
    model = PI0ForConditionalGeneration(config)
    _enliven(model)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    write_manifest(stock_manifest(), directory)
    return directory


def stock_manifest(**changes: object) -> PolicyManifest:
    """What belongs to `write_stock`."""
    values: dict[str, object] = {
        "backend": "pi0",
        "control_period_s": 0.1,
        "cameras": CAMERAS,
        "image_px": 28,
        "image_resize": "pad",
        "state": StateSection(channels=("tcp.x_m", "tcp.y_m", "tcp.z_m", "gripper.width_m")),
        "action": ActionSection(codec="delta_target", mean=MEAN, std=STD),
        "prompt": "pi0",
        "denoise_steps": 4,
    }
    return PolicyManifest(**(values | changes))


def write_nano(directory: Path) -> Path:
    """An untrained pi0-nano that is not silent."""
    torch.manual_seed(0)
    model = make_nano()
    torch.nn.init.normal_(model.action_out_proj.weight, std=0.1)
    directory.mkdir(parents=True, exist_ok=True)
    save_nano(model, directory)
    write_tokenizer(directory)
    manifest = PolicyManifest(
        backend="pi0",
        control_period_s=0.1,
        cameras=CAMERAS,
        image_px=64,
        image_resize="area",
        state=StateSection(channels=NANO_STATE),
        action=ActionSection(codec="delta_measured", mean=MEAN, std=STD),
        prefix=PrefixSection(max_locked=8, conditioning=("lock",)),
        prompt="raw",
        denoise_steps=5,
    )
    write_manifest(manifest, directory)
    return directory


def write_tokenizer(directory: Path) -> None:
    """Whole words, with <image> added as PaliGemma's processor does."""
    ids = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.add_special_tokens(["<bos>", "\n", "<image>"])
    tokenizer.save(str(directory / "tokenizer.json"))


def change_json(file: Path, **changes: object) -> None:
    """Overwrite keys of a JSON file; None removes one."""
    values = json.loads(file.read_text())
    values.update(changes)
    file.write_text(json.dumps({key: v for key, v in values.items() if v is not None}))


def observation(seed: int = 0, px: int = 128, instruction: str = INSTRUCTION) -> PolicyObservation:
    """Random images and a state in front of the robot."""
    rng = np.random.default_rng(seed)
    state = rng.normal(0.0, 0.1, 20)
    state[3:7] = (1.0, 0.0, 0.0, 0.0)
    return PolicyObservation(
        stamp_ns=0,
        images={name: rng.integers(0, 256, (px, px, 3), dtype=np.uint8) for name in CAMERAS},
        state=state,
        instruction=instruction,
        task="lift",
    )


def promise(
    conditioning: Conditioning, *, num_locked: int, num_rows: int | None = None, seed: int = 7
) -> Prefix:
    """Random promised actions of a plausible size."""
    rng = np.random.default_rng(seed)
    num_rows = num_locked if num_rows is None else num_rows
    actions = np.array(MEAN) + np.array(STD) * rng.standard_normal((num_rows, 7))
    actions[:, 6] = rng.integers(0, 2, num_rows)
    return Prefix(actions=actions, num_locked=num_locked, conditioning=conditioning)


def settings(directory: Path, **changes: object) -> PolicySettings:
    """Settings for a checkpoint, on a CPU."""
    return PolicySettings(**({"path": str(directory), "device": "cpu"} | changes))


def _enliven(model: torch.nn.Module) -> None:
    """Weights large enough that images, words and promises show in the answer."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
