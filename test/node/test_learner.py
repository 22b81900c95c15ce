# SPDX-License-Identifier: Apache-2.0
"""The learner on a real graph: rows, weights, metrics, and what a restart leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node.learner_bench import SETTINGS, Bench
from node.weights_stub import SEEN
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.learning.actor_bytes import decode_actor
from vla_rl_ros.learning.rows import END, Row, RowArray, RowLayout
from vla_rl_ros.learning.schedule import Driver
from vla_rl_ros.ros import learner_intake
from vla_rl_ros.ros.nodes.learner import LearnerNode

pytestmark = pytest.mark.ros


@pytest.fixture
def bench(executor, tmp_path: Path):
    with Bench(executor, tmp_path / "run") as made:
        yield made


def test_episodes_become_rows_updates_and_weights(bench) -> None:
    bench.start()
    for number in range(3):
        bench.session.episode(success=number != 1)
    assert bench.until(lambda: bench.latest("episodes") == 3.0)
    assert bench.until(lambda: bench.latest("updates") >= 5.0)
    assert bench.until(lambda: bench.driver_sent() is Driver.RESIDUAL)
    sent = decode_actor(bench.weights[-1])
    assert (sent.obs_version, sent.obs_names) == (SEEN.version, SEEN.names)
    versions = [decode_actor(data).version for data in bench.weights]
    assert versions == sorted(set(versions))
    assert bench.latest("session.lost_ticks") == 0.0
    bench.stop()
    rows = bench.stored()
    # The last tick of an episode that was cut off is its closing row.
    assert len(rows) == 3 * 20 + 2
    assert (rows["flags"] & END != 0).sum() == 3


def test_an_actor_that_has_just_started_does_not_say_what_is_learned_from(bench) -> None:
    bench.session.begin()
    bench.session.blind_tick()
    bench.session.ticks(20)
    bench.session.end()
    bench.start()
    assert bench.until(lambda: bench.latest("episodes") == 1.0 and bool(bench.weights))
    assert decode_actor(bench.weights[-1]).obs_version == SEEN.version
    bench.stop()
    assert len(bench.stored()) == 21


def test_what_happened_before_the_learner_was_there_is_learned_from_too(bench) -> None:
    for _ in range(4):
        bench.session.episode()
    bench.start()
    assert bench.until(lambda: bench.latest("episodes") == 4.0)
    bench.stop()
    assert len(bench.stored()) == 4 * 21


def test_a_restarted_learner_goes_on_at_its_step_and_loses_no_tick(bench) -> None:
    bench.start()
    for _ in range(3):
        bench.session.episode()
    assert bench.until(lambda: bench.latest("updates") >= 5.0 and bench.updates_sent() >= 5)
    # It goes in the middle of an episode and misses the end of it and a whole one.
    bench.session.begin()
    bench.session.ticks(7)
    assert bench.until(lambda: bench.node.count_publishers("action/executed") > 0)
    bench.stop()
    updates = bench.updates_sent()
    bench.session.ticks(5)
    bench.session.end()
    bench.session.episode(success=False)
    bench.session.begin()
    bench.session.ticks(3)
    heard = len(bench.weights)
    bench.start()
    assert bench.until(lambda: len(bench.weights) > heard)
    assert decode_actor(bench.weights[heard]).updates >= updates
    bench.session.ticks(4, source=Source.RESIDUAL)
    bench.session.end()
    assert bench.until(lambda: bench.latest("episodes") == 6.0)
    bench.stop()
    rows = bench.stored()
    # One closing row each, but where the last tick of a failure is it.
    assert len(rows) == bench.session.num_ticks + 5
    stamps = rows["stamp_ns"][(rows["flags"] & END) == 0]
    assert len(set(stamps.tolist())) == len(stamps)
    for number in np.unique(rows["episode"]):
        ticks = rows["tick"][rows["episode"] == number]
        assert ticks.tolist() == list(range(len(ticks)))


def sentences(bench: Bench) -> list[str]:
    """What diagnostics say from now on."""
    said: list[str] = []
    bench.session.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda m: said.append(m.status[0].message),
        QoSProfile(depth=50),
    )
    return said


def without_a_channel(seen: JointState) -> None:
    seen.name, seen.position = seen.name[:-1], seen.position[:-1]


def beyond_float32(seen: JointState) -> None:
    seen.position[3] = 1e39


@pytest.mark.parametrize(
    ("spoil", "reason"), [(without_a_channel, "wrong_channels"), (beyond_float32, "not_finite")]
)
def test_an_observation_that_makes_no_row_is_refused_and_the_others_count(
    bench, spoil, reason: str
) -> None:
    bench.start()
    bench.session.begin()
    bench.session.ticks(10)
    bench.session.ticks(1, spoil=spoil)
    bench.session.ticks(10)
    bench.session.end()
    bench.session.episode()
    assert bench.until(lambda: bench.latest("episodes") == 2.0)
    assert bench.node.diag.counted(f"rejected.{reason}") == 1
    assert bench.latest("session.lost_ticks") == 1.0


def test_an_episode_that_makes_no_rows_is_left_out_and_learning_goes_on(
    bench, monkeypatch
) -> None:
    pack = RowLayout.pack

    def pack_later_ones(layout: RowLayout, rows: Sequence[Row]) -> RowArray:
        if rows[0].episode == 101:
            raise ReplayError("rewards are not finite")
        return pack(layout, rows)

    monkeypatch.setattr(RowLayout, "pack", pack_later_ones)
    bench.start()
    for _ in range(3):
        bench.session.episode()
    assert bench.until(lambda: bench.latest("episodes") == 2.0)
    assert bench.node.diag.counted("rejected.episode") == 1
    bench.stop()
    assert set(bench.stored()["episode"]) == {102, 103}


def test_a_directory_of_other_settings_is_refused_in_words(bench) -> None:
    bench.start()
    bench.session.episode()
    bench.session.episode()
    assert bench.until(lambda: len(bench.weights) > 0)
    bench.stop()
    bench.start(settings=SETTINGS.replace("max_utd=1", "max_utd=1 learner.gamma=0.9"))
    bench.session.episode()
    said = sentences(bench)
    assert bench.until(lambda: any("learner.gamma" in sentence for sentence in said))


def test_clocks_that_differ_are_told(bench, monkeypatch) -> None:
    # So the past of the session is too long for a burst.
    monkeypatch.setattr(learner_intake, "_BURST_S", 0.0)
    said = sentences(bench)
    bench.session.episode()
    bench.start()
    assert bench.until(lambda: any("set the clocks" in sentence for sentence in said))
    assert bench.until(lambda: bench.latest("episodes") == 1.0)


@pytest.mark.parametrize("is_ahead", [True, False])
def test_an_episode_that_is_taken_for_a_stored_one_is_told(bench, is_ahead: bool) -> None:
    bench.session.number_from(1000)
    bench.start()
    bench.session.episode()
    assert bench.until(lambda: bench.latest("episodes") == 1.0)
    bench.stop()
    said = sentences(bench)
    bench.start()
    if is_ahead:
        bench.session.number_from(100)
    bench.session.begin()
    bench.session.ticks(5)
    if is_ahead:
        assert bench.until(lambda: any("use another directory" in told for told in said))
    bench.session.end()
    bench.session.number_from(2000)
    bench.session.episode()
    wanted = 2.0 if is_ahead else 3.0
    assert bench.until(lambda: bench.latest("episodes") == wanted)
    assert is_ahead or not any("stored one" in told for told in said)
    bench.stop()
    assert set(bench.stored()["episode"]) == ({1001, 2001} if is_ahead else {1001, 1002, 2001})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"settings": "actor.lr=3"}, "actor.lr"),
        ({"settings": "learner.gamma=often"}, "gamma"),
        ({"preset": "best"}, "best"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    executor, tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        LearnerNode({"autostart": False, "directory": str(tmp_path), **changes})
