# SPDX-License-Identifier: Apache-2.0
"""Turns a stream of raw messages and episode states into one bag per episode.

Owns the rules: when a bag begins and ends, what stands at its start, what is missing in it and
why. Knows no ROS, no clock and no thread; the thread around it is `ros/bag_thread.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_writer import PARTIAL_SUFFIX, BagSettings, BagWriter
from vla_rl_ros.data.metadata import BagTopic, is_safe_name

_RECORDED = (Phase.READY, Phase.RUNNING)
_CLOSING = (Phase.ENDED, Phase.FAULT)


class RawMessage(NamedTuple):
    """One message as received.

    Attributes:
        log_time_ns: When the middleware received it, nanoseconds since 1970.
        topic_index: Index into the topics of the bag.
        publish_time_ns: When it was published.
        sequence: The publisher's counter modulo 2^32, 0 where the middleware has none.
        data: CDR bytes.
    """

    log_time_ns: int
    topic_index: int
    publish_time_ns: int
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSettings:
    """Where and how episodes are recorded.

    Attributes:
        directory: Gets one directory per episode.
        bag: How a bag is written.
        tail_s: Recording goes on for so long after the end of an episode.
        silence_s: An episode whose state is silent for so long is closed as aborted.
    """

    directory: Path
    bag: BagSettings
    tail_s: float = 0.2
    silence_s: float = 5.0


class EpisodeRecording:
    """The bag of the present episode, if there is one. One thread owns it.

    Every method may raise BagError; `fail` must be called then.

    Attributes:
        num_written: Messages written into bags so far.
        num_missed: Messages of episodes that are in no bag.
        num_bags: Bags finished.
        error: Why the last episode could not be recorded whole, empty when all is well.
    """

    def __init__(
        self,
        topics: Sequence[BagTopic],
        latched: frozenset[int],
        provenance: Mapping[str, str],
        settings: RecordingSettings,
    ) -> None:
        """Start without an episode.

        Args:
            topics: All topics; `RawMessage.topic_index` counts them.
            latched: Topics whose last message is written at the start of every bag.
            provenance: Written into every bag.
            settings: Where and how.
        """
        self._topics = tuple(topics)
        self._latched_indices = latched
        self._provenance = dict(provenance)
        self._settings = settings
        self._writer: BagWriter | None = None
        self._episode = EpisodeState()
        self._finished_id = ""
        self._missed_at_start = 0
        self._end_s: float | None = None
        self._heard_s = 0.0
        self._latched: dict[int, RawMessage] = {}
        self._parameters: dict[str, Mapping[str, str]] = {}
        self._human: tuple[int, Mapping[str, str]] = (0, {})
        self.num_written = self.num_missed = self.num_bags = 0
        self.error = ""

    @property
    def episode_id(self) -> str:
        """Episode being recorded, empty between episodes."""
        return self._episode.episode_id if self._writer is not None else ""

    def write(self, messages: Sequence[RawMessage], num_lost: int = 0) -> None:
        """Take messages in order of arrival.

        Args:
            messages: The messages.
            num_lost: Messages known to be missing among them.
        """
        for message in messages:
            if message.topic_index in self._latched_indices:
                self._latched[message.topic_index] = message
        if self._writer is None:
            # Between episodes nothing is missed, after a failure within one everything is.
            is_missed = self.error and self._episode.phase in _RECORDED
            self.num_missed += len(messages) if is_missed else 0
            return
        self.num_missed += num_lost
        write = self._writer.write
        for log_time_ns, index, publish_time_ns, sequence, data in messages:
            write(index, log_time_ns, publish_time_ns, data, sequence)
        self.num_written += len(messages)

    def follow(self, state: EpisodeState, now_s: float, now_ns: int) -> None:
        """Open or close the bag as the episode demands.

        Args:
            state: The state; to be given before the message that carried it.
            now_s: Monotonic time.
            now_ns: Log time of latched messages that are repeated in a new bag.
        """
        self._heard_s = now_s
        if self._writer is not None and state.episode_id != self._episode.episode_id:
            self.close("the next episode began")
        if self._writer is None:
            self._episode = state
            if state.phase in _RECORDED and state.episode_id not in ("", self._finished_id):
                self._open(state, now_s, now_ns)
        elif state.phase in _CLOSING:
            if self._end_s is None:
                self._end_s = now_s + self._settings.tail_s
                self._episode = state
        elif state.phase not in _RECORDED:
            self.close(f"the supervisor went to {state.phase.value}")

    def keep_parameters(self, episode_id: str, values: Mapping[str, str]) -> None:
        """Take the parameters of all nodes for the bag of an episode, open or yet to come."""
        if self._writer is not None and episode_id == self._episode.episode_id:
            self._writer.add_metadata("parameters", values)
        elif episode_id != self._finished_id:
            self._parameters = {episode_id: values}

    def keep_human(self, epoch: int, values: Mapping[str, str]) -> None:
        """Take what people gave until now; written when the bag of that episode is closed.

        Args:
            epoch: Of the newest episode in it.
            values: As texts.
        """
        self._human = epoch, values

    def tick(self, now_s: float) -> None:
        """Flush, and close the bag when its time has come; to be called every 0.1 s or so."""
        if self._writer is None:
            return
        self._writer.flush_if_due(now_s)
        if self._end_s is not None and now_s >= self._end_s:
            self.close()
        elif now_s - self._heard_s > self._settings.silence_s:
            self.close("episode/state fell silent")

    def close(self, reason: str = "", *, error: str = "") -> None:
        """Finish the open bag, if any; as aborted unless its outcome is known.

        Args:
            reason: Why it is closed without an outcome.
            error: What went wrong with the recording.
        """
        writer, state, self._writer = self._writer, self._episode, None
        if writer is None:
            return
        record = _episode_record(state)
        if state.outcome is None:
            record["outcome"], record["reason"] = Outcome.ABORTED.value, reason
        record["num_messages"] = str(writer.num_messages)
        record["num_dropped"] = str(self.num_missed - self._missed_at_start)
        record["recording_error"] = error
        try:
            writer.add_metadata("episode", record)
            epoch, human = self._human
            if human and epoch == state.epoch:
                writer.add_metadata("human", human)
            writer.finish()
        except BagError as failure:
            writer.abort()
            self.error = error or str(failure)
        else:
            self.num_bags += 1

    def fail(self, error: str, *, is_finishable: bool) -> None:
        """Give up the present bag; the next episode gets its chance.

        Args:
            error: Sentence for the operator.
            is_finishable: Whether the disk still takes an index; if not, the bag is left as it
                is, readable and repairable.
        """
        self.error = error
        if is_finishable:
            self.close(error=error)
        elif self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _open(self, state: EpisodeState, now_s: float, now_ns: int) -> None:
        self._finished_id = state.episode_id
        if not is_safe_name(state.episode_id):
            raise BagError(f"'{state.episode_id[:40]}' is not a name for a directory")
        self.error = ""
        self._end_s = None
        self._missed_at_start = self.num_missed
        metadata = {"provenance": self._provenance, "episode": _episode_record(state)}
        values = self._parameters.pop(state.episode_id, None)
        if values is not None:
            metadata["parameters"] = dict(values)
        directory = free_directory(self._settings.directory, state.episode_id)
        self._writer = BagWriter(directory, self._topics, metadata, self._settings.bag)
        for index, message in sorted(self._latched.items()):
            times_ns = (now_ns, message.publish_time_ns)
            self._writer.write(index, *times_ns, message.data, message.sequence)
        # The list of channels goes to the disk with the first chunk, so write one now.
        self._writer.flush_if_due(now_s)


def free_directory(directory: Path, episode_id: str) -> Path:
    """Where the bag of an episode goes; a recorder started anew within one adds a number.

    Example:
        ``e7``, and ``e7_2`` where a bag ``e7`` or ``e7.partial`` stands already.
    """
    number, path = 1, directory / episode_id
    while path.exists() or path.with_name(path.name + PARTIAL_SUFFIX).exists():
        number += 1
        path = directory / f"{episode_id}_{number}"
    return path


def _episode_record(state: EpisodeState) -> dict[str, str]:
    return {
        "id": state.episode_id,
        "task": state.task,
        "instruction": state.instruction,
        "seed": str(state.seed),
        "epoch": str(state.epoch),
        "reset": state.reset.value if state.reset else "",
        "outcome": state.outcome.value if state.outcome else "",
        "judge": state.judge,
        "reason": state.reason,
    }
