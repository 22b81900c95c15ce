# SPDX-License-Identifier: Apache-2.0
"""Records every topic of the graph, one bag per episode; publishes nothing but its diagnostics.

Three threads: the intake empties the subscriptions and reads the episode's phase, the bag thread
owns the disk, the executor asks the other nodes for their parameters and reports.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.guard_condition import GuardCondition
from rclpy.serialization import deserialize_message
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import BagError, InvalidCommandError
from vla_rl_ros.data.episode_recording import EpisodeRecording, RawMessage
from vla_rl_ros.data.metadata import BagTopic, qos_text
from vla_rl_ros.data.provenance import provenance
from vla_rl_ros.data.record_file import MIB, check_free_space
from vla_rl_ros.data.schemas import message_schema
from vla_rl_ros.ros.bag_thread import BagThread
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.graph import TOPIC_BY_NAME, TOPICS, Topic
from vla_rl_ros.ros.human_time import decode_human_time, human_record
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.parameter_dump import ParameterDump
from vla_rl_ros.ros.qos import PUBLISHER_QOS
from vla_rl_ros.ros.raw_intake import RawIntake
from vla_rl_ros.ros.recorder_config import RecorderConfig
from vla_rl_ros.ros.run import run

STATE_TOPIC = "episode/state"
_STATE_INDEX = TOPICS.index(TOPIC_BY_NAME[STATE_TOPIC])
_LEDGER_INDEX = TOPICS.index(TOPIC_BY_NAME["human/ledger"])
_LATCHED = frozenset(
    index
    for index, topic in enumerate(TOPICS)
    if topic.qos == "LATCHED" and topic.name != STATE_TOPIC
)
_IN_EPISODE = (Phase.RESETTING, Phase.READY, Phase.RUNNING)
_STOP_TIMEOUT_S = 2.5


class RecorderNode(ManagedNode[RecorderConfig]):
    """Writes one bag per episode."""

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters.

        Args:
            overrides: Parameter values that win over files.
        """
        super().__init__("recorder", RecorderConfig, overrides)
        self._intake: RawIntake | None = None
        self._bags: BagThread | None = None
        self._dump: ParameterDump | None = None
        self._fetch_request: GuardCondition | None = None
        self._report_timer: Timer | None = None
        self._lock = threading.Lock()
        self._latched: dict[int, RawMessage] = {}
        self._fetch_id = ""

    def setup(self) -> None:
        """Subscribe to everything, so that all publishers are found before the first episode."""
        directory = Path(self.config.directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BagError(f"cannot make the directory of the bags: {error}") from error
        self._topics = [self._bag_topic(topic) for topic in TOPICS]
        self._provenance = provenance()
        self._dump = ParameterDump(self)
        self._fetch_request = self.create_guard_condition(self._fetch_parameters)
        self._intake = RawIntake(self, TOPICS, self._on_messages, self.config.poll_period_s)

    def start(self) -> None:
        """Follow the episodes from now on."""
        config = self.config
        settings = config.recording()
        recording = EpisodeRecording(self._topics, _LATCHED, self._provenance, settings)
        bags = BagThread(recording, settings.directory, config.queue_limit_mib * MIB)
        with self._lock:
            # The cameras came up earlier and will not repeat what they latched.
            bags.put(list(self._latched.values()))
            self._bags = bags
        self._report_timer = self.create_timer(0.5, self._show_status)

    def stop(self, reason: str) -> None:
        """Write what has arrived and finish an open bag."""
        if self._report_timer is not None:
            self.destroy_timer(self._report_timer)
            self._report_timer = None
        if self._intake is not None:
            self._intake.drain()
        with self._lock:
            bags, self._bags = self._bags, None
        if bags is not None and not bags.stop(reason, _STOP_TIMEOUT_S):
            late = f"the disk did not take the last bag within {_STOP_TIMEOUT_S} s"
            raise BagError(bags.status.error or late)

    def teardown(self) -> None:
        """Unsubscribe."""
        if self._intake is not None:
            self._intake.close()
            self._intake = None
        if self._dump is not None:
            self._dump.close()
            self._dump = None
        if self._fetch_request is not None:
            self.destroy_guard_condition(self._fetch_request)
            self._fetch_request = None

    def _bag_topic(self, topic: Topic) -> BagTopic:
        qos = PUBLISHER_QOS[topic.qos]
        lifespan_ns = qos.lifespan.nanoseconds
        return BagTopic(
            name=self.resolve_topic_name(topic.name),
            type=topic.type,
            schema=message_schema(topic.type),
            qos=qos_text(
                depth=qos.depth,
                is_transient_local=topic.qos in ("LATCHED", "DURABLE"),
                lifespan_ns=lifespan_ns or None,
            ),
        )

    def _on_messages(self, messages: list[RawMessage], num_lost: int) -> None:
        """Runs in the intake's thread, at shutdown in the executor's."""
        with self._lock:
            self._latched.update((m.topic_index, m) for m in messages if m.topic_index in _LATCHED)
            bags = self._bags
        if bags is None:
            return
        begin = 0
        for index, message in enumerate(messages):
            if message.topic_index == _LEDGER_INDEX:
                self._note_human(bags, message)
            state = self._state_of(message) if message.topic_index == _STATE_INDEX else None
            if state is not None:
                bags.put(messages[begin:index])
                bags.put_state(state, message.log_time_ns)
                begin = index
                self._ask_for_parameters(state)
        bags.put(messages[begin:], num_lost)

    def _state_of(self, message: RawMessage) -> EpisodeState | None:
        try:
            return decode_episode(deserialize_message(message.data, DiagnosticArray))
        except InvalidCommandError as error:
            self.diag.count(f"bad_state.{error.reason}")
            return None

    def _note_human(self, bags: BagThread, message: RawMessage) -> None:
        try:
            ledger = deserialize_message(message.data, JointState)
            epoch, values = decode_human_time(ledger).epoch, human_record(ledger)
        except InvalidCommandError as error:
            self.diag.count(f"bad_ledger.{error.reason}")
            return
        bags.put_human(epoch, values)

    def _ask_for_parameters(self, state: EpisodeState) -> None:
        is_new = state.episode_id != self._fetch_id
        if state.phase in _IN_EPISODE and is_new and self._fetch_request is not None:
            self._fetch_id = state.episode_id
            self._fetch_request.trigger()

    def _fetch_parameters(self) -> None:
        dump, episode_id = self._dump, self._fetch_id
        if dump is None:
            return

        def keep(values: dict[str, str]) -> None:
            bags = self._bags
            if bags is not None:
                bags.put_parameters(episode_id, values)

        dump.fetch(self.config.parameters_deadline_s, keep)

    def _show_status(self) -> None:
        bags, intake = self._bags, self._intake
        if bags is None or intake is None:
            return
        if intake.failure:
            self.fault(f"messages are not taken any more: {intake.failure}")
            return
        status = bags.status
        for key, value in (
            ("received", intake.num_received),
            ("written", status.num_written),
            ("dropped", status.num_dropped),
            ("lost_before_intake", intake.num_lost),
            ("queue_depth", status.queue_depth),
            ("bags", status.num_bags),
        ):
            self.diag.set(key, str(value))
        self.diag.set("episode", status.episode_id)
        self._show_level(status.episode_id, status.error)

    def _show_level(self, episode_id: str, error: str) -> None:
        if not error and not episode_id:
            try:
                check_free_space(Path(self.config.directory), self.config.start_free_mib * MIB)
            except (BagError, OSError) as problem:
                error = f"no bag can be begun: {problem}"
        if error:
            self.diag.level(Level.ERROR, error)
        else:
            self.diag.level(Level.OK, f"recording {episode_id}" if episode_id else "active")


def main() -> int:
    """Run the recorder until a signal."""
    return run(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
