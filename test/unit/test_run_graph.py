# SPDX-License-Identifier: Apache-2.0
"""What the owner of a graph does before its runner starts, and how long it waits for its end."""

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


def test_what_another_start_removes_at_the_same_time_keeps_no_graph_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunnerStub.waits_s = []
    monkeypatch.setattr(subprocess, "Popen", RunnerStub)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # Listed, but gone for whoever looks at it; no process has the number 0.
    (tmp_path / "vla_rl_ros.0.gone").symlink_to(tmp_path / "nowhere")
    stale = tmp_path / "vla_rl_ros.0.left"
    stale.mkdir()
    with run_graph(GraphOptions(backend=Backend.FAKE, out=tmp_path / "out")):
        assert not stale.exists()
