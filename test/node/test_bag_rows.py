# SPDX-License-Identifier: Apache-2.0
"""Rows of recordings equal rows made live, bit for bit, whatever went wrong in the session."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.executors import Executor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from unit.session_samples import (
    LAYOUT,
    OBSERVATION,
    PERIOD_NS,
    SPEC,
    Event,
    Session,
    full_session,
    packed,
)

from vla_rl_ros.core.episode import EpisodeState, Outcome
from vla_rl_ros.core.errors import BagError, InvalidCommandError
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.data.bag_writer import BagSettings
from vla_rl_ros.data.episode_recording import EpisodeRecording, RawMessage, RecordingSettings
from vla_rl_ros.data.metadata import BagTopic
from vla_rl_ros.data.schemas import message_schema
from vla_rl_ros.learning.actor_bytes import read_actor
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.rows import RowArray
from vla_rl_ros.learning.run_start import read_start
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionRows
from vla_rl_ros.ros.action_codecs import encode_executed, encode_observation
from vla_rl_ros.ros.bag_rows import BagRows, common_meaning, find_episodes, meaning
from vla_rl_ros.ros.episode_codec import encode_episode
from vla_rl_ros.ros.graph import TOPIC_BY_NAME
from vla_rl_ros.ros.nodes.recorder import RecorderNode
from vla_rl_ros.ros.qos import PUBLISHER_QOS, recorder_reader
from vla_rl_ros.ros.session_decoder import EXECUTED, SESSION_TOPICS, STATE, SessionDecoder
from vla_rl_ros.ros.session_decoder import OBSERVATION as OBSERVED
from vla_rl_ros.ros.testing import spin_until
from vla_rl_ros.tools.cli import main

pytestmark = pytest.mark.ros
_KEEP = BagSettings(start_free_bytes=0, stop_free_bytes=0)


def message_of(event: Event, spec: ActorObservationSpec = OBSERVATION) -> tuple[str, Any]:
    """Topic and message of an event."""
    if isinstance(event, ExecutedAction):
        return EXECUTED, encode_executed(event)
    stamp_ns, value = event
    if isinstance(value, EpisodeState):
        return STATE, encode_episode(value, stamp_ns)
    return OBSERVED, encode_observation(spec, value, stamp_ns)


def live(events: Iterable[Event]) -> RowArray:
    """Rows of a stream of messages."""
    rows = SessionRows(SPEC)
    decoder = SessionDecoder(rows, OBSERVATION.version)
    found: list[EpisodeRows] = []
    for event in events:
        topic, message = message_of(event)
        arrived = deserialize_message(serialize_message(message), type(message))
        found += decoder.take(topic, arrived)
    return packed(found + rows.finish())


def recorded(directories: list[Path]) -> tuple[RowArray, BagRows]:
    """Rows of bags."""
    reader = BagRows(SPEC, OBSERVATION.version)
    episodes = [reader.read(found.bags) for found in find_episodes(directories)]
    return packed(itertools.chain.from_iterable(episodes)), reader


def record(
    directory: Path, events: Iterable[Event], spec: ActorObservationSpec = OBSERVATION
) -> None:
    """What the recorder does with a stream of messages."""
    topics = [
        BagTopic(
            name=f"/{name}",
            type=TOPIC_BY_NAME[name].type,
            schema=message_schema(TOPIC_BY_NAME[name].type),
            qos="",
        )
        for name in SESSION_TOPICS
    ]
    settings = RecordingSettings(directory=directory, bag=_KEEP)
    recording = EpisodeRecording(topics, frozenset(), {}, settings)
    now_ns = 0
    for number, event in enumerate(events):
        topic, message = message_of(event, spec)
        now_ns = max(now_ns, event.stamp_ns if isinstance(event, ExecutedAction) else event[0])
        recording.tick(now_ns * 1e-9)
        if topic == STATE:
            recording.follow(event[1], now_ns * 1e-9, now_ns)
        index = SESSION_TOPICS.index(topic)
        raw = RawMessage(now_ns + number, index, now_ns, number, serialize_message(message))
        recording.write([raw])
    recording.close("the recorder stops")


def simple_session(num_ticks: int = 8) -> Session:
    session = Session()
    session.begin()
    for _ in range(num_ticks):
        session.tick()
    session.end(Outcome.SUCCESS)
    return session


@pytest.mark.parametrize("seed", range(4))
def test_recorded_rows_equal_live_rows(tmp_path: Path, seed: int) -> None:
    session = full_session(seed)
    record(tmp_path, session.shuffled(seed, jitter_ns=PERIOD_NS))
    rows, reader = recorded([tmp_path])
    assert rows.tobytes() == live(session.shuffled(seed + 100)).tobytes()
    assert reader.counters.episodes == 6
    assert reader.num_malformed == 0


def test_the_recorder_of_the_graph_gives_the_rows_of_the_live_stream(
    executor: Executor, tmp_path: Path
) -> None:
    recorder = RecorderNode({"directory": str(tmp_path), "autostart": False, "start_free_mib": 1,
                             "stop_free_mib": 1})  # fmt: skip
    cell = Node("cell")
    executor.add_node(recorder)
    executor.add_node(cell)
    assert recorder.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert recorder.trigger_activate() == TransitionCallbackReturn.SUCCESS
    rows, found, taken = SessionRows(SPEC), [], []
    decoder = SessionDecoder(rows, OBSERVATION.version)

    def listen(topic: str, kind: type[Any]) -> Any:
        def take(message: Any) -> None:
            taken.append(topic)
            found.extend(decoder.take(topic, message))

        qos = TOPIC_BY_NAME[topic].qos
        cell.create_subscription(kind, topic, take, recorder_reader(qos))
        return cell.create_publisher(kind, topic, PUBLISHER_QOS[qos])

    session = full_session()
    kinds = dict(type_of(message_of(event)) for event in session.in_order())
    publishers = {topic: listen(topic, kind) for topic, kind in kinds.items()}
    assert spin_until(
        executor, lambda: all(p.get_subscription_count() == 2 for p in publishers.values()), 20.0
    )
    for sent, event in enumerate(session.in_order(), 1):
        topic, message = message_of(event)
        publishers[topic].publish(message)
        assert spin_until(executor, lambda count=sent: len(taken) == count, 5.0)
        state = None if isinstance(event, ExecutedAction) else event[1]
        if isinstance(state, EpisodeState) and state.outcome and state.outcome != Outcome.ABORTED:
            # An episode that ends and the next one are seconds apart in a cell.
            bag = tmp_path / state.episode_id
            assert spin_until(executor, bag.is_dir, 10.0)
    recorder.trigger_deactivate()
    made = packed(found + rows.finish())
    again, reader = recorded([tmp_path])
    recorder.trigger_shutdown()
    assert reader.counters.episodes == 6
    assert again.tobytes() == made.tobytes()


def type_of(pair: tuple[str, Any]) -> tuple[str, type[Any]]:
    return pair[0], type(pair[1])


def test_an_episode_in_two_bags_is_one(tmp_path: Path) -> None:
    session = simple_session(12)
    events = session.in_order()
    middle = len(events) // 2
    record(tmp_path, events[:middle])
    record(tmp_path, [*events[:1], session.states[2][1], *events[middle - 3 :]])
    assert len(list(tmp_path.iterdir())) == 2
    rows, reader = recorded([tmp_path])
    assert rows.tobytes() == live(events).tobytes()
    assert reader.counters.doubled > 0


def test_the_same_folder_named_twice_changes_nothing(tmp_path: Path) -> None:
    session = simple_session()
    record(tmp_path / "a", session.in_order())
    rows, _ = recorded([tmp_path, tmp_path / "a"])
    assert rows.tobytes() == live(session.in_order()).tobytes()


def test_what_observations_mean_is_in_the_bag(tmp_path: Path) -> None:
    record(tmp_path, simple_session().in_order())
    [episode] = find_episodes([tmp_path])
    assert episode.task == "lift"
    found = meaning(episode.bags[0])
    assert found is not None
    assert found.names == OBSERVATION.names
    assert found.version == OBSERVATION.version
    assert found.control_period_s == pytest.approx(0.1)


def test_observations_of_another_tower_are_refused(tmp_path: Path) -> None:
    session = simple_session()
    decoder = SessionDecoder(SessionRows(SPEC), "another")
    with pytest.raises(InvalidCommandError, match="other_version"):
        decoder.take(*message_of(session.observations[0][1]))
    record(tmp_path, session.in_order())
    [episode] = find_episodes([tmp_path])
    reader = BagRows(SPEC, "another")
    assert reader.read(episode.bags) == []
    assert reader.num_malformed == 8


def test_bags_without_what_rows_need_say_so(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no bag in"):
        find_episodes([tmp_path])
    session = simple_session()
    session.observations.clear()
    record(tmp_path, session.in_order())
    with pytest.raises(BagError, match="none of the 1 recorded episodes has policy/observation"):
        common_meaning(find_episodes([tmp_path]))


def test_an_episode_that_never_ran_is_passed_over(tmp_path: Path) -> None:
    session = simple_session()
    session.begin()
    session.end(Outcome.ABORTED)
    record(tmp_path, session.in_order())
    episodes = find_episodes([tmp_path])
    assert len(episodes) == 2
    assert common_meaning(episodes).version == OBSERVATION.version


def test_towers_do_not_mix(tmp_path: Path) -> None:
    record(tmp_path / "a", simple_session().in_order())
    later = Session(epoch=1_700_001_000)
    later.begin()
    for _ in range(5):
        later.tick()
    later.end(Outcome.SUCCESS)
    record(tmp_path / "b", later.in_order(), replace(OBSERVATION, tower_hash="4567"))
    with pytest.raises(BagError, match=r"1 episodes like .* 1 episodes like .* one base policy"):
        common_meaning(find_episodes([tmp_path]))


def test_a_state_alone_is_of_an_older_runtime(tmp_path: Path) -> None:
    session = simple_session()
    old = SimpleNamespace(names=STATE_CHANNELS, version="fr3_link0")
    session.observations = [
        (sent_ns, (stamp_ns, vector[:20])) for sent_ns, (stamp_ns, vector) in session.observations
    ]
    record(tmp_path, session.in_order(), old)
    [episode] = find_episodes([tmp_path])
    with pytest.raises(BagError, match="older runtime"):
        meaning(episode.bags[0])


def train(*words: object) -> int:
    return main(["train", "residual", "--out", *map(str, words)])


SMALL = ("--set", "learner.hidden=16", "learner.batch_size=16", "learner.num_candidates=2")


def test_the_command_learns_from_recordings_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bags, out = tmp_path / "bags", tmp_path / "run"
    session = full_session()
    record(bags, session.in_order())
    assert train(out, "--bags", bags, "--updates", 10, *SMALL) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["is_finished"]
    assert first["recorded_episodes"] == 7
    assert first["new_outcomes"] == {"success": 3, "timeout": 1, "fault": 1, "unknown": 1}
    assert first["messages"]["lost_ticks"] == 6
    assert read_actor(out).obs_version == OBSERVATION.version

    assert train(out, "--bags", bags, "--updates", 15, *SMALL) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["new_outcomes"] == {}
    assert again["transitions"] == first["transitions"]
    assert again["updates"] == 15
    assert read_start(out, LAYOUT).rows.tobytes() == live(session.in_order()).tobytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--task", "lift"), "--bags takes no --task"),
        (("--set", "schedule.window=3"), "schedule.window=3"),
        ((), "no bag in"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    assert train(tmp_path / "run", "--bags", tmp_path, *words) != 0
    assert sentence in capsys.readouterr().err
