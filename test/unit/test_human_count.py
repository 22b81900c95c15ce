# SPDX-License-Identifier: Apache-2.0
"""Recorded rows against the ledger of their time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.bag_samples import KEEP, START_NS, channels

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.core.human_ledger import DriveCount, HumanLedger
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.data.bag_writer import BagWriter
from vla_rl_ros.data.human_count import HumanCount, control_period_s, count_bags, total
from vla_rl_ros.data.label_time import FILE_NAME, LabelTime, note
from vla_rl_ros.data.metadata import BagTopic, qos_text
from vla_rl_ros.data.schemas import message_schema
from vla_rl_ros.ros.human_time import encode_human_time, human_record
from vla_rl_ros.tools.cli import main

P_NS = 100_000_000
KIND = "sensor_msgs/msg/JointState"
V, H, R, O = Source.VLA, Source.HUMAN, Source.RESIDUAL, Source.HOLD  # noqa: E741
DRIVEN = [V, H, H, O, H, R, V, H]


def write(
    folder: Path,
    driven: list[Source],
    *,
    epoch: int = 4,
    forget: int = 0,
    twice: int = 0,
    late: bool = False,
) -> Path:
    """A bag whose ledger missed the first `forget` rows."""
    topics = [
        BagTopic(name=name, type=KIND, schema=message_schema(KIND), qos=qos_text(depth=10))
        for name in ("/action/executed", "/human/ledger")
    ]
    ledger = HumanLedger(0.1, window=5)
    metadata = {
        "episode": {"id": folder.name, "epoch": str(epoch)},
        "parameters": {"/supervisor": json.dumps({"control_period_s": 0.1})},
    }
    writer = BagWriter(folder, topics, metadata, KEEP)
    foreign = [(epoch - 1, START_NS - P_NS, H)] if late else []
    rows = [(epoch, START_NS + i * P_NS, source) for i, source in enumerate(driven)]
    for index, (row_epoch, stamp_ns, source) in enumerate(foreign + rows + rows[:twice]):
        values = {f"source.{each.value}": float(each is source) for each in Source}
        message = channels(stamp_ns, {**values, "chunk.epoch": float(row_epoch)})
        writer.write(0, stamp_ns + 1, stamp_ns, message, index + 1)
        if row_epoch == epoch and index >= forget + len(foreign):
            ledger.tick(row_epoch, stamp_ns, source)
    said = human_record(encode_human_time(ledger.time(0.0), 0))
    message = channels(START_NS, {name: float(value) for name, value in said.items()})
    writer.write(1, START_NS, START_NS, message, 1)
    writer.add_metadata("human", said)
    return writer.finish()


def test_rows_and_ledger_agree_to_the_tick(tmp_path: Path) -> None:
    (count,) = count_bags([write(tmp_path / "e1", DRIVEN, twice=3)])
    assert count.rows == DriveCount(ticks=8, human_ticks=4, interventions=3)
    assert count.agrees


def test_a_row_that_lies_in_the_next_bag_belongs_to_its_own_episode(tmp_path: Path) -> None:
    first = write(tmp_path / "e1", DRIVEN, epoch=4)
    second = write(tmp_path / "e2", DRIVEN, epoch=5, late=True)
    alone, (together, _) = count_bags([first])[0], count_bags([first, second])
    assert together.rows.ticks == alone.rows.ticks + 1
    assert not together.agrees


def test_a_ledger_that_missed_a_tick_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "e1", DRIVEN)
    assert main(["bag", "human", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["agrees"]
    assert summary["intervening_s"] == pytest.approx(0.4)
    write(tmp_path / "e2", DRIVEN, epoch=5, forget=2)
    assert main(["bag", "human", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    summary = json.loads(lines[-1])
    assert (summary["human_ticks"], summary["ledger_human_ticks"]) == (8, 7)
    assert summary["bags_that_disagree"] == 1
    assert "THE LEDGER SAYS 3 human of 6 ticks" in lines[1]


def test_a_session_adds_up(tmp_path: Path) -> None:
    counts = count_bags([write(tmp_path / f"e{n}", DRIVEN, epoch=n) for n in (1, 2)])
    figures = total(counts, 0.1)
    assert (figures["ticks"], figures["human_ticks"]) == (16, 8)
    assert figures["intervention_rate"] == 0.5
    assert control_period_s(tmp_path / "e1") == 0.1


def test_times_are_the_largest_of_each_launch_added_up() -> None:
    def bag(
        epoch: int, resetting_s: float, labelling_s: float, ticks: tuple[int, int] | None
    ) -> HumanCount:
        return HumanCount(
            bag=Path(f"e{epoch}"),
            rows=DriveCount(),
            ledger=None,
            resetting_s=resetting_s,
            labelling_s=labelling_s,
            epoch=epoch,
            ledger_ticks=ticks,
        )

    first = [
        bag(10, 5.0, 1.0, (0, 100)),
        bag(11, 9.0, 1.0, (100, 150)),
        bag(11, 9.5, 1.0, (100, 150)),
    ]
    silent = bag(12, 0.0, 0.0, None)
    second = [bag(500, 2.0, 0.0, (0, 300)), bag(501, 4.0, 3.0, (300, 420))]
    figures = total([*second, silent, *first], 0.1)
    assert (figures["resetting_s"], figures["labelling_s"]) == (13.5, 4.0)
    assert total([silent], 0.1)["resetting_s"] == 0.0


def test_label_sets_say_how_long_somebody_worked_on_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "bags" / "e1", DRIVEN)
    begin = "2026-01-02T03:04:05+00:00"
    for ledger_s in (0.0, 20.0):
        note(tmp_path, LabelTime(who="ada", begin=begin, labelling_s=30.5, ledger_s=ledger_s))
    words = ["bag", "human", str(tmp_path / "bags"), "--labels", str(tmp_path)]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["noted_labelling_s"], figures["noted_labelling_in_ledger_s"]) == (61.0, 20.0)
    (tmp_path / FILE_NAME).write_text('{"who": "ada"}\n')
    assert main(words) == 1
    assert "line 1 is no session of labelling" in capsys.readouterr().err


def test_bags_say_what_their_ledger_had_counted(tmp_path: Path) -> None:
    (count,) = count_bags([write(tmp_path / "e1", DRIVEN)])
    assert (count.epoch, count.ledger_ticks) == (4, (0, 8))


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    topic = BagTopic(name="/arm/x", type=KIND, schema=message_schema(KIND))
    path = BagWriter(tmp_path / "e", [topic], {}, KEEP).finish()
    with pytest.raises(BagError, match="no topic action/executed"):
        count_bags([path])
    with pytest.raises(BagError, match="control period"):
        control_period_s(path)
