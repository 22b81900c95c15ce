# SPDX-License-Identifier: Apache-2.0
"""The reference while a human drives: from the measured pose, at his speed, without a jump.

A policy's increment is added to the measured pose once per tick. A human's is the same, but his
hand moves between ticks and he must not wait for the next one. So within a tick the reference
moves at the velocity he asks for, and over a whole tick it covers what one action of a policy
would have:

    target(t) = reference(t) + h(t) + g(t)

with ``h`` his increment per tick and ``g`` the way from the reference to the measured pose at the
beginning of the tick. A reference may be ahead of the arm by centimetres, where it moves fast or
pushes; jumping back to the arm is a jump nobody asked for. So in the first tick after the driver
has changed ``g`` is no longer than `SLIP_M` and `SLIP_RAD`, in the n-th n times as long.

An arm also sags below its reference, by its load and by friction. Were ``g`` always the whole way,
a hand that moves sideways would lower it, tick by tick, for as long as it moves. So after a
takeover the reference goes back once, to where the arm was, and then ``g`` is bounded, axis by
axis, by what he asks for in it: nothing where he does not push, and never more than his push.
Called by `core.gate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.geometry import offset_pose, pose_increment
from vla_rl_ros.core.reference import ReferenceInterpolator, ReferenceLimits
from vla_rl_ros.core.types import FloatArray, Pose

SLIP_M = 0.001
"""What the reference may move beyond what was commanded, in the first tick of a driver."""
_ARRIVED = 1e-9
SLIP_RAD = math.radians(0.2)
_NS_PER_S = 1e9


class ReferenceMirror:
    """Where the arm's reference is, known from the targets that were sent.

    The arm's own loop interpolates with the same class, so the two differ by the way of a message.
    """

    def __init__(self, period_ns: int) -> None:
        """Know nothing.

        Args:
            period_ns: Time the arm takes to a target, which is the control period.
        """
        self._period_s = period_ns / _NS_PER_S
        self._interpolator: ReferenceInterpolator | None = None
        self._target: Pose | None = None
        self._origin_ns = 0

    def forget(self) -> None:
        """Nothing was sent for so long that the arm rests, or is elsewhere."""
        self._interpolator = self._target = None

    def follow(self, target: Pose, measured: Pose, now_ns: int, limits: ReferenceLimits) -> None:
        """Note a target; the first one after `forget` starts at the measured pose."""
        if self._interpolator is None:
            self._interpolator = ReferenceInterpolator(measured)
            self._origin_ns = now_ns
        if target is not self._target:
            now_s = self._seconds(now_ns)
            self._interpolator.set_target(target, now_s, self._period_s, limits)
            self._target = target

    def set_clock(self, now_ns: int) -> None:
        """The clock was set; the arm, whose own goes on, is taken to be at its target."""
        if self._interpolator is not None:
            self._interpolator.reset(self._interpolator.goal)
            self._origin_ns = now_ns

    def at(self, now_ns: int) -> Pose | None:
        """The reference, None when it is not known."""
        if self._interpolator is None:
            return None
        return self._interpolator.sample(self._seconds(now_ns))[0]

    def _seconds(self, now_ns: int) -> float:
        # Nanoseconds since 1970 are too long for a float.
        return (now_ns - self._origin_ns) / _NS_PER_S


class Approach:
    """From the reference to the measured pose, a little more per tick after the driver changed.

    Attributes:
        begin: Where the arm was when a human took over, None for a policy.
        is_there: Whether nothing was left to make up behind the last tick.
    """

    def __init__(self, begin: Pose | None = None) -> None:
        """Begin with the driver who takes over now.

        Args:
            begin: See the attribute.
        """
        self.begin, self.is_there = begin, False
        self._num_ticks = 1

    def grow(self) -> None:
        """Allow more from now on: a tick has passed."""
        self._num_ticks += 1

    def anchor(self, reference: Pose, measured: Pose) -> Pose:
        """What increments are added to: bit-equal to the measured pose where that is near."""
        way, self.is_there = self._way(reference, measured)
        return measured if self.is_there else offset_pose(reference, way[:3], way[3:])

    def ways(self, reference: Pose, measured: Pose) -> tuple[FloatArray, FloatArray]:
        """How far the reference may go towards the arm in this tick, and how far it has to.

        It has to go back to where the arm was when he took over, but in no axis beyond where the
        arm is: an arm that moves is met on its way, and one that sags, which flees from a
        reference that follows it, is not followed.

        Returns:
            Both as translation and rotation vector from the reference, shape (6,).
        """
        may, _ = self._way(reference, measured)
        whole = np.concatenate(pose_increment(measured, reference))
        back = whole
        if self.begin is not None:
            back = np.concatenate(pose_increment(self.begin, reference))
        has_to, left = _within(may, back), _within(whole, back)
        self.is_there = bool(np.abs(left - has_to).max() < _ARRIVED)
        return may, has_to

    def _way(self, reference: Pose, measured: Pose) -> tuple[FloatArray, bool]:
        translation, rotvec = pose_increment(measured, reference)
        nearer_m, is_near = _shortened(translation, self._num_ticks * SLIP_M)
        nearer_rad, is_aligned = _shortened(rotvec, self._num_ticks * SLIP_RAD)
        return np.concatenate([nearer_m, nearer_rad]), is_near and is_aligned


@dataclass(slots=True, eq=False)
class HumanTick:
    """A tick that a human drives, while it lasts.

    Attributes:
        stamp_ns: Of the tick.
        is_counted: Whether it gets a row; not where the policy's row is out already.
        origin: What the row's increment is counted from, None without a measured pose.
        may_give: How far the reference may go towards the arm within the tick, shape (6,).
        has_to_give: How far it goes in axes that he does not push, until he has begun.
        arrives: Whether he has begun at the measured pose with the end of this tick.
        has_arrived: Whether he had before.
        limits: Names of the limits that acted.
    """

    stamp_ns: int
    is_counted: bool
    origin: Pose | None
    may_give: FloatArray
    has_to_give: FloatArray
    arrives: bool = False
    has_arrived: bool = False
    limits: tuple[str, ...] = ()

    @classmethod
    def begin(
        cls,
        stamp_ns: int,
        *,
        is_counted: bool,
        measured: Pose | None,
        reference: Pose | None,
        approach: Approach,
        is_from_reference: bool,
    ) -> HumanTick:
        """A tick that begins now.

        Args:
            stamp_ns: Of the tick.
            is_counted: Whether it gets a row.
            measured: Measured TCP pose, None when there is no fresh one.
            reference: Where the reference is, None when it is not known.
            approach: How far from one to the other this tick may go.
            is_from_reference: Whether increments are counted from the reference, as those of a
                policy whose anchor is its last target.
        """
        tick = cls(stamp_ns, is_counted, measured, np.zeros(6), np.zeros(6))
        if measured is not None and reference is not None:
            tick.may_give, tick.has_to_give = approach.ways(reference, measured)
            tick.arrives = approach.is_there
            if is_from_reference:
                tick.origin = reference
        return tick

    def given(self, increment: FloatArray) -> FloatArray:
        """How far the reference goes towards the arm while he asks for an increment, shape (6,).

        In an axis that he pushes up to as much as he asks for, so that it neither runs away from
        an arm that meets an obstacle nor goes against his push.
        """
        most = np.abs(increment)
        if not self.has_arrived:
            most = np.maximum(most, np.abs(self.has_to_give))
        return np.asarray(np.clip(self.may_give, -most, most))

    def rest(self, measured: Pose | None) -> None:
        """Give up nothing any more; from `measured` where that is not None."""
        self.may_give, self.has_to_give = np.zeros(6), np.zeros(6)
        if measured is not None:
            self.origin = measured


def _within(vector: FloatArray, other: FloatArray) -> FloatArray:
    """In each axis the shorter of two ways; none where they lead to different sides."""
    shorter = np.minimum(np.abs(vector), np.abs(other))
    return np.asarray(np.where(vector * other > 0.0, np.copysign(shorter, vector), 0.0))


def _shortened(vector: FloatArray, to: float) -> tuple[FloatArray, bool]:
    """A vector of at most a length, and whether it is no longer than that."""
    length = float(np.linalg.norm(vector))
    return (vector, True) if length <= to else (np.asarray(vector * (to / length)), False)
