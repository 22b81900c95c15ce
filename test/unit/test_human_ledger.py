# SPDX-License-Identifier: Apache-2.0
"""Human time: every tagged tick once, whatever is repeated, and prompts by the clock."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl_ros.core.human_ledger import DriveCount, HumanLedger, Work
from vla_rl_ros.core.intervention import ExecutedAction, Source
from vla_rl_ros.ros.human_time import (
    HumanTimeKeeper,
    LedgerFile,
    decode_human_time,
    encode_human_time,
)
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE

P_NS = 100_000_000
SOURCES = st.sampled_from(list(Source))
EPISODES = st.lists(st.lists(SOURCES, max_size=30), max_size=8)


def rows(episodes: list[list[Source]]) -> list[tuple[int, int, Source]]:
    return [
        (epoch, index * P_NS, source)
        for epoch, sources in enumerate(episodes, start=5)
        for index, source in enumerate(sources)
    ]


def counted(episodes: list[list[Source]]) -> DriveCount:
    """The same by another way: runs of human ticks in each episode."""
    return DriveCount(
        ticks=sum(len(sources) for sources in episodes),
        human_ticks=sum(sources.count(Source.HUMAN) for sources in episodes),
        interventions=sum(
            key is Source.HUMAN for sources in episodes for key, _ in groupby(sources)
        ),
    )


@given(EPISODES)
def test_the_ledger_equals_the_tagged_rows(episodes: list[list[Source]]) -> None:
    ledger = HumanLedger(0.1, window=3)
    assert all(ledger.tick(*row) for row in rows(episodes))
    time = ledger.time(0.0)
    assert time.session == counted(episodes)
    assert time.intervening_s == pytest.approx(0.1 * counted(episodes).human_ticks)
    with_ticks = [sources for sources in episodes if sources]
    assert time.episode == counted(with_ticks[-1:])
    assert time.rolling == counted(with_ticks[-3:])
    assert time.num_rolling == len(with_ticks[-3:])


@given(EPISODES, st.data())
def test_repeated_and_replayed_rows_are_counted_once(
    episodes: list[list[Source]], data: st.DataObject
) -> None:
    ledger, sent = HumanLedger(0.1, window=3), rows(episodes)
    for index in range(len(sent)):
        ledger.tick(*sent[index])
        replay_from = data.draw(st.integers(0, index + 1))
        for row in sent[replay_from : index + 1]:
            assert not ledger.tick(*row)
    assert ledger.time(0.0).session == counted(episodes)


@given(EPISODES, st.integers(0, 200), st.integers(0, 30))
def test_a_successor_goes_on_without_losing_or_doubling_a_tick(
    episodes: list[list[Source]], cut: int, overlap: int
) -> None:
    sent = rows(episodes)
    first = HumanLedger(0.1, window=3)
    for row in sent[:cut]:
        first.tick(*row)
    second = HumanLedger(0.1, window=3)
    second.restore(json.loads(json.dumps(first.to_record())))
    for row in sent[max(0, min(cut, len(sent)) - overlap) :]:
        second.tick(*row)
    whole = HumanLedger(0.1, window=3)
    for row in sent:
        whole.tick(*row)
    assert second.time(0.0) == whole.time(0.0)


def test_a_clock_that_was_set_back_between_episodes_loses_nothing() -> None:
    ledger = HumanLedger(0.1, window=3)
    assert ledger.tick(1, 50 * P_NS, Source.HUMAN)
    assert ledger.tick(2, 3 * P_NS, Source.HUMAN)
    assert ledger.time(0.0).session == DriveCount(ticks=2, human_ticks=2, interventions=2)


def test_a_predecessor_by_a_clock_that_was_ahead_is_known_by_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    ledger = HumanLedger(0.1, window=3)
    ledger.tick(5000, P_NS, Source.HUMAN)
    assert LedgerFile(str(tmp_path)).save(ledger) == ""
    keeper = HumanTimeKeeper(0.1, 3, lambda: 0.0)
    assert keeper.epoch == 5000
    nothing = np.zeros(7)
    keeper.count(
        ExecutedAction(
            stamp_ns=0, epoch=keeper.epoch + 1, source=Source.HUMAN, executed=nothing,
            base=nothing, residual=nothing, chunk_id=0, chunk_step=0,
        )
    )  # fmt: skip
    assert keeper.now().session.human_ticks == 2


def test_prompts_are_timed_while_they_are_open() -> None:
    ledger = HumanLedger(0.1, window=3)
    ledger.begin(Work.RESETTING, 10.0)
    ledger.begin(Work.RESETTING, 12.0)
    open_time = ledger.time(15.0)
    assert (open_time.waiting_s, open_time.resetting_s, open_time.num_resets) == (5.0, 5.0, 1)
    ledger.end(Work.RESETTING, 17.0)
    ledger.end(Work.RESETTING, 18.0)
    ledger.begin(Work.LABELLING, 20.0)
    time = ledger.time(23.0)
    assert (time.waiting_s, time.resetting_s, time.labelling_s) == (0.0, 7.0, 3.0)
    assert time.total_s == pytest.approx(10.0)


def test_a_rate_without_ticks_is_zero() -> None:
    assert HumanLedger(0.1, window=3).time(0.0).rolling.rate == 0.0
    assert DriveCount(ticks=8, human_ticks=2, interventions=1).rate == 0.25


@settings(max_examples=25)
@given(EPISODES, st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_the_message_carries_everything(
    episodes: list[list[Source]], reset_s: float, now_s: float
) -> None:
    ledger = HumanLedger(0.05, window=2)
    for row in rows(episodes):
        ledger.tick(*row)
    ledger.begin(Work.RESETTING, reset_s)
    time = ledger.time(now_s)
    assert decode_human_time(encode_human_time(time, 7)) == time


def test_the_file_survives_and_nonsense_in_it_is_told(tmp_path: Path) -> None:
    file, ledger = LedgerFile(str(tmp_path)), HumanLedger(0.1, window=3)
    assert file.load(ledger) == ""
    ledger.tick(1, P_NS, Source.HUMAN)
    file.save(ledger)
    successor = HumanLedger(0.1, window=3)
    assert file.load(successor) == ""
    assert successor.time(0.0) == ledger.time(0.0)
    for nonsense in ("{", "{}", "[]", '{"newest": 3}'):
        next(tmp_path.iterdir()).write_text(nonsense)
        untouched = HumanLedger(0.1, window=3)
        assert "not a ledger" in file.load(untouched)
        assert untouched.time(0.0).session.ticks == 0
    next(tmp_path.iterdir()).unlink()
    (tmp_path / "human_ledger.json").mkdir()
    assert "cannot be read" in file.load(HumanLedger(0.1, window=3))
    homeless = LedgerFile("")
    homeless.save(ledger)
    assert homeless.load(successor) == ""


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    keeper = HumanTimeKeeper(0.1, 3, lambda: 0.0)
    assert keeper.problem == ""
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "write_text", full)
        keeper.save()
    assert "No space left" in keeper.problem
    keeper.save()
    assert keeper.problem == ""
    assert HumanTimeKeeper(0.1, 3, lambda: 0.0).problem == ""
