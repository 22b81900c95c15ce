# SPDX-License-Identifier: Apache-2.0
"""Counts in recorded episodes who drove, and compares it with what the ledger said at the time.

The rows of `action/executed` are what a learner trains on, so they decide; the ledger must agree
with them to the tick. Called by `vla-rl-ros bag human`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.core.human_ledger import DriveCount, HumanLedger
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.data.bag_reader import Bag, read_channels
from vla_rl_ros.data.label_time import LabelTime

TOPIC, LEDGER_TOPIC = "action/executed", "human/ledger"
_SOURCES = [f"source.{source.value}" for source in Source]
_COUNTS = ("ticks", "human_ticks", "interventions")

Rows = dict[int, dict[int, Source]]
"""Who drove, by epoch and stamp in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanCount:
    """One episode, counted twice.

    Attributes:
        bag: Its bag.
        rows: What its rows say.
        ledger: What the ledger says, None where no bag has its word.
        num_dropped: Messages of it that the recorder lost: then rows may be missing.
        resetting_s: Time of prompts to reset since the launch began, as the ledger says.
        labelling_s: Time of labelling, likewise.
        epoch: Number of the episode; later ones have larger ones, over launches as well.
        ledger_ticks: What the ledger had counted before the episode and at its end, None where
            the bag has no word of it.
    """

    bag: Path
    rows: DriveCount
    ledger: DriveCount | None
    num_dropped: int = 0
    resetting_s: float = 0.0
    labelling_s: float = 0.0
    epoch: int = 0
    ledger_ticks: tuple[int, int] | None = None

    @property
    def agrees(self) -> bool:
        """Whether the ledger equals the rows."""
        return self.ledger == self.rows

    @property
    def verdict(self) -> str:
        """In words."""
        if self.agrees:
            return "the ledger agrees"
        if self.ledger is None:
            return "no ledger in this bag"
        lost = f", but the recorder lost {self.num_dropped} messages" if self.num_dropped else ""
        said = f"{self.ledger.human_ticks} human of {self.ledger.ticks} ticks"
        return f"THE LEDGER SAYS {said}{lost}"


def count_bags(paths: Sequence[Path]) -> list[HumanCount]:
    """Count the episodes of a session, one bag each.

    A row that reached the recorder late lies in the bag of the next episode, and belongs to its
    own all the same.

    Raises:
        BagError: One is no bag, or has no rows of executed actions.
    """
    bags = [Bag(path) for path in paths]
    rows: Rows = {}
    said: dict[int, DriveCount] = {}
    for bag in bags:
        _collect(bag, rows)
        said.update(_said(bag))
    return [_count(bag, rows, said) for bag in bags]


def _collect(bag: Bag, rows: Rows) -> None:
    topic = _full_name(bag, TOPIC)
    if topic is None:
        raise BagError(f"{bag.path} has no topic {TOPIC}")
    stamps_ns, values = read_channels(bag.path, topic, [*_SOURCES, "chunk.epoch"])
    for stamp_ns, value in zip(stamps_ns.tolist(), values, strict=True):
        source = list(Source)[int(np.argmax(value[:-1]))]
        rows.setdefault(int(value[-1]), {})[stamp_ns] = source


def _full_name(bag: Bag, topic: str) -> str | None:
    return next((name for name in bag.topics if name.endswith(f"/{topic}")), None)


def _said(bag: Bag) -> dict[int, DriveCount]:
    """The ledger's last word on each epoch; that on an episode may come with the next bag."""
    topic = _full_name(bag, LEDGER_TOPIC)
    if topic is None:
        return {}
    names = ["episode.epoch", *(f"episode.{name}" for name in _COUNTS)]
    _, values = read_channels(bag.path, topic, names)
    whole = values.astype(np.int64)
    return {
        row[0]: DriveCount(**dict(zip(_COUNTS, row[1:], strict=True))) for row in whole.tolist()
    }


