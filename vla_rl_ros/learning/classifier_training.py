# SPDX-License-Identifier: Apache-2.0
"""Trains a success classifier on a label set and writes what the node runs.

A run can be killed at any time and goes on with the same command. Every step draws its batch and
its variation from random streams of its own, so a continued run equals an uninterrupted one.
Called by `vla-rl-ros train classifier`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.success import violated_check
from vla_rl_ros.data.label_frames import STATE_NAMES
from vla_rl_ros.data.label_set import LabelledFrames, LabelSet
from vla_rl_ros.learning.classifier_data import (
    Split,
    Variation,
    as_stacks,
    check_apart,
    check_frames,
    split_by_episode,
    varied,
)
from vla_rl_ros.learning.classifier_model import (
    LOGIT,
    MANIFEST_NAME,
    MODEL_NAME,
    ClassifierManifest,
    SuccessModel,
    input_name,
    prepared,
    write_manifest,
)
from vla_rl_ros.learning.classifier_net import ClassifierNet
from vla_rl_ros.learning.classifier_scores import (
    area,
    average_precision,
    calibrated_threshold,
    confusion,
    roc,
)

_SAVE_PERIOD_S = 20.0
_CHECKPOINT = "trainer.pt"
_UNMEASURED = "unmeasured"
_WARM_UP_STEPS = 30
_OPSET = 17
# Nothing is pickled here: this is how torch says that a file is not one of plain tensors.
_UNREADABLE = (OSError, RuntimeError, KeyError, EOFError, ValueError, pickle.UnpicklingError)

Tell = Callable[[int, float], object]


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """How a classifier learns."""

    steps: int = param(600, doc="Gradient steps.", low=1, high=1_000_000)
    batch: int = param(48, doc="Frames per step.", low=2, high=4096)
    seed: int = param(0, doc="Of split, weights and batches.", low=0)
    image_px: int = param(128, doc="Side of the network's images.", unit="px", low=32, high=512)
    backbone: str = param("cnn", doc="What makes its features.", choices=("cnn", "pi0"))
    learning_rate: float = param(2e-3, doc="At its highest.", low=1e-6, high=0.1)
    weight_decay: float = param(0.02, doc="Of matrices and filters.", low=0.0, high=1.0)
    ema: float = param(0.99, doc="Decay of the average of weights.", low=0.0, high=1.0)
    positive_part: float = param(
        0.4, doc="Part of a batch that shows success.", low=0.05, high=0.95
    )
    smoothing: float = param(0.02, doc="Of the labels.", low=0.0, high=0.4)
    shift_px: int = param(6, doc="Largest shift of the random crop.", unit="px", low=0, high=64)
    brightness: float = param(0.25, doc="Largest change, as a part.", low=0.0, high=1.0)
    contrast: float = param(0.2, doc="Largest change, as a part.", low=0.0, high=1.0)
    colour: float = param(0.08, doc="Largest change of a colour, as a part.", low=0.0, high=1.0)
    noise: float = param(3.0, doc="Deviation per pixel, of 255.", low=0.0, high=64.0)
    calibrate_part: float = param(
        0.2, doc="Part of the episodes that decides the threshold.", low=0.05, high=0.5
    )
    test_part: float = param(0.2, doc="Part of the episodes held out.", low=0.0, high=0.5)
    max_fpr: float = param(
        0.005, doc="False positive rate that the threshold is chosen for.", low=0.0, high=0.5
    )
    min_positives: int = param(30, doc="Frames of success to begin with.", low=1)
    needed: int = param(3, doc="Frames that must agree for a decision.", low=1, high=100)
    window: int = param(4, doc="Among so many of the last ones.", low=1, high=100)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


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


class ClassifierTrainer:
    """The network, its average, and its optimiser.

    Attributes:
        step_number: Steps done.
        average: What is exported.
    """

    def __init__(
        self,
        settings: ClassifierSettings,
        frames: LabelledFrames,
        cameras: tuple[str, ...],
        checkpoint: Path | None = None,
    ) -> None:
        """Initialise from the seed.

        Args:
            settings: How to learn.
            frames: To train on, in the size of the network.
            cameras: In the order of its inputs.
            checkpoint: PI0 whose tower is used, for the backbone ``pi0``.
        """
        self.settings = settings
        self.step_number = 0
        torch.manual_seed(settings.seed)
        self._net = ClassifierNet(
            cameras, settings.image_px, backbone=settings.backbone, checkpoint=checkpoint
        )
        self._net.train()
        self.average = copy.deepcopy(self._net).eval()
        self._images = as_stacks(frames.images, cameras)
        self._labels = torch.from_numpy(frames.is_success.astype(np.float32))
        self._rows = [np.flatnonzero(frames.is_success == label) for label in (False, True)]
        weights = [w for w in self._net.parameters() if w.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [w for w in weights if w.ndim > 1]},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(
            groups,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self._variation = Variation(
            shift_px=settings.shift_px,
            brightness=settings.brightness,
            contrast=settings.contrast,
            colour=settings.colour,
            noise=settings.noise,
        )

    def step(self) -> float:
        """One gradient step; returns the loss before it."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step_number])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)))
        num_positives = max(1, round(settings.positive_part * settings.batch))
        index = np.concatenate(
            [
                rng.choice(rows, count, replace=len(rows) < count)
                for rows, count in zip(
                    self._rows, (settings.batch - num_positives, num_positives), strict=True
                )
            ]
        )
        seen = [varied(stack[index], self._variation, generator) for stack in self._images]
        smooth = settings.smoothing
        targets = self._labels[index] * (1.0 - 2.0 * smooth) + smooth
        loss = functional.binary_cross_entropy_with_logits(self._net(*seen), targets)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimiser.step()
        self.step_number += 1
        self._move_average()
        return float(loss.detach())

    def _learning_rate(self) -> float:
        done = self.step_number
        rise = min(1.0, (done + 1) / _WARM_UP_STEPS)
        fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / self.settings.steps)))
        return self.settings.learning_rate * rise * (0.02 + 0.98 * fall)

    @torch.no_grad()
    def _move_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step_number) / (10 + self.step_number))
        for average, weight in zip(self.average.parameters(), self._net.parameters(), strict=True):
            if weight.requires_grad:
                average.lerp_(weight, 1.0 - decay)

    def save(self, path: Path, data: str) -> None:
        """Write everything needed to go on; the file is whole or the old one.

        Args:
            path: To write.
            data: What identifies the frames.
        """
        part = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self.settings),
                "data": data,
                "step": self.step_number,
                "net": self._net.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
            part,
        )
        part.replace(path)

    def load(self, path: Path, data: str) -> None:
        """Go on where `save` was called.

        Raises:
            ConfigError: Damaged, or a run with other settings or frames; says which.
        """
        try:
            values = torch.load(path, weights_only=True)
            theirs, ours = values["settings"], asdict(self.settings)
            different = [f"{k}={theirs.get(k)}" for k in ours if theirs.get(k) != ours[k]]
            if values["data"] != data:
                different.append("other labels")
            if different:
                raise ConfigError(
                    f"{path} was begun with {', '.join(different)}: use the same or another --out"
                )
            self._net.load_state_dict(values["net"])
            self.average.load_state_dict(values["average"])
            self._optimiser.load_state_dict(values["optimiser"])
            self.step_number = int(values["step"])
        except _UNREADABLE as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: cannot be continued, delete it: {error}") from error


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
        resize=_resize(frames, settings.image_px),
        backbone=settings.backbone,
        needed=settings.needed,
        window=settings.window,
        checks=checks or {},
    )
    small = _reduced(frames, manifest)
    trainer = ClassifierTrainer(settings, small.chosen(split.train), labels.cameras, checkpoint)
    digest = _digest(frames)
    seconds = _learn(trainer, out / _CHECKPOINT, digest, tell)
    # Who finds a manifest in `out` goes by its threshold: it comes there measured or not at all.
    unmeasured = out / _UNMEASURED
    unmeasured.mkdir(exist_ok=True)
    _export(trainer.average, unmeasured / MODEL_NAME, manifest)
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


