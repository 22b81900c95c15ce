# SPDX-License-Identifier: Apache-2.0
"""How long the owner of a graph waits for its runner to stop it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.ros.processes import LEARNER_SAVE_S
from vla_rl_ros.tools.graph import STOP_TIMEOUT_S, run_graph


class RunnerStub:
    """A runner process that ends when it is asked to."""

    pid = 0
    waits_s: list[float]

    def __init__(self, *_: object, **__: object) -> None:
        self.waits_s = RunnerStub.waits_s

    def poll(self) -> None:
        return None

    def send_signal(self, _signum: int) -> None:
        pass

    def wait(self, timeout_s: float) -> int:
        self.waits_s.append(timeout_s)
        return 0


@pytest.mark.parametrize("has_learner", [False, True])
def test_only_a_graph_with_a_learner_is_given_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_learner: bool
) -> None:
    RunnerStub.waits_s = []
    monkeypatch.setattr(subprocess, "Popen", RunnerStub)
    learner = tmp_path / "run" if has_learner else None
    with run_graph(GraphOptions(backend=Backend.FAKE, out=tmp_path, learner=learner)):
        pass
    assert RunnerStub.waits_s == [STOP_TIMEOUT_S + (LEARNER_SAVE_S if has_learner else 0.0)]
