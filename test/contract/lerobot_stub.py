# SPDX-License-Identifier: Apache-2.0
"""Stands in for LeRobot 0.4: the functions and arguments the back end uses, and no more.

The policy is one linear layer with noise, so that weights, seeds, processors and prefixes show in
its answer. `install` puts the modules where `import lerobot...` finds them.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

HORIZON, DIM, STATE_DIM, SIDE_PX = 12, 7, 10, 32
STATE = ["tcp.x_m", "tcp.y_m", "tcp.z_m", *(f"tcp.r6d_{i}" for i in range(6)), "gripper.width_m"]
ACTION_MEAN = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])
ACTION_STD = torch.tensor([0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.5])
CAMERAS = ("front", "wrist")


class PreTrainedConfig:
    def __init__(self, values: dict) -> None:
        self.type = values["type"]
        self.n_obs_steps = values["n_obs_steps"]
        self.input_features = {
            key: types.SimpleNamespace(shape=tuple(feature["shape"]))
            for key, feature in values["input_features"].items()
        }
        rtc = values.get("rtc_config")
        self.rtc_config = types.SimpleNamespace(**rtc) if rtc else None
        self.device = values["device"]

    @classmethod
    def from_pretrained(cls, directory, *, local_files_only: bool):
        assert local_files_only
        return cls(json.loads((Path(directory) / "config.json").read_text()))


class Policy:
    def __init__(self, config: PreTrainedConfig, weight: torch.Tensor) -> None:
        self.config, self.weight = config, weight
        self.calls: list[dict] = []

    @classmethod
    def from_pretrained(cls, directory, *, config, local_files_only: bool, strict: bool):
        assert local_files_only
        assert strict
        return cls(config, load_file(Path(directory) / "model.safetensors")["weight"])

    def eval(self):
        return self

    def reset(self) -> None:
        self.calls.clear()

    def predict_action_chunk(self, batch, **kwargs):
        is_guided = self.config.rtc_config is not None and self.config.rtc_config.enabled
        # Policies without real-time chunking accept no such arguments.
        assert is_guided or not kwargs
        self.calls.append({"batch": batch, **kwargs})
        pixels = [batch[f"observation.images.{name}"] for name in CAMERAS]
        assert all(image.shape == (1, 3, SIDE_PX, SIDE_PX) for image in pixels)
        assert isinstance(batch["task"], str)
        seen = torch.cat([batch["observation.state"], *(p.mean((2, 3)) for p in pixels)], dim=1)
        noise = 0.1 * torch.randn(1, HORIZON, DIM)
        answer = torch.tanh((seen @ self.weight).reshape(1, HORIZON, DIM)) + noise
        if kwargs.get("prev_chunk_left_over") is not None:
            num = kwargs["inference_delay"]
            answer[0, :num] = kwargs["prev_chunk_left_over"][:num]
        return answer


def make_pre_post_processors(config, *, pretrained_path: str, preprocessor_overrides: dict):
    assert preprocessor_overrides == {"device_processor": {"device": config.device}}
    json.loads((Path(pretrained_path) / "policy_preprocessor.json").read_text())

    def preprocess(batch: dict) -> dict:
        done = {"action": None, "next.reward": 0.0, **batch}
        if done["action"] is not None:
            done["action"] = (done["action"] - ACTION_MEAN) / ACTION_STD
        return done

    def postprocess(actions: torch.Tensor) -> torch.Tensor:
        return actions * ACTION_STD + ACTION_MEAN

    return preprocess, postprocess


def get_policy_class(name: str) -> type[Policy]:
    if name != "linear":
        raise ValueError(f"Policy type '{name}' is not available.")
    return Policy


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import lerobot...` find this file until the test is over."""
    content = {
        "lerobot": {},
        "lerobot.configs": {},
        "lerobot.configs.policies": {"PreTrainedConfig": PreTrainedConfig},
        "lerobot.policies": {},
        "lerobot.policies.factory": {
            "get_policy_class": get_policy_class,
            "make_pre_post_processors": make_pre_post_processors,
        },
    }
    for name, members in content.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


def write(directory: Path, *, is_guided: bool = True) -> Path:
    """A directory as LeRobot saves it, with our manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(
        {"weight": torch.randn(STATE_DIM + 3 * len(CAMERAS), HORIZON * DIM)},
        directory / "model.safetensors",
    )
    images = {f"observation.images.{name}": f"camera.{name}" for name in CAMERAS}
    features = {key: {"shape": [3, SIDE_PX, SIDE_PX]} for key in images}
    config = {
        "type": "linear",
        "n_obs_steps": 1,
        "device": "cpu",
        "input_features": {**features, "observation.state": {"shape": [STATE_DIM]}},
        "rtc_config": {"enabled": is_guided},
    }
    manifest = {
        "format": 1,
        "backend": "lerobot",
        "control_period_s": 0.1,
        "cameras": list(CAMERAS),
        "image_px": SIDE_PX,
        "image_resize": "area",
        "state": {"channels": STATE},
        "inputs": {**images, "observation.state": "state"},
        "action": {"codec": "delta_measured"},
        "prefix": {"conditioning": ["guide"] if is_guided else []},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "policy.json").write_text(json.dumps(manifest))
    (directory / "policy_preprocessor.json").write_text("{}")
    return directory
