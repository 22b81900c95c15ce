# SPDX-License-Identifier: Apache-2.0
"""How the outcome of an episode is decided, and the names of those who may decide it.

The name of the judge goes with the outcome into messages, bags and rows: what a classifier took
for success is not what was true. Called by the supervisor, which brings the clock.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from vla_rl_ros.core.episode import Outcome

GROUND_TRUTH, CLASSIFIER, OPERATOR = "ground_truth", "classifier", "operator"
"""Who may say that the task is done. A classifier's name is followed by its version."""
ENVIRONMENT = "environment"
"""The judge of episodes that an environment of gymnasium plays."""
_NUM_CODES = 0xFFFF


def judge_code(judge: str) -> int:
    """Two bytes that stand for a judge in a row, in 1..65535; 0 where nobody said who it was.

    It follows from the name alone, so that rows made live equal those of a recording.
    """
    return zlib.crc32(judge.encode()) % _NUM_CODES + 1 if judge else 0


class SuccessHold:
    """Success that must last: one decided sample is not enough.

    Example:
        With a hold of 0.2 s, "decided" at t = 0, 0.1 and 0.2 s is success at 0.2 s; an undecided
        sample at 0.1 s starts the count anew.
    """

    def __init__(self, hold_s: float) -> None:
        """Start undecided.

        Args:
            hold_s: How long success must last without interruption.
        """
        self._hold_s = hold_s
        self._since_s: float | None = None
        self._latest_s = 0.0

    def reset(self) -> None:
        """Forget what was seen."""
        self._since_s = None

    def update(self, is_decided: bool, now_s: float) -> None:
        """Take one sample of the judge."""
        if not is_decided:
            self._since_s = None
            return
        if self._since_s is None:
            self._since_s = now_s
        self._latest_s = now_s

    @property
    def is_held(self) -> bool:
        """Whether the samples seen span the hold time; silence of the judge adds nothing."""
        # Stamps are multiples of the judge's period, so compare with a microsecond to spare.
        return self._since_s is not None and self._latest_s - self._since_s >= self._hold_s - 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known at one moment of a running episode.

    Attributes:
        elapsed_s: Time in RUNNING.
        is_success: Whether success has held long enough.
        operator: The operator's word, None when nothing was said.
        judge: Who measures success; empty where nobody knows.
        lost: Why the episode cannot go on, e.g. a silent camera; empty when it can.
    """

    elapsed_s: float
    is_success: bool = False
    operator: bool | None = None
    judge: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an episode ended, why, in one sentence, and who judged; empty where nobody did."""

    outcome: Outcome
    reason: str
    judge: str = ""


def decide(evidence: Evidence, time_limit_s: float) -> Verdict | None:
    """Decide whether an episode is over; the operator outranks what is measured.

    Returns:
        The verdict, None while the episode goes on.
    """
    if evidence.operator is not None:
        outcome = Outcome.SUCCESS if evidence.operator else Outcome.FAILURE
        reason = f"the operator said {outcome.value}"
        return Verdict(outcome=outcome, reason=reason, judge=OPERATOR)
    if evidence.is_success:
        return Verdict(outcome=Outcome.SUCCESS, reason="the task is done", judge=evidence.judge)
    if evidence.lost:
        return Verdict(outcome=Outcome.FAULT, reason=evidence.lost)
    if evidence.elapsed_s >= time_limit_s:
        # A person who was silent has not judged.
        judge = "" if evidence.judge == OPERATOR else evidence.judge
        reason = f"not done within {time_limit_s:g} s"
        return Verdict(outcome=Outcome.TIMEOUT, reason=reason, judge=judge)
    return None
