# SPDX-License-Identifier: Apache-2.0
"""The files of a pi0-nano: ``config.json`` and ``model.safetensors``, whole or not at all.

`loading` reads them for the `pi0` back end and distillation for the student's start; the training
in `learning` writes them into its checkpoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PI0Config

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.pi0.nano import STEM_CONV, STEM_KEY, TOKEN_TIME_KEY, NanoPI0


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
