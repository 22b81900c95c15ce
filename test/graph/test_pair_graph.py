# SPDX-License-Identifier: Apache-2.0
"""Two tasks that undo each other on the simulated cell behind the robot's own protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vla_rl_ros.tools.bench_pair import PairEpisode, summary
from vla_rl_ros.tools.cli import main

pytestmark = [pytest.mark.graph, pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(180)]


def test_the_peg_goes_in_and_out_without_a_reset_and_every_tick_is_in_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--episodes", "4", "--robot-ip", "127.0.0.43", "--out", str(tmp_path)]
    assert main(["bench", "pair", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["episodes"] == 4
    assert figures["without_reset"] == 3
    assert (figures["scene_resets"], figures["homings"]) == (1, 1)
    assert figures["success"] == {"peg": [2, 2], "peg_out": [2, 2]}
    assert main(["bag", "human", str(tmp_path / "bags")]) == 0
    ledger = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ledger["agrees"]
    assert ledger["ticks"] == ledger["ledger_ticks"] > 40


def test_an_episode_that_something_touched_is_no_free_start() -> None:
    def episode(**changes: object) -> PairEpisode:
        plain = {"task": "peg", "outcome": "success", "reset": "none", "scene_resets": 0}
        return PairEpisode(**{**plain, "homings": 0, "duration_s": 1.0, **changes})

    rows = [
        episode(reset="scripted"),
        episode(task="peg_out"),
        episode(outcome="timeout"),
        episode(scene_resets=1),
        episode(homings=1),
    ]
    figures = summary(rows)
    assert (figures["episodes"], figures["without_reset"]) == (5, 2)
    assert figures["success"] == {"peg": [3, 4], "peg_out": [1, 1]}
    assert summary([])["share_without_reset"] == 0.0
