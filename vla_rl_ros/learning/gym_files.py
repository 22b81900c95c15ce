# SPDX-License-Identifier: Apache-2.0
"""What a run of `gym_loop` leaves behind.

``snapshot.pt`` (to continue), ``replay/`` (rows), ``log.jsonl`` (one line per episode and
evaluation), ``policy.safetensors`` (the policy to use) and ``learning_curve.png``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import Weights

_FORMAT = 1
POLICY_FILE = "policy.safetensors"
SNAPSHOT_FILE = "snapshot.pt"


def save_policy(path: Path, weights: Weights, facts: Mapping[str, str]) -> None:
    """Write weights of a residual actor; the file is whole or the old one.

    Args:
        path: Ends in ``.safetensors``.
        weights: As `ResidualLearner.weights` gives them.
        facts: What is worth knowing about them, e.g. who drives.
    """
    from safetensors.numpy import save

    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(save(weights, metadata={"format": str(_FORMAT), **facts}))
    unfinished.replace(path)


def load_policy(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read what `save_policy` wrote.

    Raises:
        ConfigError: No such file, or not one of these.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load

    try:
        with safe_open(path, "numpy") as file:
            facts = dict(file.metadata() or {})
        weights = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is not a policy: {error}") from error
    return weights, facts


class RunFiles:
    """Snapshot and log of one run.

    Attributes:
        out: Directory of the run.
    """

    def __init__(self, out: Path) -> None:
        """Create the directory."""
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        self._log = out / "log.jsonl"
        self._snapshot = out / SNAPSHOT_FILE

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        if not self._log.exists():
            return []
        text = self._log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def save(self, values: Mapping[str, Any]) -> None:
        """Write a snapshot; it is whole or the old one.

        Args:
            values: Tensors and plain values.
        """
        unfinished = self._snapshot.with_suffix(".part")
        log_bytes = self._log.stat().st_size if self._log.exists() else 0
        torch.save({"format": _FORMAT, "log_bytes": log_bytes, **values}, unfinished)
        unfinished.replace(self._snapshot)

    def read(self) -> dict[str, Any] | None:
        """Read the snapshot; None if there is none.

        Raises:
            ConfigError: Damaged.
        """
        if not self._snapshot.exists():
            return None
        try:
            values: dict[str, Any] = torch.load(self._snapshot, weights_only=True)
            int(values["log_bytes"])
        except Exception as error:  # torch reports damage in many ways
            raise ConfigError(f"{self._snapshot}: cannot be continued: {error}") from error
        return values

    def cut_log(self, values: Mapping[str, Any]) -> None:
        """Forget what was logged after a snapshot, to go on from it; only for who has the rows.

        Args:
            values: As `read` gives them.
        """
        if self._log.exists():
            with self._log.open("r+b") as file:
                file.truncate(int(values["log_bytes"]))
