# SPDX-License-Identifier: Apache-2.0
"""Image features that are not the policy's own."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.eyes_samples import write_eyes_without_weights
from unit.pi0_checkpoints import CAMERAS, ENVIRONMENT, observation, write_nano

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.prefix import Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.eyes import SeeingPolicy
from vla_rl_ros.policies.pi0 import make_eyes
from vla_rl_ros.policies.protocol import (
    ChunkPolicy,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    Reseedable,
    featured,
    make_policy,
)
from vla_rl_ros.policies.still import StillPolicy


def make(name: str, path: Path | str = "", eyes: Path | str = "") -> ChunkPolicy:
    settings = PolicySettings(path=str(path), eyes=str(eyes), device="cpu")
    return make_policy(name, settings, ENVIRONMENT)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano(tmp_path_factory.mktemp("nano"))


def test_a_tower_sees_what_the_policy_with_this_tower_sees(directory: Path) -> None:
    own, other = make("pi0", directory), make("still", eyes=directory)
    for policy in (own, other):
        policy.infer(observation(), None)
    mine, theirs = featured(own), featured(other)
    assert mine is not None
    assert theirs is not None

    assert mine.tower_hash == theirs.tower_hash
    assert mine.feature_dim == theirs.feature_dim
    np.testing.assert_allclose(mine.features(), theirs.features(), atol=1e-5)


def test_eyes_change_what_is_seen_and_nothing_that_is_done(directory: Path) -> None:
    plain, seeing = make("pi0", directory), make("pi0", directory, eyes="shipped")
    chunks = [policy.infer(observation(), None) for policy in (plain, seeing)]
    mine, theirs = featured(plain), featured(seeing)
    assert mine is not None
    assert theirs is not None

    np.testing.assert_array_equal(*chunks)
    assert mine.tower_hash != theirs.tower_hash
    for name in ("horizon", "cameras", "needs_objects", "anchor", "conditionings", "max_locked"):
        assert getattr(seeing, name) == getattr(plain, name)


def test_a_policy_without_features_has_them_from_the_eyes(directory: Path) -> None:
    assert featured(make("still")) is None
    policy = make("still", eyes=directory)
    seen = featured(policy)
    assert seen is not None
    assert not seen.features().any()
    found = []
    for seed in (0, 1, 0):
        policy.infer(observation(seed), None)
        found.append(seen.features())

    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_the_noise_behind_the_eyes_can_begin_anew(directory: Path) -> None:
    policy = make("pi0", directory, eyes="shipped")
    assert isinstance(policy, Reseedable)
    chunks = []
    for _ in range(2):
        policy.reset()
        policy.reseed(7)
        chunks.append(policy.infer(observation(), None))

    np.testing.assert_array_equal(*chunks)


def test_eyes_ask_for_their_cameras(directory: Path) -> None:
    policy = make("scripted", eyes=directory)
    assert policy.cameras == CAMERAS
    with pytest.raises(ConfigError, match="cameras the cell lacks: wrist"):
        make_policy(
            "scripted", PolicySettings(eyes=str(directory)), PolicyEnvironment(cameras=("front",))
        )


def test_an_image_that_is_missing_is_named(directory: Path) -> None:
    policy = make("still", eyes=directory)
    seen = observation()
    blind = dataclasses.replace(seen, images={"wrist": seen.images["wrist"]})
    with pytest.raises(InvalidCommandError, match="front"):
        policy.infer(blind, None)


def test_eyes_that_are_no_checkpoint_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.eyes=.*nothing' is no directory"):
        make("still", eyes=tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"neither eyes\.json.* nor policy\.json"):
        make("still", eyes=tmp_path)
    (tmp_path / "trainer.pt").touch()
    with pytest.raises(ConfigError, match="'train eyes' has not finished"):
        make("still", eyes=tmp_path)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("classifier.json", "is a success classifier: give it as --classifier; eyes are what"),
        ("checkpoint/policy.json", "is a run of 'train base': give its folder 'checkpoint'"),
    ],
)
def test_what_is_no_eyes_is_named_though_its_training_left_a_file_like_theirs(
    tmp_path: Path, file: str, sentence: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    for name in (file, "trainer.pt"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=sentence):
        make("still", eyes=tmp_path)


def test_eyes_are_no_weights_of_a_policy(tmp_path: Path) -> None:
    write_eyes_without_weights(tmp_path)
    with pytest.raises(ConfigError, match=r"is trained eyes: give it as --eyes"):
        make("pi0", tmp_path)


def test_a_directory_of_their_name_does_not_hide_the_shipped_eyes(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped/eyes.json").touch()
    assert featured(make("still", eyes="shipped")) is not None


def test_eyes_without_onnxruntime_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_eyes_without_weights(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        make("still", eyes=tmp_path)


def test_eyes_compute_on_as_many_threads_as_the_settings_say(directory: Path) -> None:
    torch.set_num_threads(2)
    try:
        make("still", eyes=directory)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_a_server_is_not_asked_when_the_eyes_cannot_see(directory: Path) -> None:
    class Server(StillPolicy):
        asked = 0

        def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
            self.asked += 1
            return super().infer(observation, prefix)

    server = Server(8, CAMERAS)
    settings = PolicySettings(eyes=str(directory), device="cpu")
    policy = SeeingPolicy(server, make_eyes(settings))
    seen = observation()
    narrow = {name: image[:, :100] for name, image in seen.images.items()}
    with pytest.raises(InvalidCommandError, match=r"settings\.eyes"):
        policy.infer(dataclasses.replace(seen, images=narrow), None)
    assert server.asked == 0
