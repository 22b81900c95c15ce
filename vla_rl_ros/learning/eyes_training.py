# SPDX-License-Identifier: Apache-2.0
"""Trains eyes for a residual and writes what the policy process runs.

A run can be killed at any time and goes on with the same command. Called by
`vla-rl-ros train eyes`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.learning.cpu_export import export_cpu
from vla_rl_ros.learning.eyes_data import GoalFrames
from vla_rl_ros.learning.eyes_episodes import Float32Array
from vla_rl_ros.learning.eyes_net import ACTION_COLUMNS, FEATURE_DIM, SCALES_M, FeatureNet
from vla_rl_ros.learning.eyes_trainer import EyesSettings, EyesTrainer
from vla_rl_ros.learning.training_loop import Tell, learn
from vla_rl_ros.policies.cpu_model import MODEL_NAME, file_hash, input_name, open_model
from vla_rl_ros.policies.goal_eyes import (
    CHECKPOINT_NAME,
    FEATURES,
    EyesManifest,
    write_manifest,
)

_CLOSE_M = 0.04
_UNIT_M = ActionSpec().translation_m
_MIN_EPISODES = 5
_BATCH = 128


def train(
    out: Path,
    frames: GoalFrames,
    settings: EyesSettings,
    *,
    command: str = "",
    tell: Tell = lambda step, loss: None,
) -> dict[str, Any]:
    """Train to the end, export, and measure what was exported on held-out episodes.

    Args:
        out: Directory of the run: ``eyes.json``, ``model.onnx`` and what continues it.
        frames: What is learned from, in the size of the network.
        settings: How.
        command: How to do it again.
        tell: Called with step and loss.

    Returns:
        Numbers.

    Raises:
        ConfigError: Too few episodes, or another run's files in `out`.
        LearningError: The loss is not finite any more.
    """
    if len(frames.names) < _MIN_EPISODES:
        raise ConfigError(
            f"{len(frames.names)} successful episodes are too few: record {_MIN_EPISODES} or more"
        )
    held = held_out_of(frames.names, settings)
    is_held = np.array([name in held for name in frames.names])[frames.episodes]
    out.mkdir(parents=True, exist_ok=True)
    trainer = EyesTrainer(settings, frames, np.flatnonzero(~is_held))
    digest = frames.digest
    learn(trainer, out / CHECKPOINT_NAME, digest, settings.steps, tell)
    cameras = tuple(frames.images)
    # A kill from here on leaves weights that an old manifest does not fit, which is refused.
    file = out / MODEL_NAME
    export_cpu(FeatureNet(trainer.net), file, cameras, settings.image_px, FEATURES)
    seen = _held_out_features(file, frames, is_held)
    figures = {
        "task": frames.task,
        "source": frames.source,
        "episodes": len(frames.names),
        "frames": len(frames),
        "frames_with_action": int(np.isfinite(frames.actions).any(axis=1).sum()),
        "steps": trainer.step_number,
        "train_s": round(trainer.trained_s, 1),
        "held_out_episodes": len(held),
        **_way_errors(seen[:, :3] * SCALES_M[0], frames.ways_m, is_held),
        **_action_errors(seen[:, ACTION_COLUMNS], frames.actions, is_held),
    }
    done = {"command": command, "data": digest, "held_out": held, "settings": asdict(settings)}
    manifest = write_manifest(
        EyesManifest(
            task=frames.task,
            source=frames.source,
            cameras=cameras,
            image_sizes=frames.image_sizes,
            image_px=settings.image_px,
            resize=frames.resize,
            feature_dim=FEATURE_DIM,
            training={**done, **figures},
        ),
        out,
    )
    return {"eyes": str(out), **figures, "version": manifest.model_hash[:12]}


def held_out_of(names: tuple[str, ...], settings: EyesSettings) -> list[str]:
    """Names of the episodes that are only measured on, whatever the order they came in."""
    count = max(1, round(settings.held_out_part * len(names)))
    order = np.random.default_rng(settings.seed).permutation(len(names))
    by_name = sorted(names)
    return sorted(by_name[at] for at in order[:count])


def _held_out_features(file: Path, frames: GoalFrames, is_held: NDArray[np.bool_]) -> Float32Array:
    """Features of the held-out frames by the exported network, shape (k, F)."""
    session = open_model(file, file_hash(file), tuple(frames.images), 1)
    rows, found = np.flatnonzero(is_held), []
    for first in range(0, len(rows), _BATCH):
        some = rows[first : first + _BATCH]
        feed = {input_name(name): stack[some] for name, stack in frames.images.items()}
        found.append(session.run([FEATURES], feed)[0])
    features: Float32Array = np.concatenate(found)
    return features


def _way_errors(
    seen_m: Float32Array, ways_m: Float32Array, is_held: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Mean errors of held-out frames, of those close to a key pose, and of guessing the mean.

    Args:
        seen_m: What was seen of the held-out frames, shape (k, 3).
        ways_m: Of all frames, shape (n, 3).
        is_held: Which ones are held out, shape (n,).
    """
    held_m, guess_m = ways_m[is_held], ways_m[~is_held].mean(0)
    # Along x and y alone, as there it is that a hand gets beside something.
    is_close = np.linalg.norm(held_m[:, :2], axis=1) < _CLOSE_M
    wrong_m, guessed_m = seen_m - held_m, guess_m - held_m
    return {
        "error_xy_mm": _mean_mm(np.linalg.norm(wrong_m[:, :2], axis=1)),
        "error_z_mm": _mean_mm(np.abs(wrong_m[:, 2])),
        "guess_xy_mm": _mean_mm(np.linalg.norm(guessed_m[:, :2], axis=1)),
        "guess_z_mm": _mean_mm(np.abs(guessed_m[:, 2])),
        "close_error_xy_mm": _mean_mm(np.linalg.norm(wrong_m[is_close, :2], axis=1)),
        "close_guess_xy_mm": _mean_mm(np.linalg.norm(guessed_m[is_close, :2], axis=1)),
    }


def _action_errors(
    seen: Float32Array, actions: Float32Array, is_held: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Mean errors of how far the target was moved in held-out frames, and of guessing the mean.

    Args:
        seen: What was seen of the held-out frames, shape (k, 7).
        actions: Of all frames, NaN where unknown, shape (n, 7).
        is_held: Which ones are held out, shape (n,).
    """
    moves = actions[:, :3]
    is_known = np.isfinite(moves)
    total = np.where(is_known[~is_held], moves[~is_held], 0.0).sum(0)
    guess = total / is_known[~is_held].sum(0).clip(min=1)
    held, is_told = moves[is_held], is_known[is_held]
    return {
        "action_error_mm": _mean_mm(_UNIT_M * np.abs(seen[:, :3] - held)[is_told]),
        "action_guess_mm": _mean_mm(_UNIT_M * np.abs(guess - held)[is_told]),
    }


def _mean_mm(errors_m: NDArray[np.floating]) -> float | None:
    """None where there is nothing to take the mean of."""
    return round(1e3 * float(errors_m.mean()), 2) if len(errors_m) else None
