# SPDX-License-Identifier: Apache-2.0
"""A PI0 from a local directory, whole or not at all. Called by `backend` and `tools.export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PI0Config, PI0ForConditionalGeneration

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.manifest import PolicyManifest
from vla_rl_ros.policies.pi0.nano import STEM_KEY, TOKEN_TIME_KEY
from vla_rl_ros.policies.pi0.nano_files import load_nano
from vla_rl_ros.policies.pi0.translation import ModelShape

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_BAD_CONFIG = (OSError, TypeError, ValueError, KeyError, AttributeError, StrictDataclassError)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(directory: Path, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Load ``config.json`` and ``model.safetensors``; the network is never asked.

    Args:
        directory: Checkpoint as transformers' ``save_pretrained`` writes it, or pi0-nano's.
        device: Where the weights go.
        dtype: Type of the weights; buffers such as frequencies keep theirs.

    Returns:
        A `PI0ForConditionalGeneration` in eval mode (transformers ships no types).

    Raises:
        ConfigError: A file is missing or damaged, or weights are missing, left over, of another
            size or not finite; names the file and the fix.
    """
    config = _read_config(directory)
    if not any((directory / name).is_file() for name in _WEIGHTS):
        raise ConfigError(f"{directory / _WEIGHTS[0]} is missing: the checkpoint has no weights")
    parsed = _parse_config(directory)
    is_nano = STEM_KEY in config
    model: Any = load_nano(directory) if is_nano else _load_stock(directory, parsed, dtype)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(device=device, dtype=dtype)
    _check_finite(model, directory)
    return model.to(device).eval()


def model_shape(model: Any) -> ModelShape:  # noqa: ANN401
    """Sizes of a loaded model."""
    config = model.config
    return ModelShape(
        horizon=config.chunk_size,
        action_dim=config.max_action_dim,
        state_dim=config.max_state_dim,
        image_px=config.vlm_config.vision_config.image_size,
        vocabulary_size=config.vlm_config.text_config.vocab_size,
    )


def is_clean_lock(model: Any, manifest: PolicyManifest) -> bool:  # noqa: ANN401
    """Whether locked rows are shown clean, at flow time 0, as only training makes meaningful.

    Raises:
        ConfigError: The manifest promises that training and config.json denies it.
    """
    is_trained = "lock" in manifest.prefix.conditioning
    if is_trained and not getattr(model.config, TOKEN_TIME_KEY, False):
        raise ConfigError(
            "policy.json: prefix.conditioning has 'lock', but config.json lacks "
            f"'{TOKEN_TIME_KEY}': true, without which no row can be clean among noisy ones"
        )
    return is_trained


def choose_device(name: str) -> torch.device:
    """Resolve the setting ``device``.

    Raises:
        ConfigError: Asked for what is not there, or for what torch does not do.
    """
    if name == "tensorrt":
        raise ConfigError("settings.device='tensorrt' needs policy 'onnx'; pi0 runs on torch")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("settings.device='cuda': torch finds no CUDA device; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and has_cuda else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve the setting ``dtype``: bfloat16 where a GPU computes in it, else float32."""
    if name != "auto":
        return _DTYPES[name]
    is_fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if is_fast else torch.float32


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("model_type") != "pi0":
        found = values.get("model_type", values.get("type")) if isinstance(values, dict) else None
        raise ConfigError(
            f"{path}: model_type={found!r} is not 'pi0'; checkpoints in LeRobot's format go "
            "through policy 'lerobot', or are converted by transformers' save_pretrained"
        )
    return values


def _parse_config(directory: Path) -> PI0Config:
    try:
        return PI0Config.from_pretrained(directory, local_files_only=True)
    except _BAD_CONFIG as error:
        raise ConfigError(f"{directory / 'config.json'} describes no PI0: {error}") from error


def _load_stock(directory: Path, config: PI0Config, dtype: torch.dtype) -> Any:  # noqa: ANN401
    load: Any = PI0ForConditionalGeneration.from_pretrained
    try:
        model, report = load(
            directory,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            # Reported with names below; the library's own error has none.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"weights in {directory} cannot be loaded: {error}") from error
    for field in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(map(str, report.get(field) or ())):
            raise ConfigError(
                f"weights in {directory}: {len(found)} {field.replace('_', ' ')}, the first is "
                f"{found[0]}: config.json and weights are not from the same model"
            )
    return model


def _check_finite(model: Any, directory: Path) -> None:  # noqa: ANN401
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise ConfigError(f"weights in {directory}: '{name}' is not finite")
