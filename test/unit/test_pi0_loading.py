# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that must not become a policy, each refused with the field and the fix."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.pi0_checkpoints import (
    CAMERAS,
    ENVIRONMENT,
    change_json,
    settings,
    stock_manifest,
    write_nano,
    write_stock,
)

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.manifest import ActionSection, PrefixSection, StateSection, write_manifest
from vla_rl_ros.policies.pi0.loading import choose_dtype
from vla_rl_ros.policies.protocol import PolicyEnvironment, make_policy


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nano(tmp_path_factory.mktemp("nano"))


def _weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(str(file))
    change(tensors)
    file.unlink()
    save_file(tensors, str(file), metadata={"format": "pt"})


def _cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _scribble(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"not weights at all")


def _lose(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _drop_tensor(directory: Path) -> None:
    _weights(directory, lambda tensors: tensors.pop("action_out_proj.weight"))


def _add_tensor(directory: Path) -> None:
    _weights(directory, lambda tensors: tensors.update(extra=torch.zeros(2)))


def _resize_tensor(directory: Path) -> None:
    _weights(directory, lambda tensors: tensors.update({"action_out_proj.bias": torch.zeros(3)}))


def _spoil_tensor(directory: Path) -> None:
    _weights(directory, lambda tensors: tensors["action_out_proj.bias"].fill_(float("nan")))


def _json(name: str, **changes: object) -> Callable[[Path], None]:
    return lambda directory: change_json(directory / name, **changes)


def _text(name: str, text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / name).write_text(text)

    return write


DAMAGES = {
    "no config": (_lose("config.json"), r"config\.json cannot be read"),
    "no weights": (_lose("model.safetensors"), r"model\.safetensors is missing"),
    "no manifest": (_lose("policy.json"), r"policy\.json"),
    "no tokenizer": (_lose("tokenizer.json"), r"tokenizer\.json is missing"),
    "half of the weights": (_cut, "weights|safetensors"),
    "no safetensors": (_scribble, "weights|safetensors"),
    "a tensor too few": (_drop_tensor, r"action_out_proj\.weight"),
    "a tensor too many": (_add_tensor, "extra"),
    "a tensor of another size": (_resize_tensor, r"action_out_proj\.bias"),
    "a tensor of nan": (_spoil_tensor, r"'action_out_proj\.bias' is not finite"),
    "damaged config": (_text("config.json", "{"), r"config\.json.*not JSON"),
    "another model": (_json("config.json", model_type="gpt2"), "model_type='gpt2'"),
    "LeRobot's format": (_json("config.json", model_type=None, type="pi0"), "'lerobot'"),
    "config of nonsense": (_json("config.json", chunk_size="many"), r"config\.json"),
    "a longer chunk in the manifest": (_json("policy.json", horizon=99), "horizon says 99"),
    "other images in the manifest": (_json("policy.json", image_px=96), "image_px says 96"),
    "another period": (_json("policy.json", control_period_s=0.05), "control_period_s=0.05"),
    "another back end": (_json("policy.json", backend="openpi"), "backend='openpi'"),
    "a camera the cell lacks": (_json("policy.json", cameras=["ceiling"]), "lacks ceiling"),
    "no cameras": (_json("policy.json", cameras=[]), "cameras is empty"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("kind", ["stock", "nano"])
def test_a_checkpoint_that_does_not_fit_is_refused(
    kind: str, damage: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(request.getfixturevalue(kind), directory)
    spoil, sentence = DAMAGES[damage]
    spoil(directory)
    with pytest.raises(ConfigError, match=sentence):
        make_policy("pi0", settings(directory), ENVIRONMENT)


SECTIONS = {
    "state.channels": {"state": StateSection(channels=("tcp.x_m",) * 13)},
    "action.dim": {
        "action": ActionSection(codec="relative", rotation="r6d"),
    },
    "prefix.max_locked": {"prefix": PrefixSection(max_locked=8)},
    "prefix.conditioning": {"prefix": PrefixSection(max_locked=4, conditioning=("lock",))},
}


@pytest.mark.parametrize("field", list(SECTIONS))
def test_a_manifest_that_contradicts_the_weights_is_refused(
    field: str, stock: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(stock, directory)
    write_manifest(stock_manifest(**SECTIONS[field]), directory)
    with pytest.raises(ConfigError, match=field):
        make_policy("pi0", settings(directory), ENVIRONMENT)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.path='.*nowhere'"):
        make_policy("pi0", settings(tmp_path / "nowhere"), ENVIRONMENT)


def test_a_cell_with_too_few_cameras_is_refused(stock: Path) -> None:
    cell = PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS[:1])
    with pytest.raises(ConfigError, match="front"):
        make_policy("pi0", settings(stock), cell)


@pytest.mark.parametrize("device", ["tensorrt", "cuda"])
def test_a_device_that_is_not_there_is_refused(stock: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=rf"settings\.device='{device}'"):
        make_policy("pi0", settings(stock, device=device), ENVIRONMENT)


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16


@pytest.mark.parametrize("kind", ["stock", "nano"])
def test_loading_never_asks_the_network(
    kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"connection to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    directory = request.getfixturevalue(kind)
    assert make_policy("pi0", settings(directory), ENVIRONMENT).cameras == CAMERAS
