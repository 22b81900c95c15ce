# SPDX-License-Identifier: Apache-2.0
"""What people gave to the cell: minutes by kind, and how often and how long they drove.

Intervening is counted in ticks, so that it equals the rows that are tagged `Source.HUMAN` to the
last one, whatever was lost or repeated on the way. Resetting and labelling are measured from
when somebody is asked or begins until it is done.
Called by the supervisor, and by whoever counts a recorded session again. No clock: time is given.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vla_rl_ros.core.intervention import Source


class Work(enum.Enum):
    """What people do for the cell beside driving."""

    RESETTING = "resetting"
    LABELLING = "labelling"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveCount:
    """Who drove the ticks of an episode, or of several.

    Attributes:
        ticks: All ticks, also those at which the arm held.
        human_ticks: Ticks at which a person drove.
        interventions: Times a person took over.
    """

    ticks: int = 0
    human_ticks: int = 0
    interventions: int = 0

    @property
    def rate(self) -> float:
        """Share of the ticks at which a person drove, 0 without ticks."""
        return self.human_ticks / self.ticks if self.ticks else 0.0

    def after(self, source: Source, *, was_human: bool) -> DriveCount:
        """With one more tick.

        Args:
            source: Who drove it.
            was_human: Whether a person drove the tick before.
        """
        is_human = source is Source.HUMAN
        return DriveCount(
            ticks=self.ticks + 1,
            human_ticks=self.human_ticks + is_human,
            interventions=self.interventions + (is_human and not was_human),
        )

    def plus(self, other: DriveCount) -> DriveCount:
        """Both together."""
        return DriveCount(
            ticks=self.ticks + other.ticks,
            human_ticks=self.human_ticks + other.human_ticks,
            interventions=self.interventions + other.interventions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanTime:
    """What `human/ledger` carries.

    Attributes:
        epoch: Episode that `episode` belongs to.
        intervening_s: Ticks that a person drove, times the control period.
        resetting_s: Time that prompts to reset the scene were open, the present one included.
        labelling_s: Time spent on labels, likewise.
        num_resets: Prompts that were answered or are open.
        waiting_s: Age of the open prompt to reset, 0 without one.
        session: All episodes.
        episode: The newest one.
        rolling: The newest episodes with ticks, a running one included, `num_rolling` of them.
        num_rolling: How many those are.
    """

    epoch: int = 0
    intervening_s: float = 0.0
    resetting_s: float = 0.0
    labelling_s: float = 0.0
    num_resets: int = 0
    waiting_s: float = 0.0
    session: DriveCount = field(default_factory=DriveCount)
    episode: DriveCount = field(default_factory=DriveCount)
    rolling: DriveCount = field(default_factory=DriveCount)
    num_rolling: int = 0

    @property
    def total_s(self) -> float:
        """Everything together."""
        return self.intervening_s + self.resetting_s + self.labelling_s


class HumanLedger:
    """Adds up; every tick once."""

    def __init__(self, control_period_s: float, window: int) -> None:
        """Start at zero.

        Args:
            control_period_s: What a tick is worth.
            window: Episodes that the rolling rate looks back on.
        """
        self._period_s = control_period_s
        self._newest: tuple[int, int] = (-1, -1)
        self._was_human = False
        self._session = DriveCount()
        self._episode = DriveCount()
        self._epoch = 0
        self._past: deque[DriveCount] = deque(maxlen=window)
        self._done_s = dict.fromkeys(Work, 0.0)
        self._since_s: dict[Work, float] = {}
        self._num_resets = 0

    @property
    def epoch(self) -> int:
        """Of the newest tick, 0 before the first."""
        return self._epoch

    def tick(self, epoch: int, stamp_ns: int, source: Source) -> bool:
        """Count a row of `action/executed`; in order, repeated ones are passed over.

        Returns:
            Whether it was counted.
        """
        if (epoch, stamp_ns) <= self._newest:
            return False
        if epoch != self._epoch:
            self._begin(epoch)
        self._newest = (epoch, stamp_ns)
        one = DriveCount().after(source, was_human=self._was_human)
        self._was_human = source is Source.HUMAN
        self._episode, self._session = self._episode.plus(one), self._session.plus(one)
        return True

    def _begin(self, epoch: int) -> None:
        # Ticks of an episode may come after its end was told, so its end is the next one's begin.
        if self._episode.ticks:
            self._past.append(self._episode)
        self._epoch, self._episode, self._was_human = epoch, DriveCount(), False

    def begin(self, work: Work, now_s: float) -> None:
        """Somebody works from now on; beginning again changes nothing."""
        if work not in self._since_s:
            self._since_s[work] = now_s
            self._num_resets += work is Work.RESETTING

    def end(self, work: Work, now_s: float) -> None:
        """It is done, or given up."""
        since_s = self._since_s.pop(work, now_s)
        self._done_s[work] += max(0.0, now_s - since_s)

    def _open_s(self, work: Work, now_s: float) -> float:
        return max(0.0, now_s - self._since_s.get(work, now_s))

    def time(self, now_s: float) -> HumanTime:
        """What has come together until now."""
        open_s = {work: self._open_s(work, now_s) for work in Work}
        past = [*self._past, self._episode] if self._episode.ticks else list(self._past)
        rolling = DriveCount()
        for count in past[-(self._past.maxlen or 1) :]:
            rolling = rolling.plus(count)
        return HumanTime(
            epoch=self._epoch,
            intervening_s=self._session.human_ticks * self._period_s,
            resetting_s=self._done_s[Work.RESETTING] + open_s[Work.RESETTING],
            labelling_s=self._done_s[Work.LABELLING] + open_s[Work.LABELLING],
            num_resets=self._num_resets,
            waiting_s=open_s[Work.RESETTING],
            session=self._session,
            episode=self._episode,
            rolling=rolling,
            num_rolling=min(len(past), self._past.maxlen or 1),
        )

    def to_record(self) -> dict[str, Any]:
        """What a successor has to know; work that has not ended is not part of it."""
        return {
            "newest": list(self._newest),
            "epoch": self._epoch,
            "was_human": self._was_human,
            "session": asdict(self._session),
            "episode": asdict(self._episode),
            "past": [asdict(count) for count in self._past],
            "done_s": {work.value: done_s for work, done_s in self._done_s.items()},
            "num_resets": self._num_resets,
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Go on where a predecessor stopped.

        Raises:
            KeyError, TypeError or ValueError: It is no record of a ledger; nothing has changed.
        """
        epoch, stamp_ns = (int(value) for value in record["newest"])
        session, episode = DriveCount(**record["session"]), DriveCount(**record["episode"])
        past = [DriveCount(**count) for count in record["past"]]
        done_s = {work: float(record["done_s"][work.value]) for work in Work}
        numbers = int(record["epoch"]), int(record["num_resets"])
        self._newest, self._was_human = (epoch, stamp_ns), bool(record["was_human"])
        self._session, self._episode = session, episode
        self._past.clear()
        self._past.extend(past)
        self._done_s = done_s
        self._epoch, self._num_resets = numbers