def _learn(trainer: ClassifierTrainer, path: Path, digest: str, tell: Tell) -> float:
    if path.exists():
        trainer.load(path, digest)
    begin_s = saved_s = time.monotonic()
    while trainer.step_number < trainer.settings.steps:
        tell(trainer.step_number + 1, trainer.step())
        if time.monotonic() - saved_s > _SAVE_PERIOD_S:
            trainer.save(path, digest)
            saved_s = time.monotonic()
    trainer.save(path, digest)
    return time.monotonic() - begin_s


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


def _resize(frames: LabelledFrames, image_px: int) -> str:
    """``area`` where every camera's images are square multiples of the network's."""
    shapes = [stack.shape[1:3] for stack in frames.images.values()]
    fits = all(h == w and h % image_px == 0 for h, w in shapes)
    return "area" if fits else "pad"


def _reduced(frames: LabelledFrames, manifest: ClassifierManifest) -> LabelledFrames:
    return LabelledFrames(
        images={
            name: np.stack([prepared(image, manifest) for image in stack])
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


def _export(net: ClassifierNet, file: Path, manifest: ClassifierManifest) -> None:
    px = manifest.image_px
    example = tuple(torch.zeros(2, px, px, 3, dtype=torch.uint8) for _ in manifest.cameras)
    names = [input_name(camera) for camera in manifest.cameras]
    part = file.with_suffix(".part")
    with warnings.catch_warnings(), torch.no_grad():
        # As in `policies.pi0.onnx_graph`: the exporter that traces is the quick one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            example,
            str(part),
            dynamo=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=[LOGIT],
            dynamic_axes={name: {0: "batch"} for name in (*names, LOGIT)},
        )
    part.replace(file)


def _write_manifest(
    out: Path, manifest: ClassifierManifest, threshold: float, training: Mapping[str, object]
) -> None:
    write_manifest(replace(manifest, threshold=threshold, training=training), out)
