# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros export onnx`: what it prints, and what it refuses to overwrite."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from unit.pi0_checkpoints import write_stock

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.tools import export


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    export.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["export", "onnx", *words])
    return int(arguments.run(arguments))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_stock(tmp_path / "checkpoint")


def test_it_writes_the_file_and_says_how_near_it_is(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "pi0.onnx"
    words = ("--checkpoint", str(checkpoint), "--out", str(file), "--opset", "18")
    assert _run(*words) == 0
    assert "differs from torch by at most" in capsys.readouterr().out
    assert _run(*words) == 0, "its own file may be written again"
    assert not list(file.parent.glob(".export-*"))


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("checkpoint/pi0.onnx", "holds a checkpoint"),
        ("taken/pi0.onnx", r"holds other\.onnx"),
        ("new/pi0.pt", r"must end in \.onnx"),
    ],
)
def test_it_overwrites_nothing_of_others(
    checkpoint: Path, tmp_path: Path, place: str, sentence: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "other.onnx").touch()
    before = (checkpoint / "policy.json").read_text()
    with pytest.raises(ConfigError, match=sentence):
        export.export_onnx(checkpoint, tmp_path / place)
    assert (checkpoint / "policy.json").read_text() == before


def test_a_file_that_computes_something_else_is_not_put_in_place(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    file = tmp_path / "new" / "pi0.onnx"
    with pytest.raises(ConfigError, match="differs from torch"):
        export.export_onnx(checkpoint, file)
    assert list(file.parent.iterdir()) == []
