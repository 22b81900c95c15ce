# SPDX-License-Identifier: Apache-2.0
"""When a bag begins and ends, what stands in it, and what is said when something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.bag_samples import CHANNELS, KEEP, POSE, bag_topics, channels, pose

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_check import check
from vla_rl_ros.data.bag_reader import Bag
from vla_rl_ros.data.bag_writer import BagSettings
from vla_rl_ros.data.episode_recording import (
    EpisodeRecording,
    RawMessage,
    RecordingSettings,
    free_directory,
)
from vla_rl_ros.data.record_file import DiskFullError


class Player:
    """An `EpisodeRecording` with a clock that only moves when told to."""

    def __init__(self, directory: Path, bag: BagSettings = KEEP) -> None:
        settings = RecordingSettings(directory=directory, bag=bag, tail_s=0.2, silence_s=5.0)
        self.recording = EpisodeRecording(
            bag_topics(), frozenset({CHANNELS}), {"git_hash": "abc"}, settings
        )
        self.now_s = 100.0

    def phase(self, phase: Phase, episode_id: str = "e1", outcome: Outcome | None = None) -> None:
        state = EpisodeState(phase=phase, episode_id=episode_id, task="lift", outcome=outcome)
        self.recording.follow(state, self.now_s, int(self.now_s * 1e9))
        self.recording.tick(self.now_s)

    def send(self, topic: int = POSE, num_lost: int = 0) -> None:
        now_ns = int(self.now_s * 1e9)
        make = pose(now_ns, 0.0) if topic == POSE else channels(now_ns, {"a": 1.0})
        self.recording.write([RawMessage(now_ns, topic, now_ns, 1, make)], num_lost)
        self.recording.tick(self.now_s)

    def wait(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.recording.tick(self.now_s)


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player(tmp_path)


def episode(directory: Path) -> dict[str, str]:
    assert check(directory).problems == ()
    return Bag(directory).metadata("episode")


def test_a_bag_holds_what_came_between_ready_and_the_tail(player: Player, tmp_path: Path) -> None:
    player.send()
    player.phase(Phase.RESETTING)
    player.send()
    player.phase(Phase.READY)
    player.send()
    player.phase(Phase.RUNNING)
    player.send()
    player.phase(Phase.ENDED, outcome=Outcome.SUCCESS)
    player.send()
    player.wait(0.1)
    player.send()
    assert player.recording.episode_id == "e1"
    player.wait(0.2)
    player.send()
    assert player.recording.episode_id == ""
    record = episode(tmp_path / "e1")
    assert record["outcome"] == "success"
    assert record["task"] == "lift"
    assert record["num_messages"] == "4"
    assert record["num_dropped"] == "0"
    assert Bag(tmp_path / "e1").metadata("provenance") == {"git_hash": "abc"}
    assert player.recording.num_missed == 0


def test_the_last_latched_message_stands_at_the_start(player: Player, tmp_path: Path) -> None:
    player.send(CHANNELS)
    player.send(CHANNELS)
    player.wait(60.0)
    player.phase(Phase.READY)
    player.send()
    player.phase(Phase.ENDED, outcome=Outcome.FAILURE)
    player.wait(1.0)
    first, second = Bag(tmp_path / "e1").messages()
    assert first.topic == "/gripper/state"
    assert first.log_time_ns == int(160.0 * 1e9)
    assert first.publish_time_ns == int(100.0 * 1e9)
    assert second.topic == "/arm/tcp_pose"


def test_heartbeats_neither_cut_a_bag_nor_begin_it_again(player: Player, tmp_path: Path) -> None:
    for _ in range(5):
        player.phase(Phase.RUNNING)
        player.send()
        player.wait(0.2)
    for _ in range(5):
        player.phase(Phase.ENDED, outcome=Outcome.TIMEOUT)
        player.wait(0.2)
    player.phase(Phase.IDLE)
    assert [path.name for path in tmp_path.iterdir()] == ["e1"]
    assert episode(tmp_path / "e1")["outcome"] == "timeout"


def test_the_next_episode_ends_the_tail_of_the_last(player: Player, tmp_path: Path) -> None:
    player.phase(Phase.READY, "e1")
    player.phase(Phase.ENDED, "e1", Outcome.SUCCESS)
    player.phase(Phase.READY, "e2")
    player.send()
    player.phase(Phase.FAULT, "e2", Outcome.FAULT)
    player.wait(1.0)
    assert episode(tmp_path / "e1")["outcome"] == "success"
    assert episode(tmp_path / "e2")["outcome"] == "fault"


def test_a_fault_after_the_end_does_not_change_the_outcome(player: Player, tmp_path: Path) -> None:
    player.phase(Phase.READY)
    player.phase(Phase.ENDED, outcome=Outcome.SUCCESS)
    player.phase(Phase.FAULT)
    player.wait(1.0)
    assert episode(tmp_path / "e1")["outcome"] == "success"


@pytest.mark.parametrize("end", ["stop", "silence", "bringup"])
def test_an_episode_without_outcome_is_closed_as_aborted(
    player: Player, tmp_path: Path, end: str
) -> None:
    player.phase(Phase.READY)
    player.send()
    if end == "stop":
        player.recording.close("shutdown")
    elif end == "silence":
        player.wait(5.1)
    else:
        player.phase(Phase.BRINGUP)
    record = episode(tmp_path / "e1")
    assert record["outcome"] == "aborted"
    assert record["reason"]


def test_parameters_reach_the_bag_whether_early_or_late(player: Player, tmp_path: Path) -> None:
    player.recording.keep_parameters("e1", {"/arm": '{"gain": 1.0}'})
    player.phase(Phase.READY, "e1")
    player.phase(Phase.READY, "e2")
    player.recording.keep_parameters("e2", {"/arm": '{"gain": 2.0}'})
    player.recording.close("shutdown")
    player.recording.keep_parameters("e2", {"/arm": "late"})
    assert Bag(tmp_path / "e1").metadata("parameters") == {"/arm": '{"gain": 1.0}'}
    assert Bag(tmp_path / "e2").metadata("parameters") == {"/arm": '{"gain": 2.0}'}


def test_losses_are_told_in_the_bag_and_by_check(player: Player, tmp_path: Path) -> None:
    player.send(num_lost=9)  # before the episode: nobody misses them
    player.phase(Phase.READY)
    player.send(num_lost=3)
    player.recording.close()
    assert Bag(tmp_path / "e1").metadata("episode")["num_dropped"] == "3"
    assert check(tmp_path / "e1").problems == ("the recorder dropped 3 messages",)


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a/b", "a b", "x" * 200])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    player = Player(tmp_path / "bags")
    with pytest.raises(BagError, match="not a name"):
        player.phase(Phase.READY, name)
    assert not (tmp_path / "bags").exists()


def test_a_full_disk_costs_the_episode_and_the_next_one_tries_again(
    player: Player, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player.phase(Phase.READY)
    player.send()
    monkeypatch.setattr(
        "vla_rl_ros.data.bag_writer.check_free_space", lambda *_: _raise(DiskFullError("full"))
    )
    with pytest.raises(DiskFullError):
        player.wait(2.0)
    player.recording.fail("full", is_finishable=True)
    player.send()
    player.send()
    assert player.recording.error == "full"
    assert player.recording.num_missed == 2
    player.phase(Phase.RUNNING)
    assert player.recording.episode_id == ""
    monkeypatch.undo()
    player.phase(Phase.READY, "e2")
    player.recording.close()
    assert player.recording.error == ""
    record = Bag(tmp_path / "e1").metadata("episode")
    assert record["outcome"] == "aborted"
    assert record["recording_error"] == "full"
    assert (tmp_path / "e2").is_dir()


def _raise(error: Exception) -> None:
    raise error


def test_a_recorder_started_anew_within_an_episode_writes_beside_the_first_bag(
    tmp_path: Path,
) -> None:
    (tmp_path / "e.partial").mkdir()
    (tmp_path / "e_2").mkdir()
    assert free_directory(tmp_path, "e").name == "e_3"
    assert free_directory(tmp_path, "f").name == "f"


def test_what_people_gave_to_an_episode_stands_in_its_bag_and_in_no_other(
    player: Player, tmp_path: Path
) -> None:
    for name, epoch, told in (("e1", 7, 7), ("e2", 8, 7)):
        for phase, outcome in ((Phase.RUNNING, None), (Phase.ENDED, Outcome.SUCCESS)):
            state = EpisodeState(phase=phase, episode_id=name, epoch=epoch, outcome=outcome)
            player.recording.follow(state, player.now_s, int(player.now_s * 1e9))
            # The last ticks of an episode are counted when it has ended.
            player.recording.keep_human(told, {"episode.human_ticks": phase.value})
        player.wait(0.3)
    assert Bag(tmp_path / "e1").metadata("human") == {"episode.human_ticks": "ended"}
    assert Bag(tmp_path / "e2").metadata("human") == {}
