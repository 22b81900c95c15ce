# SPDX-License-Identifier: Apache-2.0
"""policy.json: what comes back, and what is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.manifest import (
    CODECS,
    ActionSection,
    PolicyManifest,
    PrefixSection,
    StateSection,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from vla_rl_ros.policies.protocol import PolicyEnvironment

FULL = {
    "format": 1,
    "backend": "pi0",
    "control_period_s": 0.1,
    "horizon": 16,
    "cameras": ["wrist", "front"],
    "image_px": 64,
    "image_resize": "area",
    "state": {"channels": ["tcp.x_m", "gripper.width_m"], "mean": [0.5, 0.04], "std": [0.1, 1]},
    "action": {
        "codec": "delta_measured",
        "frame": "base",
        "gripper": "continuous",
        "mean": [0.0] * 7,
        "std": [0.01] * 7,
    },
    "prefix": {"max_locked": 8, "conditioning": ["lock"]},
    "inputs": {"image": "camera.front", "joints": ["joint.q1_rad"], "prompt": "instruction"},
    "prompt": "raw",
    "denoise_steps": 5,
    "training": {"seed": 3, "scores": {"lift": 0.98}},
}
LEAST = {
    "format": 1,
    "backend": "openpi",
    "control_period_s": 0.05,
    "action": {"codec": "absolute"},
}


@pytest.mark.parametrize("values", [FULL, LEAST], ids=["full", "least"])
def test_what_is_written_is_read(values: dict[str, object], tmp_path: Path) -> None:
    manifest = parse_manifest(values)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert read_manifest(tmp_path / "policy.json") == manifest
    write_manifest(manifest, tmp_path / "other.json")
    assert read_manifest(tmp_path / "other.json") == manifest


def test_values_arrive_where_they_belong() -> None:
    manifest = parse_manifest(FULL)
    assert manifest.state.std == (0.1, 1.0)
    assert manifest.action.dim == 7
    assert manifest.action.rotation == "rotvec"
    assert manifest.prefix.max_locked == 8
    assert manifest.inputs["joints"] == ("joint.q1_rad",)
    assert manifest.training["seed"] == 3


def test_what_is_left_out_is_neutral() -> None:
    manifest = parse_manifest(LEAST)
    assert manifest.action.mean == (0.0,) * 7
    assert manifest.action.std == (1.0,) * 7
    assert manifest.state.channels == ()
    assert manifest.prefix.conditioning == ()


@pytest.mark.parametrize(
    ("rotation", "codec", "dim", "resolved"),
    [
        ("auto", "absolute", 7, "rotvec"),
        ("auto", "absolute", 10, "r6d"),
        ("r6d_rows", "relative", 10, "r6d_rows"),
        ("rotvec", "relative", 7, "rotvec"),
        ("auto", "joint", 8, "rotvec"),
    ],
)
def test_the_length_of_a_row_says_how_rotations_are_written(
    rotation: str, codec: str, dim: int, resolved: str
) -> None:
    action = {"codec": codec, "rotation": rotation, "mean": [0.0] * dim, "std": [1.0] * dim}
    section = parse_manifest({**LEAST, "action": action}).action
    assert (section.dim, section.rotation) == (dim, resolved)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": 2}, "format=2"),
        ({"format": None}, "format=None"),
        ({"imagepx": 64}, "key 'imagepx' is unknown.*image_px"),
        ({"action": {"codec": "joint", "axis": 1}}, r"key 'action\.axis' is unknown"),
        ({"action": {}}, r"key 'action\.codec' is missing"),
        ({"action": [1]}, "action must be an object"),
        ({"action": {"codec": "warp"}}, "codec='warp' is not one of"),
        ({"backend": 3}, "backend=3 must be of type str"),
        ({"horizon": 8.5}, r"horizon=8\.5 must be of type int"),
        ({"horizon": True}, "horizon=True must be of type int"),
        ({"horizon": -1}, "horizon=-1 is outside"),
        ({"control_period_s": 0}, "control_period_s=0.0 is outside"),
        ({"control_period_s": float("nan")}, "control_period_s=nan is not finite"),
        ({"cameras": "front"}, "cameras='front' must be a list"),
        ({"cameras": ["front", 1]}, r"cameras\[1\]=1 must be of type str"),
        ({"state": {"channels": ["tcp.x_m"], "mean": [1, 2]}}, r"state\.mean has 2 numbers for 1"),
        (
            {"state": {"channels": ["tcp.x_m"], "std": [0]}},
            r"state\.std=\[0\.0\] must be positive",
        ),
        ({"action": {"codec": "absolute", "mean": [0, 0]}}, r"action\.mean has 2 numbers"),
        ({"prefix": {"conditioning": ["lock"]}}, r"prefix\.max_locked=0"),
        ({"prefix": {"conditioning": ["hope"]}}, r"prefix\.conditioning='hope'"),
        ({"inputs": {"x": "camera.front"}}, r"inputs\.x='camera\.front'"),
        ({"inputs": {"x": 4}}, r"inputs\.x=4"),
        ({"inputs": {"x": [1]}}, r"inputs\.x"),
        ({"inputs": ["x"]}, "inputs must be an object"),
        ({"image_resize": "stretch"}, "image_resize='stretch' is not one of"),
    ],
)
def test_every_mistake_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_manifest({**LEAST, **changes})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"null", b"3"])
def test_a_file_that_is_no_manifest_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"policy\.json"):
        read_manifest(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*policy.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("backend", "environment", "named"),
    [
        ("onnx", {}, "backend='pi0' is not 'onnx'"),
        ("pi0", {"control_period_s": 0.05}, "control_period_s=0.1"),
        ("pi0", {"cameras": ("front",)}, "the cell lacks wrist"),
    ],
)
def test_a_cell_it_was_not_trained_for_is_refused(backend, environment, named: str) -> None:
    cell = PolicyEnvironment(**{"cameras": ("wrist", "front"), **environment})
    with pytest.raises(ConfigError, match=named):
        parse_manifest(FULL).check_fits(backend, cell)


def test_json_is_plain(tmp_path: Path) -> None:
    write_manifest(parse_manifest(FULL), tmp_path)
    values = json.loads((tmp_path / "policy.json").read_text())
    assert values["inputs"]["joints"] == ["joint.q1_rad"]
    assert values["training"] == FULL["training"]


def test_the_page_for_users_lists_every_key() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "connect-your-vla.md"
    text = page.read_text(encoding="utf-8")
    sections = {"state": StateSection, "action": ActionSection, "prefix": PrefixSection}
    for field in dataclasses.fields(PolicyManifest):
        inner = dataclasses.fields(sections[field.name]) if field.name in sections else ()
        for key in [f"{field.name}.{part.name}" for part in inner] or [field.name]:
            assert f"`{key}`" in text, key
    for name in CODECS:
        assert f"| `{name}` |" in text, name
