# SPDX-License-Identifier: Apache-2.0
"""Trains eyes for a residual and writes what the policy process runs.

A run can be killed at any time and goes on with the same command. Called by
`vla-rl-ros train eyes`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.classifier_data import as_stacks
from vla_rl_ros.learning.eyes_data import GoalFrames
from vla_rl_ros.learning.eyes_net import FEATURE_DIM, EyesNet, FeatureNet
from vla_rl_ros.learning.eyes_trainer import EyesSettings, EyesTrainer
from vla_rl_ros.policies.cpu_model import input_name
from vla_rl_ros.policies.goal_eyes import FEATURES, MODEL_NAME, EyesManifest, write_manifest
from vla_rl_ros.policies.pi0.images import fit, shrink

_SAVE_PERIOD_S = 20.0
_CHECKPOINT = "trainer.pt"
_CLOSE_M = 0.04
_MIN_EPISODES = 5
_BATCH = 128
_OPSET = 17

Tell = Callable[[int, float], object]


def train(
    out: Path,
    frames: GoalFrames,
    settings: EyesSettings,
    *,
    task: str,
    command: str = "",
    tell: Tell = lambda step, loss: None,
) -> dict[str, Any]:
    """Train to the end, export, and measure on held-out episodes.

    Args:
        out: Directory of the run: ``eyes.json``, ``model.onnx`` and what continues it.
        frames: What is learned from.
        settings: How.
        task: Of the episodes.
        command: How to do it again.
        tell: Called with step and loss.

    Returns:
        Numbers.

    Raises:
        ConfigError: Too few episodes, or another run's files in `out`.
    """
    numbers = np.unique(frames.episodes)
    if len(numbers) < _MIN_EPISODES:
        raise ConfigError(
            f"{len(numbers)} successful episodes are too few: record {_MIN_EPISODES} or more"
        )
    held = np.random.default_rng(settings.seed).permutation(numbers)
    held = held[: max(1, round(settings.held_out_part * len(numbers)))]
    is_held = np.isin(frames.episodes, held)
    out.mkdir(parents=True, exist_ok=True)
    sized, resize = _sized(frames, settings.image_px)
    trainer = EyesTrainer(settings, sized, np.flatnonzero(~is_held))
    seconds = _learn(trainer, out / _CHECKPOINT, frames.digest, tell, settings.steps)
    figures = {
        "eyes": str(out),
        "task": task,
        "episodes": len(numbers),
        "frames": len(frames),
        "steps": trainer.step_number,
        "train_s": round(seconds, 1),
        "held_out_episodes": len(held),
        **_errors_mm(trainer.net, sized, np.flatnonzero(is_held)),
    }
    _export(trainer.net, out / MODEL_NAME, tuple(frames.images), settings.image_px)
    # A kill before this leaves weights that the old manifest does not fit, which is refused.
    manifest = write_manifest(
        EyesManifest(
            task=task,
            cameras=tuple(frames.images),
            image_px=settings.image_px,
            resize=resize,
            feature_dim=FEATURE_DIM,
            training={"command": command, "settings": asdict(settings), **figures},
        ),
        out,
    )
    return {**figures, "version": manifest.model_hash[:12]}


def _learn(trainer: EyesTrainer, path: Path, digest: str, tell: Tell, steps: int) -> float:
    if path.exists():
        trainer.load(path, digest)
    begin_s = saved_s = time.monotonic()
    while trainer.step_number < steps:
        tell(trainer.step_number + 1, trainer.step())
        if time.monotonic() - saved_s > _SAVE_PERIOD_S:
            trainer.save(path, digest)
            saved_s = time.monotonic()
    trainer.save(path, digest)
    return time.monotonic() - begin_s


def _sized(frames: GoalFrames, image_px: int) -> tuple[GoalFrames, str]:
    """The frames in the size of the network, and how they got it."""
    shapes = [stack.shape[1:3] for stack in frames.images.values()]
    fits = all(h == w and h % image_px == 0 for h, w in shapes)
    resized = shrink if fits else fit
    # Thousands of images: those that fit are not copied.
    images = {
        name: stack
        if stack.shape[1:3] == (image_px, image_px)
        else np.stack([resized(image, image_px) for image in stack])
        for name, stack in frames.images.items()
    }
    sized = GoalFrames(images=images, ways_m=frames.ways_m, episodes=frames.episodes)
    return sized, "area" if fits else "pad"


def _errors_mm(net: EyesNet, frames: GoalFrames, rows: NDArray[np.int64]) -> dict[str, float]:
    """Mean error in the plane of some frames, and of those close to the end."""
    found = []
    stacks = as_stacks(frames.images, tuple(frames.images))
    with torch.no_grad():
        for first in range(0, len(rows), _BATCH):
            some = rows[first : first + _BATCH]
            found.append(net(*(stack[some] for stack in stacks))[0].numpy())
    ways_m = frames.ways_m[rows]
    errors_mm = 1e3 * np.linalg.norm((np.concatenate(found) - ways_m)[:, :2], axis=1)
    guess_mm = 1e3 * np.linalg.norm((ways_m - ways_m.mean(0))[:, :2], axis=1)
    is_close = np.linalg.norm(ways_m, axis=1) < _CLOSE_M
    return {
        "error_mm": round(float(errors_mm.mean()), 2),
        "guess_of_mean_mm": round(float(guess_mm.mean()), 2),
        "error_within_4_cm_mm": round(float(errors_mm[is_close].mean()), 2),
    }


def _export(net: EyesNet, file: Path, cameras: tuple[str, ...], image_px: int) -> None:
    example = tuple(torch.zeros(2, image_px, image_px, 3, dtype=torch.uint8) for _ in cameras)
    names = [input_name(camera) for camera in cameras]
    part = file.with_suffix(".part")
    with warnings.catch_warnings(), torch.no_grad():
        # As in `policies.pi0.onnx_graph`: the exporter that traces is the quick one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            FeatureNet(net).eval(),
            example,
            str(part),
            dynamo=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=[FEATURES],
            dynamic_axes={name: {0: "batch"} for name in (*names, FEATURES)},
        )
    part.replace(file)
