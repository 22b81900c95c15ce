# SPDX-License-Identifier: Apache-2.0
"""What `bench takeover` makes of what it heard; pure, so that a test can check it by hand."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_rl_ros.core.geometry import (
    angle_between_rad,
    offset_pose,
    pose_increment,
    rotation_error_rad,
)
from vla_rl_ros.core.types import FloatArray, Pose

Stamped = Sequence[tuple[int, Pose]]
_MS = 1e-6
_MAX_LATENCY_NS = 500_000_000
_BEFORE_NS = 20_000_000
_HEARD_BY_NS = 20_000_000
# References are told every 10 ms; where two in a row are missing nobody saw what happened.
_MAX_GAP_NS = 25_000_000
_THERE_M, _THERE_RAD = 5e-4, math.radians(0.2)
# Where one millimetre and a quarter of a degree weigh the same.
_LEVER_M = 0.23


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """Way of the reference beyond what was commanded, within one period of a change of driver."""

    distance_m: float
    angle_rad: float


def at_or_before(series: Stamped, time_ns: int) -> Pose | None:
    """The newest value that was sent by a time."""
    index = bisect.bisect_right(series, time_ns, key=lambda pair: pair[0])
    return series[index - 1][1] if index else None


def response_ms(
    report_ns: int, turn_rad: float, targets: Stamped, references: Stamped
) -> float | None:
    """Time from a report to the first target that obeys it.

    Reports of the bench turn the hand about the vertical, which no other driver does so fast: a
    target obeys when it lies at least half a commanded turn ahead of the reference.

    Args:
        report_ns: When the report was sent.
        turn_rad: Commanded turn per tick, signed.
        targets: Targets of the arm.
        references: References of the arm.

    Returns:
        Milliseconds; None where no target obeyed within half a second.
    """
    begin = bisect.bisect_right(targets, report_ns, key=lambda pair: pair[0])
    for sent_ns, target in targets[begin:]:
        if sent_ns > report_ns + _MAX_LATENCY_NS:
            return None
        reference = at_or_before(references, sent_ns)
        if reference is None:
            continue
        ahead_rad = rotation_error_rad(target.quat_xyzw, reference.quat_xyzw)[2]
        if ahead_rad * math.copysign(1.0, turn_rad) > 0.5 * abs(turn_rad):
            return (sent_ns - report_ns) * _MS
    return None


def jump_at(
    change_ns: int, commanded: FloatArray, references: Stamped, period_ns: int
) -> Jump | None:
    """How far the reference strays from what was commanded, in the period after a change.

    What was commanded is the motion before the change until the arm hears of it, and the new one
    from then on. When it hears is not known to some milliseconds, as references are told in steps
    of 10 ms: the best fit counts. A step of the reference itself fits none.

    Args:
        change_ns: First target of the new driver.
        commanded: Increment per period that he asked for, SI, shape (6,).
        references: References of the arm.
        period_ns: Control period.

    Returns:
        None where nobody saw it: nothing was told before or in time after, as happens on a machine
        that is busy with something else.
    """
    begin = bisect.bisect_right(references, change_ns, key=lambda pair: pair[0])
    window = [pair for pair in references[begin:] if pair[0] <= change_ns + period_ns]
    if not begin or not window:
        return None
    first_ns, first = references[begin - 1]
    if window[0][0] - first_ns > _MAX_GAP_NS or window[-1][0] < change_ns + period_ns // 2:
        return None
    index = bisect.bisect_right(references, first_ns - _BEFORE_NS, key=lambda pair: pair[0])
    if not index:
        return None
    earlier_ns, earlier = references[index - 1]
    # Per period, as `commanded` is.
    per_period = period_ns / (first_ns - earlier_ns)
    before = per_period * np.concatenate(pose_increment(first, earlier))
    jumps = []
    for heard_ns in range(0, change_ns - first_ns + _HEARD_BY_NS + 1, 2_000_000):
        worst_m = worst_rad = 0.0
        for sent_ns, pose in window:
            since_ns = sent_ns - first_ns
            old, new = min(since_ns, heard_ns), max(0, since_ns - heard_ns)
            move = (old * before + new * commanded[:6]) / period_ns
            wanted = offset_pose(first, move[:3], move[3:6])
            worst_m = max(worst_m, math.dist(pose.position_m, wanted.position_m))
            worst_rad = max(worst_rad, angle_between_rad(pose.quat_xyzw, wanted.quat_xyzw))
        jumps.append(Jump(distance_m=worst_m, angle_rad=worst_rad))
    return min(jumps, key=lambda jump: jump.distance_m + _LEVER_M * jump.angle_rad)


def rest_ms(begin_ns: int, references: Stamped) -> float:
    """Time from an event until the reference is where it comes to rest.

    Within half a millimetre and 0.2 degrees: a target at rest is reached at constant velocity, and
    the last bit of it takes a whole period.

    Args:
        begin_ns: Of the event.
        references: References of the arm, up to when it certainly rested.
    """
    begin = bisect.bisect_right(references, begin_ns, key=lambda pair: pair[0])
    if begin >= len(references):
        return 0.0
    rest = references[-1][1]
    away_ns = [
        sent_ns
        for sent_ns, pose in references[begin:]
        if math.dist(pose.position_m, rest.position_m) > _THERE_M
        or angle_between_rad(pose.quat_xyzw, rest.quat_xyzw) > _THERE_RAD
    ]
    return (max(away_ns, default=begin_ns) - begin_ns) * _MS


def num_changes(values: Sequence[float], first: float) -> int:
    """How often a two-valued series changes, begun at `first`."""
    levels = np.array([first, *values]) > 0.04
    return int(np.count_nonzero(np.diff(levels)))


@dataclass(slots=True)
class Measured:
    """Everything that was measured.

    Attributes:
        response_ms: Of reports while the operator drives.
        takeover_ms: Of reports that take over from the policy.
        jumps: By what changed.
        presses: Of the gripper's button.
        told: Changes of the gripper's target.
        seen: Changes in the rows.
        unplug_ms: From pulling the plug to rest.
        missed: Reports that no target obeyed.
        unseen: Changes of driver whose jump nobody saw.
    """

    response_ms: list[float] = field(default_factory=list)
    takeover_ms: list[float] = field(default_factory=list)
    jumps: dict[str, list[Jump]] = field(
        default_factory=lambda: {"takeover": [], "release": [], "hand_back": []}
    )
    presses: int = 0
    told: int = 0
    seen: int = 0
    unplug_ms: list[float] = field(default_factory=list)
    missed: int = 0
    unseen: int = 0

    def figures(self) -> dict[str, Any]:
        """The JSON line."""
        found: dict[str, Any] = {"missed": self.missed, "unseen": self.unseen}
        for name in ("response_ms", "takeover_ms", "unplug_ms"):
            values = getattr(self, name)
            stem = name.removesuffix("_ms")
            found[f"{stem}_count"] = len(values)
            if values:
                found[f"{stem}_p50_ms"] = round(float(np.percentile(values, 50)), 2)
                found[f"{stem}_p99_ms"] = round(float(np.percentile(values, 99)), 2)
                found[f"{stem}_max_ms"] = round(max(values), 2)
        for name, jumps in self.jumps.items():
            found[f"{name}_count"] = len(jumps)
            if jumps:
                found[f"{name}_jump_mm"] = round(1e3 * max(j.distance_m for j in jumps), 3)
                degrees = max(np.degrees(j.angle_rad) for j in jumps)
                found[f"{name}_jump_deg"] = round(float(degrees), 3)
        found |= {"presses": self.presses, "told": self.told, "seen": self.seen}
        found["presses_lost"] = self.presses - min(self.told, self.seen)
        return found