def _count(bag: Bag, rows: Rows, said: Mapping[int, DriveCount]) -> HumanCount:
    episode, human = bag.metadata("episode"), bag.metadata("human")
    epoch = int(episode.get("epoch") or 0)
    ledger = HumanLedger(control_period_s=1.0, window=1)
    for stamp_ns, source in sorted(rows.get(epoch, {}).items()):
        ledger.tick(epoch, stamp_ns, source)
    return HumanCount(
        bag=bag.path.parent,
        rows=ledger.time(0.0).session,
        ledger=said.get(epoch),
        num_dropped=int(episode.get("num_dropped") or 0),
        resetting_s=float(human.get("human.resetting_s", 0.0)),
        labelling_s=float(human.get("human.labelling_s", 0.0)),
        epoch=epoch,
        ledger_ticks=_ledger_ticks(human),
    )


def _ledger_ticks(human: Mapping[str, str]) -> tuple[int, int] | None:
    if not {"session.ticks", "episode.ticks"} <= human.keys():
        return None
    at_end = int(float(human["session.ticks"]))
    return at_end - int(float(human["episode.ticks"])), at_end


def _launches(counts: Sequence[HumanCount]) -> list[list[HumanCount]]:
    """Bags with a ledger, grouped by ledger, each of which lives as long as a launch.

    A ledger only grows. Where an episode begins with fewer ticks than the one before ended with,
    it is another one; a launch whose first bags are missing may pass for part of the last.
    """
    found: list[list[HumanCount]] = []
    newest, epoch = 0, 0
    for count in sorted(counts, key=lambda count: count.epoch):
        if count.ledger_ticks is None:
            continue
        before, at_end = count.ledger_ticks
        # A recorder that is started again within an episode leaves two bags of it.
        if not found or (before < newest and count.epoch != epoch):
            found.append([])
        found[-1].append(count)
        newest, epoch = at_end, count.epoch
    return found


def control_period_s(path: Path) -> float:
    """Control period of the graph that recorded a bag, as its supervisor was told.

    Raises:
        BagError: The bag does not say.
    """
    for node, text in Bag(path).metadata("parameters").items():
        if node.endswith("/supervisor"):
            period_s = json.loads(text).get("control_period_s")
            if isinstance(period_s, float):
                return period_s
    raise BagError(f"{path} does not say the control period of its supervisor")


def total(
    counts: Sequence[HumanCount], period_s: float, labelled: Sequence[LabelTime] = ()
) -> dict[str, float | int | bool]:
    """What people gave in all launches, and whether the ledger agreed in every episode.

    Args:
        counts: Of all bags.
        period_s: Control period.
        labelled: Sessions that label sets have noted.
    """
    rows, ledger, launches = DriveCount(), DriveCount(), _launches(counts)
    for count in counts:
        rows = rows.plus(count.rows)
        ledger = ledger.plus(count.ledger or DriveCount())
    return {
        "bags": len(counts),
        "ticks": rows.ticks,
        "human_ticks": rows.human_ticks,
        "interventions": rows.interventions,
        "intervention_rate": round(rows.rate, 5),
        "intervening_s": round(rows.human_ticks * period_s, 6),
        # Both grow over a launch, so the largest of each is the whole.
        "resetting_s": sum((max(each.resetting_s for each in launch) for launch in launches), 0.0),
        "labelling_s": sum((max(each.labelling_s for each in launch) for launch in launches), 0.0),
        # Label sets note all of it, ledgers what was done while a graph ran.
        "noted_labelling_s": round(sum(time.labelling_s for time in labelled), 3),
        "noted_labelling_in_ledger_s": round(sum(time.ledger_s for time in labelled), 3),
        "ledger_ticks": ledger.ticks,
        "ledger_human_ticks": ledger.human_ticks,
        "ledger_interventions": ledger.interventions,
        "bags_with_losses": sum(count.num_dropped > 0 for count in counts),
        "bags_that_disagree": sum(not count.agrees for count in counts),
        "agrees": all(count.agrees for count in counts),
    }
