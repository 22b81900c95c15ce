# SPDX-License-Identifier: Apache-2.0
"""`train residual --ros`: what a command line makes of the graph, and how ticks are counted."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.row_log import RowLog
from vla_rl_ros.learning.rows import END
from vla_rl_ros.learning.session_rows import session_layout
from vla_rl_ros.tools.cli import main
from vla_rl_ros.tools.train import add_parser
from vla_rl_ros.tools.train_ros import graph_options, wait_for_learner


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "residual", "--ros", *words])


def test_the_command_line_decides_cell_policy_and_learner(tmp_path: Path) -> None:
    scene = ("--task", "peg", "--variant", "peg_tight", "--seed", "7")
    policy = ("--base-checkpoint", "vla", "--execute-ticks", "3")
    changes = ("learner.xi=0.3", "run.max_utd=4", "reward.time_penalty=0.01")
    learner = ("--preset", "rlpd", "--set", *changes)
    options = graph_options(parsed(*scene, *policy, *learner, "--out", str(tmp_path)))
    assert (options.tasks, options.variant, options.checkpoint) == (("peg",), "peg_tight", "vla")
    assert (options.learner, options.preset, options.seed) == (tmp_path, "rlpd", 7)
    assert options.learner_settings == " ".join(("run.seed=7", *changes))
    assert options.overrides == {"vla_inference": {"execute_ticks": 3}}
    assert not options.record


@pytest.mark.parametrize(
    "words", [("--classifier", "runs/success"), ("--stand-in",), ("--record",)]
)
def test_what_the_graph_alone_has_is_refused_without_it(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "residual", "--task", "peg", "--out", str(out), *words]) == 1
    assert f"{words[0]} goes with --ros" in capsys.readouterr().err
    assert not out.exists()


def test_a_classifier_may_judge_and_a_stand_in_may_help(tmp_path: Path) -> None:
    words = ("--task", "peg", "--classifier", "runs/success", "--stand-in")
    options = graph_options(parsed(*words, "--out", str(tmp_path)))
    assert (options.classifiers, options.operator) == (("runs/success",), "spacemouse")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--task"),
        (("--task", "lift", "--gym", "Pendulum-v1"), "--gym"),
        (("--task", "lift", "--kill-learner", "2"), "--minutes"),
        (("--task", "juggle"), "juggle"),
        (("--task", "lift", "--reward", "env"), "--reward"),
        (("--task", "lift", "--set", "reward.tip=1"), "time_penalty"),
        (("--task", "lift", "--set", "reward.vice=runs/a"), "n_step=1"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, words: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        graph_options(parsed(*words, "--out", str(tmp_path)))


def test_stored_ticks_are_those_on_disk_each_counted_once(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    from vla_rl_ros.tools.ros_audit import stored_ticks

    assert stored_ticks(tmp_path) == {}
    layout = session_layout(3, "v")
    rows = np.zeros(4, layout.dtype)
    rows["episode"] = [5, 5, 5, 6]
    # The closing row of a success repeats the stamp of the last tick.
    rows["stamp_ns"] = [10, 20, 20, 30]
    rows["flags"] = [0, 0, END, 0]
    log = RowLog(tmp_path / "replay" / "online", layout)
    log.append(rows)
    log.close()
    assert stored_ticks(tmp_path) == {5: {10, 20}, 6: {30}}


def said_by(*words: dict[str, float]) -> tuple[MagicMock, MagicMock]:
    """A graph after episode 107, and a learner that says a word at each look at it."""
    from vla_rl_ros.ros.observer import GraphTimeoutError

    audit = MagicMock(metrics={})
    left = list(words)

    def wait_until(is_there: Callable[[], bool], *_: object) -> None:
        while not is_there():
            if not left:
                raise GraphTimeoutError("waited in vain")
            audit.metrics = left.pop(0)
        assert not left

    observer = MagicMock(episode=EpisodeState(epoch=107, phase=Phase.IDLE))
    observer.wait_until.side_effect = wait_until
    return observer, audit


def test_the_learner_is_waited_for_until_it_has_taken_the_last_episode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rclpy")
    observer, audit = said_by(
        {"episodes": 4.0, "session.empty": 3.0, "session.epoch": 106.0},
        # Killed: the next one knows nothing of those that were too short.
        {"episodes": 4.0, "session.empty": 0.0, "session.epoch": 104.0},
        {"episodes": 4.0, "session.empty": 1.0, "session.epoch": 107.0},
    )
    wait_for_learner(observer, audit, lambda: None)
    assert not capsys.readouterr().err


def test_a_learner_that_does_not_come_back_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy")
    wait_for_learner(*said_by({"session.epoch": 106.0}), lambda: None)
    assert "has not taken the last episode" in capsys.readouterr().err


def test_counts_without_an_episode_are_valid_json() -> None:
    from vla_rl_ros.tools.ros_audit import Audit

    figures = Audit(MagicMock()).latest(20)
    assert figures == {
        "episodes": 0, "success": None, "true_success": None, "intervention_rate": None
    }  # fmt: skip
    json.dumps(figures, allow_nan=False)
