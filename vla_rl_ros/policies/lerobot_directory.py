# SPDX-License-Identifier: Apache-2.0
"""Loads a directory saved by LeRobot and checks it against our manifest. Called by `lerobot`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.manifest import PolicyManifest
from vla_rl_ros.policies.model_inputs import InputValue
from vla_rl_ros.policies.protocol import PolicySettings

TASK = "task"
"""LeRobot's name of the instruction."""


def load(directory: Path, settings: PolicySettings) -> tuple[Any, Any]:
    """Policy and the pair of processors of a directory, on the device of the settings.

    Raises:
        ConfigError: The device is not there.
        ImportError: LeRobot is not installed.
        Exception: Whatever LeRobot raises over what it cannot load.
    """
    import torch
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    has_cuda = torch.cuda.is_available()
    if settings.device == "tensorrt" or (settings.device == "cuda" and not has_cuda):
        raise ConfigError(f"device='{settings.device}' is not there for lerobot; use auto or cpu")
    device = "cuda" if settings.device != "cpu" and has_cuda else "cpu"
    torch.set_num_threads(settings.num_threads)
    config = PreTrainedConfig.from_pretrained(directory, local_files_only=True)
    config.device = device
    model = get_policy_class(config.type).from_pretrained(
        directory, config=config, local_files_only=True, strict=True
    )
    processors = make_pre_post_processors(
        config,
        pretrained_path=str(directory),
        preprocessor_overrides={"device_processor": {"device": device}},
    )
    return model.eval(), processors


def check_weights(directory: Path) -> None:
    """Refuse a damaged file; some policies of LeRobot go on with random weights instead."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ConfigError(f"policy='lerobot' needs the Python package {error.name}") from error
    file = directory / "model.safetensors"
    try:
        with safe_open(file, framework="numpy") as weights:
            names = list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} is missing or damaged: {error}") from error
    if not names:
        raise ConfigError(f"{file} holds no weights")


def check_features(manifest: PolicyManifest, config: Any) -> None:  # noqa: ANN401
    """Refuse inputs other than those of training, and policies that look back."""
    if config.n_obs_steps != 1:
        raise ConfigError(
            f"n_obs_steps={config.n_obs_steps} in config.json: policies that look back are not "
            "supported; train with n_obs_steps=1"
        )
    wanted, given = set(config.input_features), set(manifest.inputs) - {TASK}
    if missing := sorted(wanted - given):
        raise ConfigError(f"inputs lacks '{missing[0]}', which config.json of the policy lists")
    if unknown := sorted(given - wanted):
        raise ConfigError(f"inputs.{unknown[0]} is not listed in config.json of the policy")


def check_shapes(values: Mapping[str, InputValue], config: Any) -> None:  # noqa: ANN401
    """Refuse sizes other than those of training; broadcasting would hide them."""
    for key, feature in config.input_features.items():
        value, wanted = values[key], tuple(feature.shape)
        if isinstance(value, str):
            raise ConfigError(f"inputs.{key} is text, config.json of the policy wants {wanted}")
        found = value.shape if value.ndim == 1 else (3, *value.shape[:2])
        if found != wanted:
            raise ConfigError(
                f"inputs.{key} has shape {found}, config.json of the policy wants {wanted}: "
                "change image_px or the channels"
            )


def conditionings_of(manifest: PolicyManifest, config: Any) -> frozenset[Conditioning]:  # noqa: ANN401
    """What the policy can do with a prefix, of what the manifest asks for."""
    rtc = getattr(config, "rtc_config", None)
    is_enabled = rtc is not None and rtc.enabled
    for name in manifest.prefix.conditioning:
        if name != Conditioning.GUIDE.value or not is_enabled:
            raise ConfigError(
                f"prefix.conditioning '{name}': LeRobot offers 'guide' only, and only with "
                "rtc_config.enabled in config.json"
            )
    return frozenset({Conditioning.NONE, *map(Conditioning, manifest.prefix.conditioning)})
