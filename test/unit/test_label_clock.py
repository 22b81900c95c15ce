# SPDX-License-Identifier: Apache-2.0
"""How long somebody labels, and who hears of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from unit.test_label import CAMERAS, frames

from vla_rl_ros.data.label_rules import LabelRules
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.data.label_time import noted
from vla_rl_ros.tools.cli import main
from vla_rl_ros.tools.label import add_episode
from vla_rl_ros.tools.label_clock import REPEAT_S, LabelClock


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_work_counts_until_a_pause_has_lasted_too_long() -> None:
    time = Time()
    clock = LabelClock(pause_s=60.0, now_s=time)
    # Nobody has opened the page yet.
    time.now_s += 300.0
    assert clock.labelling_s == 0.0
    clock.touch()
    for passed_s in (5.0, 59.0, 10.0):
        time.now_s += passed_s
        clock.touch()
    assert clock.labelling_s == 74.0
    time.now_s += 1000.0
    assert clock.labelling_s == 134.0
    clock.touch()
    time.now_s += 3.0
    assert clock.labelling_s == 137.0


def test_who_hears_of_it_is_told_of_pauses_and_of_the_end() -> None:
    time, told = Time(), []
    changed = threading.Condition()

    def report(is_working: bool) -> bool:
        with changed:
            told.append(is_working)
            changed.notify()
        return True

    def wait_for(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(told) == count, 5.0)

    with LabelClock(report, pause_s=60.0, now_s=time) as clock:
        clock.touch()
        wait_for(1)
        # He goes on, and it is said that he does.
        time.now_s += REPEAT_S
        wait_for(2)
        time.now_s += 60.0
        wait_for(3)
        clock.touch()
        wait_for(4)
        time.now_s += 3.0
    assert told == [True, True, False, True, False]
    assert clock.ledger_s == 68.0
    time.now_s += 50.0
    assert clock.labelling_s == 63.0


def test_who_is_killed_labels_no_more() -> None:
    pytest.importorskip("sensor_msgs")
    from vla_rl_ros.core.human_ledger import Work
    from vla_rl_ros.ros.human_time import LEASE_S, HumanTimeKeeper

    assert LEASE_S >= 3 * REPEAT_S
    time = Time()
    keeper = HumanTimeKeeper(0.1, 5, time)
    for _ in range(10):
        keeper.mark(Work.LABELLING, is_begun=True)
        time.now_s += REPEAT_S
    assert keeper.now().labelling_s == 50.0
    # Nothing more is heard of him, not even that he is done.
    time.now_s += LEASE_S
    counted_s = keeper.now().labelling_s
    assert 50.0 < counted_s <= 50.0 + LEASE_S
    time.now_s += 3600.0
    assert keeper.now().labelling_s == counted_s
    keeper.mark(Work.LABELLING, is_begun=True)
    time.now_s += REPEAT_S
    keeper.mark(Work.LABELLING, is_begun=False)
    assert keeper.now().labelling_s == counted_s + REPEAT_S
    # Nor where nobody looks for an hour.
    keeper.mark(Work.LABELLING, is_begun=True)
    time.now_s += 3600.0
    keeper.mark(Work.LABELLING, is_begun=False)
    assert keeper.now().labelling_s == counted_s + REPEAT_S + LEASE_S


def test_nobody_who_hears_is_nobody_who_counts() -> None:
    with LabelClock(lambda _: False, now_s=Time()) as clock:
        clock.touch()
    assert clock.ledger_s == 0.0


def test_the_command_notes_the_time_also_of_a_session_that_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = LabelSet(tmp_path, "lift", CAMERAS)
    add_episode(labels, frames(), LabelRules(positives=2, negatives=2), None, 9, 9)
    monkeypatch.setattr("vla_rl_ros.tools.label_clock.LedgerReport.__call__", lambda *_: False)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    words = ["label", "--out", str(tmp_path), "--view", "terminal", "--who", "ada"]
    monkeypatch.setattr("vla_rl_ros.tools.label_viewer.view_in_terminal", interrupted)
    assert main(words) != 0
    capsys.readouterr()
    monkeypatch.setattr("vla_rl_ros.tools.label_viewer.view_in_terminal", lambda *_: None)
    assert main(words) == 0
    assert [(time.who, time.ledger_s) for time in noted(tmp_path)] == [("ada", 0.0)] * 2
    assert json.loads(capsys.readouterr().out)["labelling_s"] >= 0.0
