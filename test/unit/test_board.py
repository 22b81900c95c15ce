# SPDX-License-Identifier: Apache-2.0
"""TensorBoard where it is installed, silence where it is not."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from vla_rl_ros.learning.board import Board


def test_without_the_package_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = Board(tmp_path)
    board.add(1, {"update.loss": 0.5})
    board.close()
    assert not board.is_open
    assert list(tmp_path.iterdir()) == []


def test_with_it_metrics_are_written_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, directory: str) -> None:
            written.append(("open", directory))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("close",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    board = Board(tmp_path)
    board.add(7, {"update.loss": 0.5})
    board.close()
    board.close()
    assert written == [("open", str(tmp_path)), ("update/loss", 0.5, 7), ("close",)]
