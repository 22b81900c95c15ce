# SPDX-License-Identifier: Apache-2.0
"""A bag whose writer was killed is completed, without loss and as often as one likes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mcap.opcode import Opcode
from rosbags.highlevel import AnyReader
from unit.bag_samples import KEEP, PERIOD_NS, bag_topics, make_bag, make_partial

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_check import check
from vla_rl_ros.data.bag_reader import Bag, find_mcap
from vla_rl_ros.data.bag_writer import BagSettings, BagWriter
from vla_rl_ros.data.mcap_scan import ScanResult, scan
from vla_rl_ros.data.recover import recover, recover_all
from vla_rl_ros.tools.cli import main

CHATTER = """
import sys, time
from pathlib import Path
from unit.bag_samples import KEEP, POSE, bag_topics, pose
from vla_rl_ros.data.bag_writer import BagWriter

writer = BagWriter(Path(sys.argv[1]), bag_topics(), {"episode": {"id": "e"}}, KEEP)
while True:
    now_ns = time.time_ns()
    writer.write(POSE, now_ns, now_ns, pose(now_ns, 0.0))
    writer.flush_if_due(time.monotonic())
    print(flush=True)
    time.sleep(0.002)
"""


def log_times(path: Path) -> list[tuple[str, int]]:
    return [(message.topic, message.log_time_ns) for message in Bag(path).messages()]


def test_recovered_bag_equals_what_was_flushed(tmp_path: Path) -> None:
    partial = make_partial(tmp_path / "e", 100)
    before = log_times(partial)
    result = recover(partial)
    assert result.directory == tmp_path / "e"
    assert result.num_messages == len(before) == 300
    assert not partial.exists()
    assert log_times(result.directory) == before
    bag = Bag(result.directory)
    assert bag.metadata("episode") == {"id": "e"}
    assert bag.metadata("recovery")["num_damaged_chunks"] == "0"
    with AnyReader([result.directory]) as reader:
        assert reader.message_count == 300
        assert {c.topic for c in reader.connections} == {topic.name for topic in bag_topics()}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_cut_anywhere_a_bag_keeps_every_message_before_the_cut(
    tmp_path: Path, compression: str
) -> None:
    settings = BagSettings(compression=compression, chunk_bytes=3000, start_free_bytes=0)
    whole = make_partial(tmp_path / "whole", 60, settings)
    data = find_mcap(whole).read_bytes()
    expected = log_times(whole)
    counts = []
    for index, size in enumerate(range(len(data), 9, -(len(data) // 23))):
        partial = tmp_path / f"cut{index}.partial"
        partial.mkdir()
        (partial / f"cut{index}_0.mcap").write_bytes(data[:size])
        result = recover(partial)
        found = log_times(result.directory)
        assert found == expected[: len(found)]
        assert len(found) == result.num_messages
        assert check(result.directory).problems == ()
        counts.append(len(found))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 180
    # Whole chunks hold about 20 messages, so no cut may cost many more than its share.
    assert counts[1] > 180 * 0.8


def test_messages_of_a_chunk_that_was_cut_off_are_kept(tmp_path: Path) -> None:
    settings = BagSettings(
        compression="none", chunk_bytes=10**6, start_free_bytes=0, flush_period_s=1e9
    )
    partial = make_partial(tmp_path / "e", 100, settings)
    mcap = find_mcap(partial)
    mcap.write_bytes(mcap.read_bytes()[: mcap.stat().st_size // 2])
    assert 50 < recover(partial).num_messages < 300


def test_recovering_twice_changes_nothing(tmp_path: Path) -> None:
    directory = recover(make_partial(tmp_path / "e")).directory
    content = {path.name: path.read_bytes() for path in directory.iterdir()}
    again = recover(directory)
    assert again.was_complete
    assert recover(tmp_path / "e.partial").was_complete
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == content


def test_a_complete_file_without_metadata_yaml_gets_one(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "e", 10)
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").unlink()
    assert "metadata.yaml is missing" in check(bag).problems[0]
    assert not recover(bag).was_complete
    assert (bag / "metadata.yaml").read_text() == text


def test_a_truncated_bag_under_its_final_name_is_recovered_too(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "e", 100)
    mcap = find_mcap(bag)
    mcap.write_bytes(mcap.read_bytes()[:-100])
    (bag / "metadata.yaml").unlink()
    assert "no index" in check(bag).problems[0]
    result = recover(bag)
    assert result.num_messages == 300
    assert check(bag).problems == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]


def test_a_repair_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    partial = make_partial(tmp_path / "e")
    shutil.copytree(partial, tmp_path / "e.recovering")
    assert recover(partial).num_messages == 300
    shutil.copytree(tmp_path / "e", tmp_path / "e.partial")
    assert recover(tmp_path / "e.partial").was_complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]


@pytest.mark.parametrize("is_cut_off", [True, False])
def test_a_file_that_lies_beside_bags_is_no_reason_to_touch_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_cut_off: bool
) -> None:
    bag = make_bag(tmp_path / "bags/e", 100)
    data = find_mcap(bag).read_bytes()
    (tmp_path / "bags/copy.mcap").write_bytes(data[:-100] if is_cut_off else data)
    before = sorted(tmp_path.rglob("*"))
    assert main(["bag", "recover", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "bags holds e beside copy.mcap: give that file a folder of its own" in said.err
    assert "e: complete already" in said.out
    assert sorted(tmp_path.rglob("*")) == before
    assert check(bag).problems == ()


def test_notes_in_a_bag_that_is_cut_off_are_not_lost(tmp_path: Path) -> None:
    partial = make_partial(tmp_path / "e")
    (partial / "notes.txt").write_text("the peg slipped")
    with pytest.raises(BagError, match=r"holds notes\.txt beside e_0\.mcap"):
        recover(partial)
    assert (partial / "notes.txt").exists()


def test_a_bag_that_cannot_be_completed_keeps_no_other_one_from_it(tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    make_partial(tmp_path / "b")
    with pytest.raises(BagError, match=r"a\.partial holds no MCAP files"):
        recover_all(tmp_path)
    assert check(tmp_path / "b").problems == ()


def places(mcap: Path, opcode: int) -> list[int]:
    """Where the contents of the records of a kind begin."""
    data, offset, found = mcap.read_bytes(), 8, []
    while offset < len(data):
        found += [offset + 9] if data[offset] == opcode else []
        offset += 9 + int.from_bytes(data[offset + 1 : offset + 9], "little")
    return found


def damage(mcap: Path, place: int) -> bytes:
    data = bytearray(mcap.read_bytes())
    data[place] ^= 0xFF
    mcap.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("byte", [28, 200], ids=["name of the compression", "messages"])
def test_a_damaged_chunk_costs_only_itself(tmp_path: Path, byte: int) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    mcap = find_mcap(make_partial(tmp_path / "e", 60, settings))
    damage(mcap, places(mcap, Opcode.CHUNK)[2] + byte)
    result = recover(mcap)
    assert result.num_damaged_chunks == 1
    assert 120 < result.num_messages < 180


def test_a_bag_of_which_nothing_can_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    mcap = find_mcap(make_bag(tmp_path / "e", 60, settings))
    for place in places(mcap, Opcode.CHUNK):
        data = damage(mcap, place + 200)
    with pytest.raises(BagError, match=r"no chunk of it can be read|is missing"):
        recover(mcap)
    assert mcap.read_bytes() == data


@pytest.mark.parametrize("what", ["messages", "index"])
def test_a_complete_bag_that_was_damaged_is_mended_too(tmp_path: Path, what: str) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    mcap = find_mcap(make_bag(tmp_path / "e", 60, settings))
    size = mcap.stat().st_size
    damage(mcap, places(mcap, Opcode.CHUNK)[2] + 200 if what == "messages" else size - 60)
    with pytest.raises(BagError, match="is damaged"):
        list(Bag(mcap).messages())
    result = recover(mcap)
    assert not result.was_complete
    assert result.num_damaged_chunks == int(what == "messages")
    assert len(list(Bag(result.directory).messages())) == result.num_messages
    assert recover(result.directory).was_complete


@pytest.mark.parametrize(
    ("kind", "byte", "sentence"),
    [
        (Opcode.CHUNK, 60, "the topic of channel 2 is missing"),
        (Opcode.METADATA, 4, "invalid start byte"),
        (Opcode.METADATA, 3, "a record ends early"),
    ],
)
def test_what_no_longer_says_what_it_means_is_refused_and_left_as_it_is(
    tmp_path: Path, kind: Opcode, byte: int, sentence: str
) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    mcap = find_mcap(make_partial(tmp_path / "a", 60, settings))
    data = damage(mcap, places(mcap, kind)[0] + byte)
    make_partial(tmp_path / "b")
    with pytest.raises(BagError, match=rf"a_0\.mcap is damaged: .*{sentence}"):
        recover_all(tmp_path)
    assert mcap.read_bytes() == data
    assert check(tmp_path / "b").problems == ()
    with pytest.raises(BagError, match=sentence):
        list(Bag(mcap).messages())


def test_a_bag_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)
    with pytest.raises(BagError, match="still being written"):
        recover(writer.path.parent)
    writer.finish()


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="not a bag"):
        recover(tmp_path / "nothing")
    (tmp_path / "e.partial").mkdir()
    with pytest.raises(BagError, match="no MCAP files"):
        recover(tmp_path / "e.partial")
    (tmp_path / "e.partial" / "e_0.mcap").write_bytes(b"something else")
    with pytest.raises(BagError, match="not an MCAP file"):
        recover(tmp_path / "e.partial")


def test_after_sigkill_less_than_a_second_is_missing(tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", CHATTER, str(tmp_path / "e")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        started_s = time.monotonic()
        first_ns = 0
        while time.monotonic() < started_s + 1.5 or not first_ns:
            process.stdout.readline()
            first_ns = first_ns or time.time_ns()
        process.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
    (result,) = recover_all(tmp_path)
    times = [time_ns for _, time_ns in log_times(result.directory)]
    assert (killed_ns - times[-1]) * 1e-9 < 0.5
    gaps_s = np.diff(times) * 1e-9
    assert max(gaps_s) < 0.2  # nothing is missing in between either
    assert times[0] <= first_ns + 50_000_000


def test_scan_reports_how_the_file_ends(tmp_path: Path) -> None:
    sealed, result = find_mcap(make_bag(tmp_path / "a", 5)), ScanResult()
    assert sum(1 for _ in scan(sealed, result)) > 15
    assert result == ScanResult(is_sealed=True)
    cut, result = find_mcap(make_partial(tmp_path / "b", 5)), ScanResult()
    cut.write_bytes(cut.read_bytes()[:-3])
    list(scan(cut, result))
    assert not result.is_sealed
    assert result.num_cut_bytes > 0


def test_gaps_and_rates_are_told(tmp_path: Path) -> None:
    report = check(make_bag(tmp_path / "e", 101), ["arm/tcp_pose", "/nobody", "no/body"])
    topic = next(topic for topic in report.topics if topic.name == "/arm/tcp_pose")
    assert topic.num_messages == 101
    assert topic.rate_hz == pytest.approx(200.0)
    assert topic.max_gap_s == pytest.approx(PERIOD_NS * 1e-9)
    assert report.duration_s == pytest.approx(0.5)
    assert report.problems == ("no channel for /nobody, no/body",)
