# SPDX-License-Identifier: Apache-2.0
"""Metrics for TensorBoard, where it is installed; nothing needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Event files of a run, or nothing at all.

    Attributes:
        is_open: Whether anything is written.
    """

    def __init__(self, directory: Path) -> None:
        """Write below `directory` if the package `tensorboard` is there."""
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self._writer = SummaryWriter(str(directory))
        self.is_open = self._writer is not None

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics of a step; dots in names make groups."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name.replace(".", "/"), value, step)

    def close(self) -> None:
        """Write what is left; idempotent."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
