# SPDX-License-Identifier: Apache-2.0
"""Whether a value of the setting `eyes` names any, told before anything slow has begun."""

from __future__ import annotations

from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.cpu_model import MODEL_NAME, check_weights
from vla_rl_ros.policies.directory_kinds import kind_of
from vla_rl_ros.policies.goal_eyes import CHECKPOINT_NAME, are_goal_eyes, read_manifest
from vla_rl_ros.policies.manifest import MANIFEST_NAME
from vla_rl_ros.policies.protocol import SHIPPED_EYES


def check_eyes(eyes: str, option: str) -> None:
    """Refuse what makes no image features.

    Args:
        eyes: What was given; nothing is fine.
        option: How it was given, e.g. ``--eyes``.

    Raises:
        ConfigError: Neither eyes of 'train eyes' nor a PI0, or eyes that are damaged.
    """
    directory = Path(eyes).expanduser()
    if eyes in ("", SHIPPED_EYES):
        return
    if are_goal_eyes(directory):
        check_weights(directory / MODEL_NAME, read_manifest(directory).model_hash)
        return
    if (directory / MANIFEST_NAME).is_file():
        return
    if not directory.is_dir():
        problem = f"is no directory, nor '{SHIPPED_EYES}': name one of 'train eyes' or of a PI0"
    elif kind := kind_of(directory):
        problem = f"is {kind}; eyes are what 'train eyes' wrote, or a PI0"
    elif (directory / CHECKPOINT_NAME).is_file():
        problem = "has no eyes.json, 'train eyes' has not finished: give its command again"
    else:
        problem = f"has neither eyes.json, of 'train eyes', nor {MANIFEST_NAME}, of a PI0"
    raise ConfigError(f"{option}='{eyes}' {problem}")
