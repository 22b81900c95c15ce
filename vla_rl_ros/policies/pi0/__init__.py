# SPDX-License-Identifier: Apache-2.0
"""PI0 from a local directory: `make` and `make_eyes` are the entry points and import torch."""

from __future__ import annotations

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.eyes import Eyes
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyEnvironment, PolicySettings


def make(settings: PolicySettings, environment: PolicyEnvironment) -> ChunkPolicy:
    """Entry point of the back end.

    Raises:
        ConfigError: The checkpoint, the settings or the cell do not fit, or torch or transformers
            is not installed; names field and fix.
    """
    try:
        from vla_rl_ros.policies.pi0.backend import make_policy
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"policy='pi0' needs the Python package '{error.name}': pip install "
            "'vla_rl_ros[learning]', or export the checkpoint and use policy 'onnx'"
        ) from error

    return make_policy(settings, environment)


def make_eyes(settings: PolicySettings) -> Eyes:
    """The vision tower of the checkpoint that `settings.eyes` names.

    Raises:
        ConfigError: It does not load, or torch or transformers is not installed.
    """
    try:
        from vla_rl_ros.policies.pi0.tower import Tower
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"settings.eyes needs the Python package '{error.name}': pip install "
            "'vla_rl_ros[learning]'"
        ) from error

    return Tower(settings)
