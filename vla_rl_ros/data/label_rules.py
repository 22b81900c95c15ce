# SPDX-License-Identifier: Apache-2.0
"""Which frame of an episode gets which label, and which ones are worth keeping. Pure.

What is certain is labelled, what is not is left out: the moments around a change, when a person
could not say either. Called by `vla-rl-ros label`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.label_frames import EpisodeFrames
from vla_rl_ros.data.metadata import NS_PER_S


class Label(enum.Enum):
    """What a frame shows."""

    SUCCESS = "success"
    FAILURE = "failure"
    SKIP = "skip"
    """Nobody can say, or nobody has said."""


LabelArray = NDArray[np.str_]
_FAILED = (Outcome.FAILURE, Outcome.TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """How labels follow from outcomes, and how many frames an episode gives."""

    source: str = param(
        "outcome",
        doc="Who says what a frame shows: the episode's outcome, or the simulator.",
        choices=("outcome", "truth"),
    )
    success_s: float = param(
        0.2,
        doc="Before the end of a success from which on it is one.",
        unit="s",
        low=0.0,
        high=5.0,
    )
    doubt_s: float = param(
        0.3, doc="Left out before a success, and around a change.", unit="s", low=0.0, high=5.0
    )
    mark_s: float = param(
        0.5, doc="How long after a button its word holds.", unit="s", low=0.05, high=5.0
    )
    positives: int = param(6, doc="Frames of success per episode at most.", low=0, high=1000)
    negatives: int = param(10, doc="Other frames per episode at most.", low=0, high=1000)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


def labels_of(frames: EpisodeFrames, rules: LabelRules) -> LabelArray:
    """Label of every frame, values of `Label`, shape (n,).

    Raises:
        BagError: The simulator's word is wanted and was not recorded.
    """
    if rules.source == "truth":
        labels = _from_truth(frames, rules)
    else:
        labels = _from_outcome(frames, rules)
    for mark in frames.marks:
        if mark.name != "mark":
            after_s = (frames.stamps_ns - mark.stamp_ns) / NS_PER_S
            labels[(after_s >= 0.0) & (after_s <= rules.mark_s)] = mark.name
    return labels


def _from_outcome(frames: EpisodeFrames, rules: LabelRules) -> LabelArray:
    labels = np.full(len(frames), Label.SKIP.value, dtype="<U7")
    if frames.outcome in _FAILED:
        labels[:] = Label.FAILURE.value
    elif frames.outcome is Outcome.SUCCESS:
        before_s = (frames.end_ns - frames.stamps_ns) / NS_PER_S
        labels[before_s <= rules.success_s] = Label.SUCCESS.value
        labels[before_s > rules.success_s + rules.doubt_s] = Label.FAILURE.value
    return labels


def _from_truth(frames: EpisodeFrames, rules: LabelRules) -> LabelArray:
    truth = frames.truth
    if truth is None:
        raise BagError(f"{frames.source} does not hold the simulator's word on success")
    labels = np.where(truth, Label.SUCCESS.value, Label.FAILURE.value).astype("<U7")
    changes_ns = frames.stamps_ns[1:][truth[1:] != truth[:-1]]
    if len(changes_ns):
        gaps_s = np.abs(frames.stamps_ns[:, None] - changes_ns[None]).min(1) / NS_PER_S
        # What has just become true is the edge that matters; what was nearly true is in doubt.
        labels[(gaps_s <= rules.doubt_s) & ~truth] = Label.SKIP.value
    return labels


def pick(
    labels: LabelArray, rules: LabelRules, hardness: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Frames to keep, in order of time.

    Args:
        labels: Of all frames.
        rules: How many.
        hardness: How wrong a classifier is about each frame, in [0, 1]; the hardest go first.
            Without one: the latest half of them, because mistakes look like success near the
            end, and the others evenly along the episode.
    """
    found = []
    for label, count in (
        (Label.SUCCESS.value, rules.positives),
        (Label.FAILURE.value, rules.negatives),
    ):
        mine = np.flatnonzero(labels == label)
        if len(mine) <= count:
            found.append(mine)
        elif hardness is not None:
            found.append(mine[np.argsort(-hardness[mine], kind="stable")[:count]])
        else:
            latest = count // 2
            early = mine[: len(mine) - latest]
            spread = np.linspace(0, len(early) - 1, count - latest).round().astype(np.int64)
            found.append(np.concatenate([early[spread], mine[len(mine) - latest :]]))
    return np.sort(np.concatenate(found))
