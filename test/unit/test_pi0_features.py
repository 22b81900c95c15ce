# SPDX-License-Identifier: Apache-2.0
"""Image features of a PI0: a by-product of the inference, bound to the weights that made them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.pi0_checkpoints import CAMERAS, observation, write_nano

from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.onnx import OnnxSampler
from vla_rl_ros.policies.pi0.loading import load_model
from vla_rl_ros.policies.pi0.vision import FEATURES_PER_CAMERA, FeatureReduction, tower_hash
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicySettings,
    featured,
    make_policy,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano(tmp_path_factory.mktemp("nano"))


def test_features_belong_to_the_images_of_the_last_answer(directory: Path) -> None:
    policy = make_policy(
        "pi0", PolicySettings(path=str(directory)), PolicyEnvironment(cameras=CAMERAS)
    )
    seen = featured(policy)
    assert seen is not None
    assert not seen.features().any()
    found = []
    for seed in (0, 1, 0):
        policy.infer(observation(seed), None)
        found.append(seen.features())
    assert found[0].shape == (seen.feature_dim,) == (2 * FEATURES_PER_CAMERA,)
    assert found[0].dtype == np.float32
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


def test_a_policy_without_features_has_none() -> None:
    policy = make_policy("scripted", PolicySettings(), PolicyEnvironment())
    assert featured(policy) is None


def test_the_hash_follows_the_tower_and_the_images_preparation(directory: Path) -> None:
    manifest = read_manifest(directory)
    model = load_model(directory, torch.device("cpu"), torch.float32)
    first = tower_hash(model, manifest)
    assert first == tower_hash(model, manifest)
    assert first != tower_hash(model, dataclasses.replace(manifest, image_resize="pad"))
    with torch.no_grad():
        model.action_out_proj.bias += 1.0
    assert tower_hash(model, manifest) == first
    with torch.no_grad():
        model.model.vlm.multi_modal_projector.linear.bias += 1.0
    assert tower_hash(model, manifest) != first


def test_the_reduction_keeps_distances_and_bounds_large_towers() -> None:
    tokens = torch.randn(40, 16, 64, generator=torch.Generator().manual_seed(0))
    reduced = FeatureReduction(16, 64)(tokens).reshape(40, -1)
    whole = torch.nn.functional.layer_norm(tokens, (64,)).flatten(1) / 32.0
    ratio = torch.pdist(reduced) / torch.pdist(whole) / FEATURES_PER_CAMERA**0.5
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    large = FeatureReduction(256, 128)
    assert large(torch.randn(2, 256, 128)).shape == (2 * FEATURES_PER_CAMERA,)
    assert large.signs.shape[0] == 16 * 128


def test_an_exported_file_has_the_same_features_and_hash(directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from vla_rl_ros.policies.pi0.backend import make_sampler
    from vla_rl_ros.policies.pi0.translation import Translation
    from vla_rl_ros.tools.export import export_onnx

    file = tmp_path / "out" / "nano.onnx"
    export_onnx(directory, file)
    manifest = read_manifest(directory)
    ours, theirs = make_sampler(directory, manifest), OnnxSampler(file, "cpu", 1)
    inputs = Translation(manifest, ours.shape, directory).inputs(observation(3))
    noise = np.zeros((1, ours.shape.horizon, ours.shape.action_dim), np.float32)
    ours(inputs, noise, None)
    theirs(inputs, noise, None)
    assert ours.tower_hash == theirs.tower_hash
    assert ours.features == pytest.approx(theirs.features, abs=1e-4)
