# SPDX-License-Identifier: Apache-2.0
"""The thread of the bags records whatever it finds at its start, and says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.bag_samples import KEEP, POSE, START_NS, bag_topics, pose
from waiting import until

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.data.bag_check import check
from vla_rl_ros.data.episode_recording import EpisodeRecording, RawMessage, RecordingSettings
from vla_rl_ros.ros import bag_thread
from vla_rl_ros.ros.bag_thread import BagThread


class Unclosable(EpisodeRecording):
    """What even giving up raises an error of."""

    def tick(self, now_s: float) -> None:
        raise OSError("input/output error")

    def fail(self, error: str, *, is_finishable: bool) -> None:
        raise OSError(error)


def begun(directory: Path, kind: type[EpisodeRecording] = EpisodeRecording) -> BagThread:
    settings = RecordingSettings(directory=directory, bag=KEEP)
    recording = kind(bag_topics(), frozenset(), {}, settings)
    return BagThread(recording, directory, queue_limit_bytes=1 << 20)


def play(thread: BagThread, episode_id: str) -> None:
    for phase, outcome in ((Phase.RUNNING, None), (Phase.ENDED, Outcome.SUCCESS)):
        state = EpisodeState(phase=phase, episode_id=episode_id, outcome=outcome)
        thread.put_state(state, START_NS)
        thread.put([RawMessage(START_NS, POSE, START_NS, 1, pose(START_NS, 0.0))])


def test_episodes_are_recorded_whatever_is_wrong_with_a_bag_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: Path) -> None:
        raise KeyError("nobody has thought of this")

    monkeypatch.setattr(bag_thread, "recover_all", stumble)
    thread = begun(tmp_path)
    assert until(lambda: "nobody has thought of this" in thread.status.error)
    assert "a bag left behind could not be completed" in thread.status.error
    play(thread, "e1")
    assert thread.stop("bye", 5.0)
    assert check(tmp_path / "e1").problems == ()


def test_a_thread_that_died_says_so_and_has_not_stopped_well(tmp_path: Path) -> None:
    thread = begun(tmp_path, Unclosable)
    assert until(lambda: "input/output error" in thread.status.error)
    assert thread.status.error.startswith("nothing is recorded any more")
    assert not thread.stop("bye", 5.0)
