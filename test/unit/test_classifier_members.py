# SPDX-License-Identifier: Apache-2.0
"""Several networks in one classifier: learned apart, combined, continued, exported as one file."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from unit.classifier_samples import CAMERAS, PX

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_set import LabelledFrames
from vla_rl_ros.learning.classifier_model import (
    LOGIT,
    ClassifierManifest,
    SuccessModel,
    write_manifest,
)
from vla_rl_ros.learning.classifier_net import ClassifierNet, Ensemble
from vla_rl_ros.learning.classifier_trainer import ClassifierSettings, ClassifierTrainer
from vla_rl_ros.learning.cpu_export import export_cpu
from vla_rl_ros.policies.cpu_model import MODEL_NAME
from vla_rl_ros.policies.pi0.backend import SHIPPED
from vla_rl_ros.policies.pi0.loading import load_model

SETTINGS = ClassifierSettings(
    members=3, steps=6, batch=8, image_px=PX, shift_px=2, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(0)
    is_success = np.arange(24) % 3 == 0
    images = rng.integers(0, 255, (24, PX, PX, 3)).astype(np.uint8)
    return LabelledFrames(
        images=dict.fromkeys(CAMERAS, images),
        states=np.zeros((24, 4), np.float32),
        is_success=is_success,
        episodes=tuple(map(str, range(24))),
        kinds=("policy",) * 24,
        stamps_ns=np.arange(24),
    )


def trained(settings: ClassifierSettings, frames: LabelledFrames, steps: int) -> ClassifierTrainer:
    trainer = ClassifierTrainer(settings, frames, CAMERAS)
    for _ in range(steps):
        trainer.step()
    return trainer


def weights(trainer: ClassifierTrainer, member: int) -> list[torch.Tensor]:
    return list(trainer.average.members[member].parameters())


def test_a_member_learns_what_one_alone_with_its_seed_learns(frames):
    together = trained(SETTINGS, frames, 4)
    for number, seed in enumerate((0, 1000, 2000)):
        alone = trained(replace(SETTINGS, members=1, seed=seed), frames, 4)
        for mine, its in zip(weights(together, number), weights(alone, 0), strict=True):
            torch.testing.assert_close(mine, its, rtol=0.0, atol=0.0)
    assert not torch.equal(weights(together, 0)[0], weights(together, 1)[0])


def test_one_member_says_what_its_network_says(frames):
    net = ClassifierNet(CAMERAS, PX).eval()
    stacks = [torch.from_numpy(stack) for stack in frames.images.values()]
    assert torch.equal(Ensemble([net])(*stacks), net(*stacks))


def test_the_exported_file_combines_the_members(frames, tmp_path):
    average = trained(SETTINGS, frames, 2).average
    export_cpu(average, tmp_path / MODEL_NAME, CAMERAS, PX, LOGIT)
    manifest = ClassifierManifest(name="three", task="lift", cameras=CAMERAS, image_px=PX)
    write_manifest(manifest, tmp_path)
    stacks = [torch.from_numpy(stack) for stack in frames.images.values()]
    with torch.no_grad():
        logits = np.stack([member(*stacks).numpy() for member in average.members])
    assert np.ptp(logits, axis=0).min() > 0.0
    by_hand = 1.0 / (1.0 + np.exp(-logits.mean(0)))
    said = SuccessModel(tmp_path).probabilities(frames.images)
    np.testing.assert_allclose(said, by_hand, atol=1e-5)


def test_a_frozen_tower_is_loaded_once_for_all_members_and_cameras(frames, monkeypatch):
    loaded = []

    def load(*args):
        loaded.append(load_model(*args))
        return loaded[-1]

    monkeypatch.setattr("vla_rl_ros.policies.pi0.loading.load_model", load)
    settings = replace(SETTINGS, backbone="pi0", image_px=64)
    average = ClassifierTrainer(settings, frames, CAMERAS, SHIPPED).average
    assert len(loaded) == 1
    encoders = [encoder for member in average.members for encoder in member.encoders]
    assert len(encoders) == 6
    assert len({id(encoder.tower) for encoder in encoders}) == 1
    first = [encoder.reduce[2].weight for encoder in encoders]
    assert not any(torch.equal(first[0], other) for other in first[1:])


def test_members_go_on_where_they_were_stopped(frames, tmp_path):
    whole = trained(SETTINGS, frames, 6)
    path = tmp_path / "trainer.pt"
    trained(SETTINGS, frames, 2).save(path, "these")
    resumed = ClassifierTrainer(SETTINGS, frames, CAMERAS)
    resumed.load(path, "these")
    for _ in range(4):
        resumed.step()
    for name, weight in whole.average.state_dict().items():
        assert torch.equal(weight, resumed.average.state_dict()[name])


def test_a_file_of_before_there_were_members_is_that_of_one(frames, tmp_path):
    alone = replace(SETTINGS, members=1)
    trainer = trained(alone, frames, 2)
    path = tmp_path / "trainer.pt"
    trainer.save(path, "these")
    older = torch.load(path, weights_only=True)
    for key in ("net", "average"):
        older[key] = {name.removeprefix("members.0."): w for name, w in older[key].items()}
    older["settings"] = {k: v for k, v in asdict(alone).items() if k != "members"}
    torch.save(older, path)
    resumed = ClassifierTrainer(alone, frames, CAMERAS)
    resumed.load(path, "these")
    assert resumed.step() == trainer.step()
    with pytest.raises(ConfigError, match="was begun with members=1"):
        ClassifierTrainer(SETTINGS, frames, CAMERAS).load(path, "these")
