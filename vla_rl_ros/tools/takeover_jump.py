# SPDX-License-Identifier: Apache-2.0
"""How far a reference strays from what was commanded where the driver changes; pure."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.geometry import angle_between_rad, offset_pose, pose_increment
from vla_rl_ros.core.types import FloatArray, Pose

Stamped = Sequence[tuple[int, Pose]]
_BEFORE_NS = 20_000_000
_HEARD_BY_NS = 20_000_000
_HEARD_STEP_NS = 2_000_000
# References are told every 10 ms; where two in a row are missing nobody saw what happened.
_MAX_GAP_NS = 25_000_000
# Where one millimetre and a quarter of a degree weigh the same.
_LEVER_M = 0.23


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """Way of the reference beyond what was commanded, within one period of a change of driver."""

    distance_m: float
    angle_rad: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A motion at constant velocity, from a time on."""

    begin_ns: int
    pose: Pose
    velocity: FloatArray
    """Increment per nanosecond, shape (6,)."""

    def at(self, time_ns: int) -> Pose:
        """Pose at a time."""
        move = (time_ns - self.begin_ns) * self.velocity
        return offset_pose(self.pose, move[:3], move[3:6])


def jump_at(
    change_ns: int,
    commanded: FloatArray,
    references: Stamped,
    targets: Stamped,
    period_ns: int,
) -> Jump | None:
    """How far the reference strays from what was commanded, in the period after a change.

    What was commanded is the motion before the change until the arm hears of it, and the new one
    from then on. The motion before is the way to the last target of the driver before; what it was
    ahead of that target, or without any, the references say. When the arm hears of a target is not
    known to some milliseconds, as references are told in steps of 10 ms: the best fit counts. A
    step of the reference itself fits none.

    Args:
        change_ns: First target of the new driver.
        commanded: Increment per period that he asked for, SI, shape (6,).
        references: References of the arm.
        targets: Those of the driver before.
        period_ns: Control period.

    Returns:
        None where nobody saw it: nothing was told before or in time after, as happens on a machine
        that is busy with something else.
    """
    num_before = _num_until(references, change_ns)
    if not num_before:
        return None
    # The references have long shown what an older one asks for.
    since_ns = references[num_before - 1][0] - _BEFORE_NS
    last = [pair for pair in _last_before(change_ns, targets) if pair[0] > since_ns]
    index = _num_until(references, last[0][0] if last else change_ns) - 1
    origin = _piece_before(references, index)
    window = [pair for pair in references[index + 1 :] if pair[0] <= change_ns + period_ns]
    if origin is None or not _was_seen(references[index][0], change_ns, window, period_ns):
        return None
    courses = [
        (*before, _Piece(heard_ns, before[-1].at(heard_ns), commanded[:6] / period_ns))
        for before in _courses_before(origin, last, period_ns)
        for heard_ns in _heard(change_ns, before[-1].begin_ns)
    ]
    jumps = [_beyond(course, window) for course in courses]
    return min(jumps, key=lambda jump: jump.distance_m + _LEVER_M * jump.angle_rad)


def _num_until(series: Stamped, time_ns: int) -> int:
    return bisect.bisect_right(series, time_ns, key=lambda pair: pair[0])


def _last_before(change_ns: int, targets: Stamped) -> Stamped:
    """The last target and when it was sent first: repeated by the gate, it is none to the arm."""
    index = _num_until(targets, change_ns - 1) - 1
    while index > 0 and _are_equal(targets[index - 1][1], targets[index][1]):
        index -= 1
    return targets[index : index + 1] if index >= 0 else []


def _are_equal(a: Pose, b: Pose) -> bool:
    return np.array_equal(a.position_m, b.position_m) and np.array_equal(a.quat_xyzw, b.quat_xyzw)


def _piece_before(references: Stamped, index: int) -> _Piece | None:
    """The motion up to a reference; None where it was told of nothing before."""
    if index < 0:
        return None
    now_ns, now = references[index]
    earlier = _num_until(references, now_ns - _BEFORE_NS) - 1
    if earlier < 0:
        return None
    earlier_ns, pose = references[earlier]
    velocity = np.concatenate(pose_increment(now, pose)) / (now_ns - earlier_ns)
    return _Piece(now_ns, now, velocity)


def _was_seen(first_ns: int, change_ns: int, window: Stamped, period_ns: int) -> bool:
    """Whether nothing is missing up to the change, nor the end of what comes after it."""
    told_ns = [first_ns, *(sent_ns for sent_ns, _ in window)]
    gaps = [b - a for a, b in itertools.pairwise(told_ns) if a <= change_ns]
    return told_ns[-1] >= change_ns + period_ns // 2 and max(gaps) <= _MAX_GAP_NS


def _courses_before(origin: _Piece, last: Stamped, period_ns: int) -> Iterator[tuple[_Piece, ...]]:
    """Ways to go up to the change: the arm heard of the last target at one time or another."""
    if not last:
        yield (origin,)
    for sent_ns, target in last:
        for heard_ns in _heard(sent_ns, origin.begin_ns):
            begin = origin.at(heard_ns)
            way = np.concatenate(pose_increment(target, begin))
            yield origin, _Piece(heard_ns, begin, way / period_ns)


def _heard(sent_ns: int, since_ns: int) -> range:
    """Times at which the arm may have begun to obey, having obeyed something else before."""
    return range(max(sent_ns, since_ns), sent_ns + _HEARD_BY_NS + 1, _HEARD_STEP_NS)


def _beyond(course: Sequence[_Piece], window: Stamped) -> Jump:
    worst_m = worst_rad = 0.0
    for sent_ns, pose in window:
        wanted = [piece for piece in course if piece.begin_ns <= sent_ns][-1].at(sent_ns)
        worst_m = max(worst_m, math.dist(pose.position_m, wanted.position_m))
        worst_rad = max(worst_rad, angle_between_rad(pose.quat_xyzw, wanted.quat_xyzw))
    return Jump(distance_m=worst_m, angle_rad=worst_rad)
