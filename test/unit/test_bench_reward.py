# SPDX-License-Identifier: Apache-2.0
"""`bench/reward_cell.py`: its judge of episodes, and that results of two protocols never mix."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from vla_rl_ros.data.label_frames import STATE_NAMES
from vla_rl_ros.learning.classifier_model import ClassifierManifest

BENCH = Path(__file__).resolve().parents[2] / "bench"
PERIOD_S = 0.1


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("reward_cell")


class Episode:
    """Ticks of an episode, of which a model says what a test wants, before a judge."""

    def __init__(self, bench: ModuleType, **manifest: object) -> None:
        self.sim = SimpleNamespace(time_s=0.0, spec=SimpleNamespace(control_period_s=PERIOD_S))
        self.probabilities: list[float] = []
        model = SimpleNamespace(
            manifest=ClassifierManifest(
                name="told", task="lift", cameras=("front",), image_px=32, **manifest
            ),
            probability=lambda _: self.probabilities[-1],
        )
        self.judge = bench.Judge(SimpleNamespace(sim=self.sim), model)

    def tick(self, probability: float, **measured: float) -> bool:
        self.sim.time_s += PERIOD_S
        self.probabilities.append(probability)
        state = np.array([measured.get(name.replace(".", "_"), 0.0) for name in STATE_NAMES])
        return self.judge({}, state)

    def ticks_until_over(self, *probabilities: float) -> int | None:
        over = [self.tick(each) for each in probabilities]
        return over.index(True) + 1 if True in over else None


def test_an_episode_ends_once_enough_frames_agree_for_as_long_as_the_supervisor_asks(
    bench,
) -> None:
    # Three of four frames agree in the third, and 0.2 s later still do.
    episode = Episode(bench, needed=3, window=4)
    assert episode.ticks_until_over(*[0.9] * 8) == 5
    assert episode.judge.has_ended


def test_a_doubtful_frame_starts_the_hold_anew(bench) -> None:
    episode = Episode(bench, needed=3, window=4)
    assert episode.ticks_until_over(0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9) == 8
    assert episode.judge.said == [True] * 4 + [False] + [True] * 3


def test_the_threshold_of_the_classifier_decides(bench) -> None:
    assert Episode(bench, threshold=0.95).ticks_until_over(*[0.9] * 20) is None


def test_a_frame_that_does_not_keep_the_checks_is_no_success(bench) -> None:
    episode = Episode(bench, checks={"tcp.z_m": (0.09, 1.0)})
    assert not any(episode.tick(0.9, tcp_z_m=0.05) for _ in range(20))
    assert not any(episode.judge.said)
    assert any(episode.tick(0.9, tcp_z_m=0.2) for _ in range(20))


def test_of_a_failure_that_is_staged_again_only_the_last_time_counts(bench) -> None:
    episode = Episode(bench)
    assert episode.ticks_until_over(*[0.9] * 5) is not None
    episode.sim.time_s = 0.0
    assert episode.ticks_until_over(*[0.1] * 4) is None
    assert episode.judge.said == [False] * 4
    assert not episode.judge.has_ended


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> list[str]:
    """Run the command; returns the tasks that it would have run."""
    ran: list[str] = []
    monkeypatch.setattr(bench, "run_task", lambda task, *_: ran.append(task))
    monkeypatch.setattr(sys, "argv", ["reward_cell.py", *map(str, words)])
    assert bench.main() == 0
    return ran


def test_results_of_the_same_protocol_are_gone_on_with(bench, monkeypatch, tmp_path) -> None:
    for _ in range(2):
        assert run(bench, monkeypatch, "--out", tmp_path, "--only", "peg") == ["peg"]
    noted = json.loads((tmp_path / "peg/protocol.json").read_text())
    assert noted["verdict_seed"] == bench.VERDICT_SEED["peg"]


def test_results_of_another_protocol_are_refused_before_anything_runs(
    bench, monkeypatch, tmp_path
) -> None:
    run(bench, monkeypatch, "--out", tmp_path, "--only", "button")
    with pytest.raises(SystemExit, match=r"button holds .* \(steps=800 not 700\): give another"):
        run(bench, monkeypatch, "--out", tmp_path, "--steps", 700)
    # Of nobody else a protocol was noted, for nothing was begun.
    assert [path.name for path in tmp_path.iterdir()] == ["button"]
    monkeypatch.setitem(bench.VERDICT_SEED, "button", 1)
    with pytest.raises(SystemExit, match="verdict_seed=82000 not 1"):
        run(bench, monkeypatch, "--out", tmp_path)


def test_results_of_before_protocols_were_noted_are_only_printed(
    bench, monkeypatch, tmp_path, capsys
) -> None:
    (tmp_path / "lift").mkdir()
    (tmp_path / "lift/2_first.json").touch()
    with pytest.raises(SystemExit, match=r"lift holds results without protocol\.json"):
        run(bench, monkeypatch, "--out", tmp_path)
    assert run(bench, monkeypatch, "--out", tmp_path, "--report") == []
    assert "| task |" in capsys.readouterr().out
