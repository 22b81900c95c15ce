# SPDX-License-Identifier: Apache-2.0
"""Proprioception at a stamp: pose, twist, wrench and gripper brought to one time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vla_rl_ros.core.alignment import StampedBuffer
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.geometry import interpolate_pose
from vla_rl_ros.core.spec import STATE_DIM
from vla_rl_ros.core.types import FloatArray, Pose, finite_array
from vla_rl_ros.ros import cdr
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.sampler import Sampler, Tap

T = TypeVar("T")


class StaleInputError(InvalidCommandError):
    """A source has nothing fresh enough; the reason is ``stale.<topic>``."""

    def __init__(self, topic: str, age_s: float, limit_s: float) -> None:
        """Compose the sentence.

        Args:
            topic: Topic name.
            age_s: Age of its newest message, infinite when there is none.
            limit_s: Largest age allowed.
        """
        what = "nothing received yet" if math.isinf(age_s) else f"{age_s:.2f} s old"
        super().__init__(f"stale.{topic}", f"{what}, limit {limit_s:g} s")


class StampedTopic(Generic[T]):
    """One stamped topic, decoded only where it is used."""

    def __init__(
        self,
        sampler: Sampler,
        topic: str,
        decode: Callable[[bytes], T],
        max_age_s: float,
        depth: int,
        latency_s: float = 0.0,
    ) -> None:
        """Listen.

        Args:
            sampler: Where to listen.
            topic: Topic name.
            decode: Serialised message to value, as in `cdr`; raises InvalidCommandError.
            max_age_s: Largest distance between a stamp and the nearest message.
            depth: Messages kept between two reads.
            latency_s: From the measurement to the stamp of its message.
        """
        self._latency_ns = round(latency_s * NS_PER_S)
        self._tap: Tap[Any] = sampler.tap(topic, depth)
        self._buffer: StampedBuffer[bytes] = StampedBuffer(depth + 1)
        self._topic = topic
        self._decode = decode
        self._max_age_s = max_age_s

    def around(self, stamp_ns: int) -> tuple[T, T, float]:
        """Values before and after a stamp, and where it lies between them.

        Args:
            stamp_ns: Time of the measurement; the messages around `latency_s` later tell it.

        Raises:
            StaleInputError: Nothing within the largest age.
            InvalidCommandError: The message is malformed.
        """
        stamp_ns += self._latency_ns
        self._take()
        bracket = self._buffer.at(stamp_ns)
        if bracket is None:
            raise StaleInputError(self._topic, float("inf"), self._max_age_s)
        if abs(bracket.age_ns) > self._max_age_s * NS_PER_S:
            if bracket.age_ns < 0:
                # The stamps went back in time; the next messages start a new history.
                self._buffer.clear()
            raise StaleInputError(self._topic, bracket.age_ns / NS_PER_S, self._max_age_s)
        before = self._decode(bracket.before)
        after = before if bracket.after is bracket.before else self._decode(bracket.after)
        return before, after, bracket.fraction

    def nearest(self, stamp_ns: int) -> T:
        """Value whose message lies nearest to a stamp; raises as `around`."""
        before, after, fraction = self.around(stamp_ns)
        return before if fraction <= 0.5 else after

    def last_before(self, stamp_ns: int) -> T | None:
        """Newest value at or before a stamp, None when there is none within the largest age.

        Raises:
            InvalidCommandError: The message is malformed.
        """
        stamp_ns += self._latency_ns
        self._take()
        found = self._buffer.before(stamp_ns)
        if found is None or stamp_ns - found[0] > self._max_age_s * NS_PER_S:
            return None
        return self._decode(found[1])

    def _take(self) -> None:
        # Of forty messages two are looked at: the others stay bytes.
        for raw in self._tap.drain_raw():
            stamp_ns, newest = cdr.stamp_ns(raw), self._buffer.newest()
            if newest is not None and newest[0] - stamp_ns > self._max_age_s * NS_PER_S:
                # The clock was set back; these begin a new history.
                self._buffer.clear()
            self._buffer.add(stamp_ns, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLimits:
    """How proprioception is read.

    Attributes:
        max_age_s: Largest age of the arm's measurements.
        max_gripper_age_s: Largest age of the gripper's; a hand that moves answers late.
        depth: Messages kept between two reads; the arm sends one every 5 ms.
        arm_latency_s: From measurement to stamp of the arm's state.
        gripper_latency_s: From measurement to stamp of the gripper's.
    """

    max_age_s: float
    max_gripper_age_s: float
    depth: int
    arm_latency_s: float = 0.0
    gripper_latency_s: float = 0.0


class StateReader:
    """The state vector of `core.spec.STATE_CHANNELS` at a stamp."""

    def __init__(self, sampler: Sampler, limits: StateLimits) -> None:
        """Listen to the arm and the gripper.

        Args:
            sampler: Where to listen.
            limits: Ages, depth and latencies.
        """
        arm = (limits.max_age_s, limits.depth, limits.arm_latency_s)
        self._pose: StampedTopic[Pose] = StampedTopic(sampler, "arm/tcp_pose", cdr.pose, *arm)
        self._twist = StampedTopic(sampler, "arm/tcp_twist", cdr.six, *arm)
        self._wrench = StampedTopic(sampler, "arm/tcp_wrench", cdr.six, *arm)
        self._gripper = StampedTopic(
            sampler,
            "gripper/state",
            cdr.gripper,
            limits.max_gripper_age_s,
            limits.depth,
            limits.gripper_latency_s,
        )

    def read(self, stamp_ns: int) -> FloatArray:
        """State at a stamp, shape (20,).

        Raises:
            StaleInputError: A source has nothing fresh.
            InvalidCommandError: A message is malformed.
        """
        before, after, fraction = self._pose.around(stamp_ns)
        pose = interpolate_pose(before, after, fraction)
        twist_0, twist_1, at_twist = self._twist.around(stamp_ns)
        wrench_0, wrench_1, at_wrench = self._wrench.around(stamp_ns)
        values = [
            *pose.position_m.tolist(),
            *pose.quat_xyzw.tolist(),
            *_lerp(twist_0, twist_1, at_twist),
            *_lerp(wrench_0, wrench_1, at_wrench),
            self._gripper.nearest(stamp_ns).width_m,
        ]
        return finite_array(values, (STATE_DIM,), "state")

    def rehearse(self, stamp_ns: int) -> None:
        """Read and forget: a read that follows at once is twice as fast."""
        with suppress(InvalidCommandError):
            self.read(stamp_ns)


def _lerp(before: Sequence[float], after: Sequence[float], fraction: float) -> list[float]:
    """As `alignment.lerp`, which for six numbers takes ten times as long."""
    return [(1.0 - fraction) * a + fraction * b for a, b in zip(before, after, strict=True)]
