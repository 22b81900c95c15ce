# SPDX-License-Identifier: Apache-2.0
"""Writes a trained base policy as the directory that the `pi0` back end reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.learning.base_data import IMAGE_PX
from vla_rl_ros.learning.base_labels import MAX_DELAY_TICKS, STATE_CHANNELS, Scales
from vla_rl_ros.learning.base_language import write_tokenizer
from vla_rl_ros.policies.manifest import (
    ActionSection,
    PolicyManifest,
    PrefixSection,
    StateSection,
    write_manifest,
)
from vla_rl_ros.policies.pi0.nano import NanoPI0
from vla_rl_ros.policies.pi0.nano_files import save_nano
from vla_rl_ros.sim.scene_ids import CAMERAS


def write_checkpoint(
    model: NanoPI0, scales: Scales, directory: Path, training: Mapping[str, object]
) -> None:
    """Write weights, configuration, tokenizer and manifest.

    Args:
        model: What was trained.
        scales: Normalisation it was trained with.
        directory: Made if it is missing.
        training: How it came about: command, seed, scores.
    """
    directory.mkdir(parents=True, exist_ok=True)
    save_nano(model, directory)
    write_tokenizer(directory / "tokenizer.json")
    write_manifest(_manifest(scales, training), directory)


def _manifest(scales: Scales, training: Mapping[str, object]) -> PolicyManifest:
    return PolicyManifest(
        backend="pi0",
        control_period_s=ActionSpec().control_period_s,
        cameras=CAMERAS,
        image_px=IMAGE_PX,
        image_resize="area",
        state=StateSection(
            channels=STATE_CHANNELS,
            mean=tuple(scales.state_mean.tolist()),
            std=tuple(scales.state_std.tolist()),
        ),
        action=ActionSection(
            codec="delta_measured",
            mean=tuple(scales.action_mean.tolist()),
            std=tuple(scales.action_std.tolist()),
        ),
        prefix=PrefixSection(max_locked=MAX_DELAY_TICKS, conditioning=("lock",)),
        prompt="raw",
        training=training,
    )
