# SPDX-License-Identifier: Apache-2.0
"""Series for plots, stamps without decoding, and the command line for bags."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from unit.bag_samples import (
    KEEP,
    PERIOD_NS,
    SILENT,
    START_NS,
    STORE,
    bag_topics,
    cdr,
    make_bag,
    make_partial,
)

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_reader import Bag, find_mcap, read_channels, read_poses, read_wrenches
from vla_rl_ros.data.bag_writer import BagSettings, BagWriter
from vla_rl_ros.tools.bag import add_parser


@pytest.fixture(params=["complete", "killed"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make = make_bag if request.param == "complete" else make_partial
    return make(tmp_path / "e", 20)


def test_poses_and_wrenches_become_arrays(bag: Path) -> None:
    stamps_ns, poses = read_poses(bag, "arm/tcp_pose")
    assert stamps_ns.tolist() == [START_NS + index * PERIOD_NS for index in range(20)]
    assert poses.shape == (20, 7)
    assert poses[3].tolist() == [3.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0]
    _, wrenches = read_wrenches(bag, "/arm/tcp_wrench")
    assert wrenches[4].tolist() == [-4.0, 0.0, 0.0, 0.0, 0.0, 0.5]


def test_channels_are_read_by_name_and_a_missing_one_is_nan(bag: Path) -> None:
    stamps_ns, values = read_channels(bag, "gripper/state", ["no.such", "gripper.width_m"])
    assert len(stamps_ns) == 20
    assert np.isnan(values[:, 0]).all()
    assert values[:, 1] == pytest.approx(0.01 * np.arange(20))


def test_a_topic_without_messages_gives_empty_arrays(bag: Path) -> None:
    stamps_ns, values = read_channels(bag, "learner/actor", ["a", "b"])
    assert stamps_ns.shape == (0,)
    assert values.shape == (0, 2)


def held(bag: Path) -> list[tuple[str, int, int, bytes]]:
    """All that its messages say."""
    found = Bag(bag).messages()
    return [(each.topic, each.log_time_ns, each.sequence, each.raw) for each in found]


def test_a_file_that_has_lost_its_index_is_not_read_whole_to_say_so(tmp_path: Path) -> None:
    mcap = find_mcap(make_bag(tmp_path / "e", 20))
    data = bytearray(mcap.read_bytes())
    # The footer is the last record before the magic: its place, twice, and a checksum.
    data[-28:-8] = bytes(20)
    mcap.write_bytes(data)
    with pytest.raises(BagError, match=r"e_0\.mcap has no index$"):
        Bag(mcap)
    mcap.write_bytes(data[:8] + data[-8:])
    with pytest.raises(BagError, match=r"e_0\.mcap has no index$"):
        Bag(mcap)


@pytest.mark.parametrize("place", range(9, 1400, 61))
def test_a_complete_bag_that_was_damaged_gives_its_messages_or_says_so(
    tmp_path: Path, place: int
) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    bag = make_bag(tmp_path / "e", 20, settings)
    whole = held(bag)
    mcap = find_mcap(bag)
    data = bytearray(mcap.read_bytes())
    # From the front, where messages lie, and from the back, where the index is.
    for at in (place, len(data) - place):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        mcap.write_bytes(damaged)
        try:
            found = held(bag)
        except BagError:
            continue
        assert found == whole


def test_a_message_with_another_byte_is_damage(tmp_path: Path) -> None:
    settings = BagSettings(compression="none", chunk_bytes=3000, start_free_bytes=0)
    bag = make_bag(tmp_path / "e", 20, settings)
    raw = next(iter(Bag(bag).messages(["arm/tcp_pose"]))).raw
    mcap = find_mcap(bag)
    data = mcap.read_bytes()
    mcap.write_bytes(data.replace(raw, bytes([*raw[:-1], raw[-1] ^ 1])))
    with pytest.raises(BagError, match=r"e_0\.mcap is damaged: .*(crc|CRC)"):
        list(Bag(bag).messages())


def test_an_unknown_topic_is_named(bag: Path) -> None:
    with pytest.raises(BagError, match="no topic /arm/nothing"):
        list(Bag(bag).messages(["arm/nothing"]))


def test_a_message_without_header_has_the_time_of_its_reception(tmp_path: Path) -> None:
    layout = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    message = STORE.types["std_msgs/msg/UInt8MultiArray"](
        layout=layout, data=np.arange(5, dtype=np.uint8)
    )
    writer = BagWriter(tmp_path / "e", bag_topics(), {}, KEEP)
    writer.write(SILENT, START_NS, START_NS - 5, cdr(message))
    (read,) = Bag(writer.finish()).messages()
    assert read.stamp_ns is None
    assert read.time_ns == START_NS
    assert read.publish_time_ns == START_NS - 5
    assert bytes(read.decode().data) == bytes(range(5))


def test_a_directory_without_a_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no MCAP files"):
        Bag(tmp_path)


def run_cli(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["bag", *words])
    return int(arguments.run(arguments))


def test_check_fails_until_recover_has_completed_the_bags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_partial(tmp_path / "a", 10)
    make_bag(tmp_path / "b", 10)
    assert run_cli("check", str(tmp_path)) == 1
    assert "writer was killed" in capsys.readouterr().out
    assert run_cli("recover", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "30 messages" in told
    assert "complete already" in told
    assert run_cli("info", str(tmp_path / "a"), str(tmp_path / "b")) == 0
    assert "/arm/tcp_pose" in capsys.readouterr().out


def test_a_path_without_bags_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("info", str(tmp_path)) == 1
    assert run_cli("recover", str(tmp_path / "nothing")) == 1
    assert "no bag in" in capsys.readouterr().err
