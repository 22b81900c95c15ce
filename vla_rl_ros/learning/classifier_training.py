# SPDX-License-Identifier: Apache-2.0
"""Trains a success classifier on a label set and writes what the node runs.

A run can be killed at any time and goes on with the same command. Called by
`vla-rl-ros train classifier`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.success import violated_check
from vla_rl_ros.data.label_frames import STATE_NAMES
from vla_rl_ros.data.label_set import LabelledFrames, LabelSet
from vla_rl_ros.learning.classifier_data import (
    Split,
    check_apart,
    check_frames,
    split_by_episode,
)
from vla_rl_ros.learning.classifier_model import (
    LOGIT,
    MANIFEST_NAME,
    ClassifierManifest,
    SuccessModel,
    prepared,
    write_manifest,
)
from vla_rl_ros.learning.classifier_scores import (
    area,
    average_precision,
    calibrated_threshold,
    confusion,
    roc,
)
from vla_rl_ros.learning.classifier_trainer import ClassifierSettings, ClassifierTrainer
from vla_rl_ros.learning.cpu_export import export_cpu
from vla_rl_ros.learning.training_loop import Tell, learn
from vla_rl_ros.policies.cpu_model import MODEL_NAME, resize_of

_CHECKPOINT = "trainer.pt"
_UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a classifier says of held-out frames.

    Attributes:
        name: Of the part.
        frames: The frames.
        probabilities: Shape (n,); 0 where a check of the state is broken.
    """

    name: str
    frames: LabelledFrames
    probabilities: NDArray[np.float64]


