# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the disk: whatever a disk does to it, callers only put into a queue.

Messages, episode states and parameters pass through the same queue, so a bag begins and ends
between the same two messages however busy the disk is.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.episode_recording import EpisodeRecording, RawMessage
from vla_rl_ros.data.record_file import DiskFullError
from vla_rl_ros.data.recover import recover_all

_POLL_PERIOD_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStatus:
    """What the thread is doing.

    Attributes:
        episode_id: Episode being recorded, empty between episodes.
        num_written: Messages written into bags so far.
        num_dropped: Messages of episodes that are in no bag.
        queue_depth: Messages waiting for the disk.
        num_bags: Bags finished.
        error: Why the last episode could not be recorded whole, or why none is any more. Empty
            when all is well.
    """

    episode_id: str
    num_written: int
    num_dropped: int
    queue_depth: int
    num_bags: int
    error: str


@dataclass(frozen=True, slots=True)
class _Batch:
    messages: Sequence[RawMessage]
    num_lost: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class _State:
    state: EpisodeState
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class _Parameters:
    episode_id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Human:
    epoch: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Stop:
    reason: str


class BagThread:
    """Feeds an `EpisodeRecording`; every method returns at once, `stop` excepted."""

    def __init__(
        self, recording: EpisodeRecording, leftovers: Path, queue_limit_bytes: int
    ) -> None:
        """Start the thread.

        Args:
            recording: Belongs to the thread from now on.
            leftovers: Directory where unfinished bags of an earlier process are completed first.
            queue_limit_bytes: Messages that would make the queue longer are dropped and counted.
        """
        self._recording = recording
        self._leftovers = leftovers
        self._queue_limit_bytes = queue_limit_bytes
        self._queue: SimpleQueue[_Batch | _State | _Parameters | _Human | _Stop] = SimpleQueue()
        # Each counter has one writing thread, so none needs a lock: the caller of `put` ...
        self._bytes_in = self._messages_in = self._shed = 0
        # ... and the bag thread.
        self._bytes_out = self._messages_out = 0
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="bags", daemon=True)
        self._thread.start()

    def put(self, messages: Sequence[RawMessage], num_lost: int = 0) -> None:
        """Queue messages in order of arrival.

        Args:
            messages: The messages.
            num_lost: Messages known to be missing among them.
        """
        num_bytes = sum(len(message.data) for message in messages)
        if self._bytes_in - self._bytes_out + num_bytes > self._queue_limit_bytes:
            self._shed += len(messages) + num_lost
            return
        self._bytes_in += num_bytes
        self._messages_in += len(messages)
        self._queue.put(_Batch(messages, num_lost + self._shed, num_bytes))
        self._shed = 0

    def put_state(self, state: EpisodeState, stamp_ns: int) -> None:
        """Queue an episode state that arrived at `stamp_ns`; before the message it came in."""
        self._queue.put(_State(state, stamp_ns))

    def put_parameters(self, episode_id: str, values: Mapping[str, str]) -> None:
        """Queue the parameters of all nodes for the bag of an episode, open or yet to come."""
        self._queue.put(_Parameters(episode_id, values))

    def put_human(self, epoch: int, values: Mapping[str, str]) -> None:
        """Queue what people gave until now, with the epoch of the newest episode in it."""
        self._queue.put(_Human(epoch, values))

    def stop(self, reason: str, timeout_s: float) -> bool:
        """Write what waits, finish an open bag as aborted, join.

        Returns:
            Whether all of it was done in time; if not, its bag stays ``.partial``.
        """
        self._queue.put(_Stop(reason))
        self._thread.join(timeout_s)
        return not (self._thread.is_alive() or self._failure)

    @property
    def status(self) -> RecordingStatus:
        """What the thread is doing now."""
        recording = self._recording
        return RecordingStatus(
            episode_id=recording.episode_id,
            num_written=recording.num_written,
            num_dropped=recording.num_missed + self._shed,
            queue_depth=self._messages_in - self._messages_out,
            num_bags=recording.num_bags,
            error=self._failure or recording.error,
        )

    def _run(self) -> None:
        try:
            self._complete_leftovers()
            self._work()
        except Exception:  # noqa: BLE001 - shown in diagnostics
            self._failure = f"nothing is recorded any more: {traceback.format_exc()}"

    def _complete_leftovers(self) -> None:
        sentence = "a bag left behind could not be completed"
        try:
            recover_all(self._leftovers)
        except (BagError, OSError) as error:
            self._recording.error = f"{sentence}: {error}"
        except Exception:  # noqa: BLE001 - shown in diagnostics; the episodes to come count more
            self._recording.error = f"{sentence}: {traceback.format_exc()}"

    def _work(self) -> None:
        entry: _Batch | _State | _Parameters | _Human | _Stop | None = None
        while not isinstance(entry, _Stop):
            try:
                entry = self._queue.get(timeout=_POLL_PERIOD_S)
            except Empty:
                entry = None
            self._guarded(entry)

    def _guarded(self, entry: _Batch | _State | _Parameters | _Human | _Stop | None) -> None:
        try:
            self._handle(entry)
        except DiskFullError as error:
            self._recording.fail(str(error), is_finishable=True)
        except BagError as error:
            self._recording.fail(str(error), is_finishable=False)
        except Exception:  # noqa: BLE001 - shown in diagnostics; the thread must go on
            self._recording.fail(traceback.format_exc(), is_finishable=False)

    def _handle(self, entry: _Batch | _State | _Parameters | _Human | _Stop | None) -> None:
        now_s = time.monotonic()
        if isinstance(entry, _Batch):
            self._messages_out += len(entry.messages)
            self._bytes_out += entry.num_bytes
            self._recording.write(entry.messages, entry.num_lost)
        elif isinstance(entry, _State):
            self._recording.follow(entry.state, now_s, entry.stamp_ns)
        elif isinstance(entry, _Parameters):
            self._recording.keep_parameters(entry.episode_id, entry.values)
        elif isinstance(entry, _Human):
            self._recording.keep_human(entry.epoch, entry.values)
        elif isinstance(entry, _Stop):
            self._recording.close(entry.reason)
        self._recording.tick(now_s)
