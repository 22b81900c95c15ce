# SPDX-License-Identifier: Apache-2.0
"""The LeRobot back end against a stand-in for the package (see contract/lerobot_stub.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contract import lerobot_stub
from contract.policy_suite import ENVIRONMENT, observation, promise

from vla_rl_ros.core.errors import ConfigError, InferenceError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.protocol import PolicySettings, make_policy


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    lerobot_stub.install(monkeypatch)
    return lerobot_stub.write(tmp_path / "policy")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the model is asked, from the second question on: the first one is the warm-up."""
    asked: list[dict] = []
    predict = lerobot_stub.Policy.predict_action_chunk

    def listen(self, batch, **kwargs):
        asked.append({"batch": batch, **kwargs})
        return predict(self, batch, **kwargs)

    monkeypatch.setattr(lerobot_stub.Policy, "predict_action_chunk", listen)
    return asked


def make(directory: Path, **changes: object):
    return make_policy("lerobot", PolicySettings(path=str(directory), **changes), ENVIRONMENT)


def change(directory: Path, name: str, **changes: object) -> None:
    file = directory / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_model_says_how_long_chunks_are_unless_the_manifest_wants_fewer(directory) -> None:
    policy = make(directory)
    assert policy.horizon == lerobot_stub.HORIZON
    assert policy.anchor is Anchor.MEASURED
    assert policy.cameras == lerobot_stub.CAMERAS
    change(directory, "policy.json", horizon=5)
    assert make(directory).infer(observation(), None).shape == (5, 7)


def test_images_and_text_arrive_as_lerobot_hands_them_over(directory, seen) -> None:
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    image[..., 1] = 255
    make(directory).infer(observation(images={"front": image, "wrist": image}), None)
    batch = seen[-1]["batch"]
    front = batch["observation.images.front"]
    assert front.dtype == torch.float32
    assert front[0].mean((1, 2)).tolist() == [0.0, 1.0, 0.0]
    assert batch["observation.state"].shape == (1, lerobot_stub.STATE_DIM)
    assert batch["task"] == "lift the red cube"


def test_answers_are_unnormalised_by_lerobot_and_meant_by_the_manifest(directory) -> None:
    actions = make(directory).infer(observation(), None)
    assert 1e-3 < np.abs(actions[:, :3]).max() < 0.02
    change(directory, "policy.json", action={"codec": "delta_measured", "std": [2.0] * 7})
    np.testing.assert_allclose(
        make(directory).infer(observation(), None)[:, :6], 2 * actions[:, :6], atol=1e-9
    )


def test_a_plan_guides_in_the_models_own_numbers(directory, seen) -> None:
    policy = make(directory)
    assert policy.conditionings == {Conditioning.NONE, Conditioning.GUIDE}
    prefix = promise(Conditioning.GUIDE, 6, 2)
    policy.infer(observation(), prefix)
    asked = seen[-1]
    assert asked["inference_delay"] == 2
    assert asked["execution_horizon"] == 6
    wanted = (torch.tensor(prefix.actions, dtype=torch.float32) - lerobot_stub.ACTION_MEAN) / (
        lerobot_stub.ACTION_STD
    )
    torch.testing.assert_close(asked["prev_chunk_left_over"], wanted)
    assert asked["batch"].get("action") is None


def test_a_lock_is_no_guidance(directory, seen) -> None:
    make(directory).infer(observation(), promise(Conditioning.LOCK, 6, 2))
    assert "inference_delay" not in seen[-1]


def test_its_noise_is_its_own(directory) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    policy = make(directory, seed=1)
    first = policy.infer(observation(), None)
    assert torch.equal(torch.rand(1), wanted)
    assert not np.array_equal(first, policy.infer(observation(), None))
    assert np.array_equal(first, make(directory, seed=1).infer(observation(), None))
    assert not np.array_equal(first, make(directory, seed=2).infer(observation(), None))


def test_a_model_that_fails_says_so_and_goes_on(directory, monkeypatch) -> None:
    policy = make(directory)
    with monkeypatch.context() as broken:

        def fail(self, batch, **kwargs):
            raise RuntimeError("CUDA out of memory")

        broken.setattr(lerobot_stub.Policy, "predict_action_chunk", fail)
        with pytest.raises(InferenceError, match="CUDA out of memory"):
            policy.infer(observation(), None)
    assert np.isfinite(policy.infer(observation(), None)).all()


def test_not_a_number_is_no_answer(directory, monkeypatch) -> None:
    policy = make(directory)
    answer = torch.full((1, lerobot_stub.HORIZON, lerobot_stub.DIM), torch.nan)
    monkeypatch.setattr(
        lerobot_stub.Policy, "predict_action_chunk", lambda self, batch, **kwargs: answer
    )
    with pytest.raises(InferenceError, match="not_finite"):
        policy.infer(observation(), None)


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"type": "unheard"}, "Policy type 'unheard'"),
        ("config.json", {"n_obs_steps": 2}, "n_obs_steps=2"),
        ("config.json", {"input_features": {"observation.state": {"shape": [10]}}}, "images"),
        ("config.json", {"rtc_config": None}, r"prefix\.conditioning 'guide'"),
        ("policy.json", {"prefix": {"max_locked": 3, "conditioning": ["lock"]}}, "'lock'"),
        ("policy.json", {"inputs": {"observation.state": "state"}}, "observation.images.front"),
        ("policy.json", {"state": {"channels": ["tcp.x_m"]}}, r"observation\.state has shape"),
        ("policy.json", {"image_px": 64}, r"observation\.images\.front has shape \(3, 64, 64\)"),
        ("policy.json", {"action": {"codec": "joint"}}, "rows of 8"),
        ("policy.json", {"horizon": 13}, "at least 13"),
        ("policy.json", {"backend": "pi0"}, "backend"),
        ("policy.json", {"cameras": ["front", "wrist", "top"]}, "top"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(directory, file, changes, named) -> None:
    change(directory, file, **changes)
    with pytest.raises(ConfigError, match=named):
        make(directory)


@pytest.mark.parametrize("file", ["model.safetensors", "policy.json", "policy_preprocessor.json"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_refused_by_name(directory, file: str, fault: str) -> None:
    content = (directory / file).read_bytes()
    (directory / file).unlink()
    if fault == "damaged":
        (directory / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=str(directory)):
        make(directory)


@pytest.mark.parametrize("device", ["tensorrt", "cuda"])
def test_a_device_that_is_not_there_is_refused(directory, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(ConfigError, match=f"device='{device}'"):
        make(directory, device=device)


def test_without_lerobot_the_sentence_says_what_to_install(directory, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="pip install lerobot"):
        make(directory)


def test_without_a_directory_nothing_is_made() -> None:
    with pytest.raises(ConfigError, match="path=''"):
        make_policy("lerobot", PolicySettings(), ENVIRONMENT)