def train(
    out: Path,
    labels: LabelSet,
    settings: ClassifierSettings,
    *,
    name: str = "",
    held_out: LabelSet | None = None,
    checkpoint: Path | None = None,
    checks: Mapping[str, tuple[float, ...]] | None = None,
    command: str = "",
    tell: Tell = lambda step, loss: None,
) -> tuple[dict[str, Any], list[Judged]]:
    """Train to the end, choose the threshold, export, and measure on held-out episodes.

    Args:
        out: Directory of the run: ``classifier.json``, ``model.onnx`` and what continues it.
        labels: What is learned from.
        settings: How.
        name: Of the classifier; the task if empty.
        held_out: Further episodes to measure on.
        checkpoint: PI0 whose tower is used, for the backbone ``pi0``.
        checks: Limits of the state that go into the manifest.
        command: How to do it again.
        tell: Called with step and loss.

    Returns:
        Numbers, and what the exported classifier says of each held-out part.

    Raises:
        ConfigError: Nothing can be learned from the labels, or they do not fit; says why.
    """
    frames = labels.load()
    check_frames(frames, min_positives=settings.min_positives)
    others = None if held_out is None else held_out.load()
    if others is not None:
        check_apart(frames, others)
    split = split_by_episode(
        frames,
        calibrate_part=settings.calibrate_part,
        test_part=settings.test_part,
        seed=settings.seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    manifest = ClassifierManifest(
        name=name or labels.task,
        task=labels.task,
        cameras=labels.cameras,
        image_px=settings.image_px,
        resize=resize_of(
            (stack.shape[1:3] for stack in frames.images.values()), settings.image_px
        ),
        backbone=settings.backbone,
        needed=settings.needed,
        window=settings.window,
        checks=checks or {},
    )
    small = _reduced(frames, manifest)
    trainer = ClassifierTrainer(settings, small.chosen(split.train), labels.cameras, checkpoint)
    digest = _digest(frames)
    seconds = learn(trainer, out / _CHECKPOINT, digest, settings.steps, tell)
    # Who finds a manifest in `out` goes by its threshold: it comes there measured or not at all.
    unmeasured = out / _UNMEASURED
    unmeasured.mkdir(exist_ok=True)
    weights = unmeasured / MODEL_NAME
    export_cpu(trainer.average, weights, manifest.cameras, manifest.image_px, LOGIT)
    figures, judged = _measure(unmeasured, manifest, frames, split, others, settings)
    figures = {
        "classifier": str(out),
        "steps": trainer.step_number,
        "train_s": round(seconds, 1),
        "parameters": sum(w.numel() for w in trainer.average.parameters()),
        **figures,
    }
    training = {"command": command, "labels": digest, "settings": asdict(settings), **figures}
    _write_manifest(unmeasured, manifest, figures["threshold"], training)
    # A kill between the two leaves weights that the old manifest does not fit, which is refused.
    for file in (MODEL_NAME, MANIFEST_NAME):
        (unmeasured / file).replace(out / file)
    unmeasured.rmdir()
    figures["version"] = SuccessModel(out).manifest.version
    return figures, judged


def _measure(
    directory: Path,
    manifest: ClassifierManifest,
    frames: LabelledFrames,
    split: Split,
    held_out: LabelledFrames | None,
    settings: ClassifierSettings,
) -> tuple[dict[str, Any], list[Judged]]:
    """Choose the threshold on one part, count on the others, all through the exported file."""
    _write_manifest(directory, manifest, manifest.threshold, {})
    model = SuccessModel(directory)
    parts = {"calibrate": frames.chosen(split.calibrate), "test": frames.chosen(split.test)}
    if held_out is not None:
        parts["held_out"] = held_out
    judged = [
        Judged(name=name, frames=own, probabilities=_checked(own, model))
        for name, own in parts.items()
        if len(own)
    ]
    calibrating = judged[0]
    threshold = calibrated_threshold(
        calibrating.probabilities, calibrating.frames.is_success, settings.max_fpr
    )
    counts = {
        "episodes": len(set(frames.episodes)),
        "positives": int(frames.is_success.sum()),
        "negatives": int((~frames.is_success).sum()),
    }
    scores = {each.name: scores_of(each, threshold) for each in judged}
    return {**counts, "threshold": round(threshold, 6), **scores}, judged


def _checked(frames: LabelledFrames, model: SuccessModel) -> NDArray[np.float64]:
    """What the node would go by: what fails a check is no success, whatever it looks like."""
    probabilities = model.probabilities(frames.images)
    for row, state in enumerate(frames.states.tolist()):
        if violated_check(model.manifest.checks, dict(zip(STATE_NAMES, state, strict=True))):
            probabilities[row] = 0.0
    return probabilities


def scores_of(judged: Judged, threshold: float) -> dict[str, Any]:
    """Numbers of one part: counts, accuracy, rates, areas, and false positives by kind."""
    frames, probabilities = judged.frames, judged.probabilities
    counted = confusion(probabilities, frames.is_success, threshold)
    kinds: dict[str, list[int]] = {}
    for kind, label, probability in zip(
        frames.kinds, frames.is_success.tolist(), probabilities.tolist(), strict=True
    ):
        if not label:
            passed, total = kinds.setdefault(kind, [0, 0])
            kinds[kind] = [passed + (probability >= threshold), total + 1]
    return {
        "frames": len(frames),
        "episodes": len(set(frames.episodes)),
        **asdict(counted),
        "accuracy": round(counted.accuracy, 5),
        "false_positive_rate": round(counted.false_positive_rate, 5),
        "recall": round(counted.recall, 5),
        "roc_area": round(area(*roc(probabilities, frames.is_success)), 5),
        "pr_area": round(average_precision(probabilities, frames.is_success), 5),
        "false_positives_by_kind": kinds,
    }


def _reduced(frames: LabelledFrames, manifest: ClassifierManifest) -> LabelledFrames:
    return LabelledFrames(
        images={
            name: np.stack([prepared(image, manifest, name) for image in stack])
            for name, stack in frames.images.items()
        },
        states=frames.states,
        is_success=frames.is_success,
        episodes=frames.episodes,
        kinds=frames.kinds,
        stamps_ns=frames.stamps_ns,
    )


def _digest(frames: LabelledFrames) -> str:
    words = [
        [episode, stamp, label]
        for episode, stamp, label in zip(
            frames.episodes, frames.stamps_ns.tolist(), frames.is_success.tolist(), strict=True
        )
    ]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _write_manifest(
    out: Path, manifest: ClassifierManifest, threshold: float, training: Mapping[str, object]
) -> None:
    write_manifest(replace(manifest, threshold=threshold, training=training), out)
