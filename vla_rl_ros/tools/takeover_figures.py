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
    rotation_error_rad,
)
from vla_rl_ros.core.types import Pose
from vla_rl_ros.tools.takeover_jump import Jump, Stamped

_MS = 1e-6
_MAX_LATENCY_NS = 500_000_000
_THERE_M, _THERE_RAD = 5e-4, math.radians(0.2)


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
