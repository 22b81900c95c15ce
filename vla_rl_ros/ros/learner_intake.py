# SPDX-License-Identifier: Apache-2.0
"""Messages of a session in the order of their stamps, those of the past first.

Each message waits in the middleware until the learner's thread takes all of them at once. A
learner that was started again gets from each publisher what it has missed, in one burst per topic.
Nothing is handed on before all of these are there, and nothing beyond the tick up to which all
topics of a tick have come: an episode whose end is heard before its ticks would be put together
without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vla_rl_ros.ros.channels import NS_PER_S, from_stamp

_QUIET_S = 2.0
"""Silence about the past after which all of it has come."""
_BURST_S = 20.0
"""Longest burst: who tells of the past after that does so for ever, by a clock that is behind."""
_HOLD_BACK_S = 0.3
"""For messages of different topics to overtake each other on their way."""
_LAG_S = 10.0
"""How long a topic that is behind is waited for: a tick may have come on one of them only."""
_LEVEL_NS = 150_000_000
"""What a topic may stay behind another: the last tick of an episode is seen but not executed."""
_LAST_TICK_S = 2.0
"""How long that tick is waited for all the same: on a busy machine it may only be late."""


class SessionIntake:
    """Takes messages and sorts them; see the module. Used by one thread.

    Attributes:
        now_s: Steady time, as given.
        behind_s: How far the publishers' clock lies behind, where the past went on for too long.
    """

    def __init__(
        self,
        drain: Callable[[], Iterable[tuple[str, Any]]],
        is_connected: Callable[[], bool],
        *,
        level: Sequence[str],
        now_s: Callable[[], float],
        begin_ns: int,
    ) -> None:
        """Begin to wait for the past.

        Args:
            drain: Gives what has arrived, as topic and message with a header. Whoever ends
                something comes before what it ends: what arrives meanwhile can then only be older
                than an end that is taken the next time.
            is_connected: Whether every publisher was found.
            level: Topics with a message per tick each.
            now_s: Steady time.
            begin_ns: ROS time now; older stamps are of the past.
        """
        self._drain, self._is_connected, self.now_s = drain, is_connected, now_s
        self._begin_s, self._begin_ns = now_s(), begin_ns
        self.behind_s = 0.0
        self._waiting: list[tuple[int, float, str, Any]] = []
        self._newest_ns = dict.fromkeys(level, -1)
        self._met_s = self._past_s = self._level_s = self._even_s = now_s()
        self._is_past = True

    @property
    def is_catching_up(self) -> bool:
        """Whether messages of the past may still come."""
        return self._is_past

    def take(self) -> list[tuple[str, Any]]:
        """Messages whose turn has come, as topic and message in the order of their stamps."""
        now_s = self.now_s()
        for topic, message in self._drain():
            stamp_ns = from_stamp(message.header.stamp)
            if self._is_past and stamp_ns < self._begin_ns:
                self._hear_past(stamp_ns, now_s)
            self._waiting.append((stamp_ns, now_s, topic, message))
            if topic in self._newest_ns:
                self._newest_ns[topic] = max(stamp_ns, self._newest_ns[topic])
        level_ns = self._level(now_s)
        if self._is_past:
            if not self._is_connected():
                self._met_s = self._past_s = now_s
            elif level_ns is not None and self._gap_ns() > _LEVEL_NS:
                self._past_s = now_s
            if now_s - self._past_s < _QUIET_S:
                return []
            self._is_past = False
        settled = (each[0] for each in self._waiting if each[1] <= now_s - _HOLD_BACK_S)
        until_ns = max(settled, default=-1)
        if level_ns is not None:
            until_ns = min(until_ns, level_ns)
        return self._due(until_ns)

    def holds_back(self, since_s: float) -> bool:
        """Whether messages that were sent before a time, steady, may still have to wait."""
        is_recent = self.now_s() - since_s < _HOLD_BACK_S
        return is_recent or any(arrived_s <= since_s for _, arrived_s, _, _ in self._waiting)

    def rest(self) -> list[tuple[str, Any]]:
        """What waits, in the order of stamps, without patience: nobody will ask again.

        Nothing while the past may still come, and where a topic lags by more than the last tick
        nothing it lacks: an end that is taken before its ticks is stored without them for ever.
        A learner that is started next gets all of it.
        """
        if self._is_past:
            return []
        is_behind = self._gap_ns() > _LEVEL_NS
        until_ns = min(self._newest_ns.values()) if is_behind else None
        return self._due(until_ns)

    def _hear_past(self, stamp_ns: int, now_s: float) -> None:
        if now_s - self._met_s < _BURST_S:
            self._past_s = now_s
        else:
            self.behind_s = now_s - self._begin_s + (self._begin_ns - stamp_ns) / NS_PER_S

    def _due(self, until_ns: int | None) -> list[tuple[str, Any]]:
        """Hand on what waits up to a stamp, all of it when None, in the order of stamps."""

        def is_due(each: tuple[int, float, str, Any]) -> bool:
            return until_ns is None or each[0] <= until_ns

        due = sorted(filter(is_due, self._waiting), key=lambda each: each[0])
        self._waiting = [each for each in self._waiting if not is_due(each)]
        return [(topic, message) for _, _, topic, message in due]

    def _level(self, now_s: float) -> int | None:
        """Stamp up to which a topic of the tick is behind; None when none is, or for too long."""
        gap_ns = self._gap_ns()
        if gap_ns <= _LEVEL_NS:
            self._level_s = now_s
        if gap_ns == 0:
            self._even_s = now_s
            return None
        is_far = gap_ns > _LEVEL_NS
        since_s, patience_s = (self._level_s, _LAG_S) if is_far else (self._even_s, _LAST_TICK_S)
        return None if now_s - since_s > patience_s else min(self._newest_ns.values())

    def _gap_ns(self) -> int:
        return max(self._newest_ns.values()) - min(self._newest_ns.values())
