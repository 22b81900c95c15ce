# SPDX-License-Identifier: Apache-2.0
"""Training of the success classifier: what is refused, split, learned, continued and exported."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from unit.classifier_samples import CAMERAS, PX, grey, write_brightness_classifier
from unit.eyes_samples import write_eyes_without_weights

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.data.label_frames import EpisodeFrames
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.learning.classifier_data import (
    Variation,
    check_apart,
    check_frames,
    split_by_episode,
    varied,
)
from vla_rl_ros.learning.classifier_model import MANIFEST_NAME, SuccessModel, read_manifest
from vla_rl_ros.learning.classifier_report import write_figures
from vla_rl_ros.learning.classifier_scores import (
    area,
    average_precision,
    calibrated_threshold,
    confusion,
    roc,
)
from vla_rl_ros.learning.classifier_trainer import ClassifierSettings
from vla_rl_ros.learning.classifier_training import train
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy

SETTINGS = ClassifierSettings(
    members=2,
    steps=12,
    batch=16,
    image_px=PX,
    min_positives=4,
    shift_px=2,
    noise=0.0,
    learning_rate=1e-2,
)


def fill(labels: LabelSet, episodes: int, *, first: int = 0, frames: int = 4) -> LabelSet:
    """Bright squares are successes, dark ones failures; every other episode has none."""
    for number in range(first, first + episodes):
        rng = np.random.default_rng(number)
        is_success = (np.arange(frames) >= frames // 2) & (number % 2 == 0)
        stack = rng.integers(0, 60, (frames, PX, PX, 3)).astype(np.uint8)
        stack[is_success, 8:24, 8:24] = 220
        seen = EpisodeFrames(
            episode=f"episode_{number}",
            task="lift",
            source="test",
            kind="policy" if number % 2 == 0 else "beside",
            outcome=Outcome.SUCCESS,
            stamps_ns=np.arange(frames),
            images=dict.fromkeys(CAMERAS, stack),
            states=np.zeros((frames, 4), np.float32),
            start_ns=0,
            end_ns=frames,
        )
        labels.add(seen, np.where(is_success, "success", "failure"), "truth")
    return labels


@pytest.fixture
def labels(tmp_path):
    return fill(LabelSet(tmp_path / "labels", "lift", CAMERAS), 24)


def test_episodes_are_split_never_frames(labels):
    frames = labels.load()
    split = split_by_episode(frames, calibrate_part=0.2, test_part=0.2, seed=0)
    parts = [
        {frames.episodes[i] for i in np.flatnonzero(mask)}
        for mask in (split.train, split.calibrate, split.test)
    ]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(map(len, parts)) == 24
    # Both kinds of episodes are in every part.
    for part in parts:
        assert {int(name.split("_")[1]) % 2 for name in part} == {0, 1}
    again = split_by_episode(frames, calibrate_part=0.2, test_part=0.2, seed=0)
    np.testing.assert_array_equal(split.test, again.test)


def test_what_cannot_be_learned_is_refused_with_the_reason(labels, tmp_path):
    frames = labels.load()
    check_frames(frames, min_positives=24)
    with pytest.raises(ConfigError, match="24 frames show success, 25 are needed"):
        check_frames(frames, min_positives=25)
    with pytest.raises(ConfigError, match="failures are needed"):
        check_frames(frames.chosen(frames.is_success), min_positives=1)
    few = frames.chosen(np.array([name < "episode_13" for name in frames.episodes]))
    with pytest.raises(ConfigError, match="episodes with a success are labelled, 6 are needed"):
        split_by_episode(few, calibrate_part=0.2, test_part=0.2, seed=0)
    with pytest.raises(ConfigError, match=r"24 episodes are in the set and in the held-out one"):
        check_apart(frames, frames)


def test_variation_is_repeatable_and_keeps_the_size():
    images = torch.from_numpy(grey(100, 3)["wrist"])
    variation = Variation(shift_px=3, brightness=0.2, contrast=0.2, colour=0.1, noise=2.0)
    first, second = (varied(images, variation, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, second)
    assert not torch.equal(first, images)
    still = Variation(shift_px=0, brightness=0.0, contrast=0.0, colour=0.0, noise=0.0)
    assert torch.equal(varied(images, still, torch.Generator()), images)


def test_the_threshold_keeps_the_rate_and_leaves_room():
    probabilities = np.array([0.01, 0.02, 0.05, 0.3, 0.9, 0.97, 0.98, 0.99])
    is_success = np.array([False] * 4 + [True] * 4)
    threshold = calibrated_threshold(probabilities, is_success, 0.0)
    assert 0.3 < threshold < 0.9
    assert confusion(probabilities, is_success, threshold).accuracy == 1.0
    # A quarter of the failures may pass: the best of them counts no more.
    assert calibrated_threshold(probabilities, is_success, 0.25) < threshold
    mixed = np.array([0.5, 0.95, 0.6, 0.9])
    truth = np.array([False, False, True, True])
    strict = calibrated_threshold(mixed, truth, 0.0)
    assert confusion(mixed, truth, strict).false_positives == 0
    with pytest.raises(ConfigError, match="needs frames of success and of failure"):
        calibrated_threshold(mixed, np.ones(4, bool), 0.0)


def test_curves_of_a_perfect_and_of_a_hopeless_classifier():
    truth = np.array([True, True, False, False])
    right, wrong = np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.1, 0.2, 0.8, 0.9])
    assert (area(*roc(right, truth)), average_precision(right, truth)) == (1.0, 1.0)
    assert area(*roc(wrong, truth)) == 0.0
    # By hand: the successes come third and fourth, with precisions 1/3 and 2/4.
    assert average_precision(wrong, truth) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_it_learns_exports_and_reports(labels, tmp_path):
    held_out = fill(LabelSet(tmp_path / "held_out", "lift", CAMERAS), 10, first=100)
    out = tmp_path / "run"
    settings = dataclasses.replace(SETTINGS, steps=25)
    checks = {"gripper.width_m": (0.0, 0.05)}
    figures, judged = train(
        out, labels, settings, held_out=held_out, checks=checks, command="the command"
    )
    assert figures["held_out"]["accuracy"] == 1.0
    assert figures["held_out"]["false_positives_by_kind"] == {"policy": [0, 10], "beside": [0, 20]}
    assert [each.name for each in judged] == ["calibrate", "test", "held_out"]
    manifest = read_manifest(out)
    assert (manifest.task, manifest.cameras, manifest.checks) == ("lift", CAMERAS, checks)
    assert manifest.threshold == figures["threshold"]
    assert figures["version"] == f"{manifest.model_hash[:12]} lift"
    model = SuccessModel(out)
    frames = held_out.load()
    one = {name: stack[0] for name, stack in frames.images.items()}
    assert model.probability(one) == pytest.approx(model.probabilities(frames.images)[0], abs=1e-6)
    for path in write_figures(judged, figures["threshold"], out):
        assert path.stat().st_size > 1000


def test_a_run_that_was_stopped_goes_on_to_the_same_end(labels, tmp_path):
    def stop(step: int, _loss: float) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    whole, _ = train(tmp_path / "whole", labels, SETTINGS)
    halves = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        train(halves, labels, SETTINGS, tell=stop)
    resumed, _ = train(halves, labels, SETTINGS)
    assert (halves / "model.onnx").read_bytes() == (tmp_path / "whole/model.onnx").read_bytes()
    assert resumed["threshold"] == whole["threshold"]
    fill(labels, 2, first=50)
    with pytest.raises(ConfigError, match="other labels"):
        train(halves, labels, SETTINGS)
    other = dataclasses.replace(SETTINGS, batch=8)
    with pytest.raises(ConfigError, match="batch=16"):
        train(tmp_path / "whole", labels, other)


def test_a_kill_while_it_measures_leaves_what_was_there(labels, tmp_path, monkeypatch):
    out = tmp_path / "run"
    settings = dataclasses.replace(SETTINGS, steps=3)

    def stop(*_: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vla_rl_ros.learning.classifier_training.calibrated_threshold", stop)
        with pytest.raises(KeyboardInterrupt):
            train(out, labels, settings)
        assert not (out / MANIFEST_NAME).exists()
    train(out, labels, settings)
    before = (out / MANIFEST_NAME).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("vla_rl_ros.learning.classifier_training.calibrated_threshold", stop)
        with pytest.raises(KeyboardInterrupt):
            train(out, labels, settings)
    assert (out / MANIFEST_NAME).read_bytes() == before
    SuccessModel(out)
    train(out, labels, settings)
    assert {path.name for path in out.iterdir()} == {MANIFEST_NAME, "model.onnx", "trainer.pt"}


def test_the_frozen_tower_of_the_shipped_policy_serves_as_backbone(labels, tmp_path):
    from vla_rl_ros.policies.pi0.backend import SHIPPED

    settings = dataclasses.replace(SETTINGS, backbone="pi0", steps=3)
    with pytest.raises(ConfigError, match="image_px=32 is no multiple of the 64 px"):
        train(tmp_path / "small", labels, settings, checkpoint=SHIPPED)
    settings = dataclasses.replace(settings, image_px=64)
    train(tmp_path / "run", labels, settings, checkpoint=SHIPPED)
    assert read_manifest(tmp_path / "run").backbone == "pi0"
    assert 0.0 <= SuccessModel(tmp_path / "run").probability(
        {name: stack[0] for name, stack in grey(10).items()}
    ) <= 1.0  # fmt: skip


def test_a_classifier_says_what_is_wrong_with_its_files(tmp_path):
    directory = write_brightness_classifier(tmp_path / "bright")
    model = SuccessModel(directory)
    dark, bright = (
        model.probability({name: stack[0] for name, stack in grey(shade).items()})
        for shade in (10, 250)
    )
    assert dark < 0.01 < 0.99 < bright
    with pytest.raises(InvalidCommandError, match="no image of camera 'front'"):
        model.probability({"wrist": grey(1)["wrist"][0]})
    weights = directory / "model.onnx"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="is not the file that"):
        SuccessModel(directory)
    manifest = directory / MANIFEST_NAME
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "needed": 9}))
    with pytest.raises(ConfigError, match="needed=9 of window=4"):
        read_manifest(directory)
    manifest.write_text(json.dumps({**values, "checks": {"tcp.z": [0, 1]}}))
    with pytest.raises(ConfigError, match=r"checks\.tcp\.z"):
        read_manifest(directory)
    with pytest.raises(ConfigError, match="'vla-rl-ros train classifier' wrote"):
        read_manifest(tmp_path)


def test_eyes_are_no_classifier_and_a_classifier_is_no_eyes(tmp_path, monkeypatch):
    eyes = tmp_path / "eyes"
    eyes.mkdir()
    write_eyes_without_weights(eyes)
    wanted = r"eyes is trained eyes: give it as --eyes; wanted is .* 'vla-rl-ros train class"
    with pytest.raises(ConfigError, match=wanted):
        SuccessModel(eyes)
    classifier = write_brightness_classifier(tmp_path / "classifier")
    forbidden = PermissionError(13, "Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", Mock(side_effect=forbidden))
        with pytest.raises(ConfigError, match=r"Permission denied\): give the directory"):
            read_manifest(eyes)
    with pytest.raises(ConfigError, match="is a success classifier: give it as --classifier"):
        make_policy("still", PolicySettings(eyes=str(classifier)), PolicyEnvironment())
