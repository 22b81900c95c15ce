# SPDX-License-Identifier: Apache-2.0
"""Who drives, and what the arm is told: the rules of the gate.

Owns the only way from an action to an absolute target: arbitration, anchor, limits, gripper edges,
and what is repeated when nothing comes. Called by the intervention node; the caller brings stamps
and measured poses. Whatever interrupts the stream makes the gate forget its target, so that the
next one starts at the measured pose and the arm never jumps.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.gate_rows import GateRows, in_range
from vla_rl_ros.core.geometry import offset_pose, pose_increment
from vla_rl_ros.core.gripper import GripperLatch
from vla_rl_ros.core.intervention import (
    Anchor,
    ExecutedAction,
    GateSettings,
    PolicyAction,
    Source,
    choose,
)
from vla_rl_ros.core.reference import limit_target
from vla_rl_ros.core.spec import GRIPPER_INDEX
from vla_rl_ros.core.takeover import Approach, HumanTick, ReferenceMirror
from vla_rl_ros.core.types import FloatArray, Pose


class Gate:
    """Builds targets while an episode runs, and nothing outside of it."""

    def __init__(self, settings: GateSettings) -> None:
        """Start closed."""
        self.settings = settings
        self.gripper = GripperLatch()
        self.target: Pose | None = None
        """What the arm is to follow now; None when nothing may be sent."""
        self.is_human = False
        """Whether a human drives."""
        self._period_ns = round(settings.spec.control_period_s * 1e9)
        self._mirror = ReferenceMirror(self._period_ns)
        self._rows = GateRows(self._period_ns, self.gripper)
        self._grid = self._rows.grid
        self._tick: HumanTick | None = None
        self.close()

    @property
    def epoch(self) -> int | None:
        """The epoch whose actions pass, None while closed."""
        return self._rows.epoch

    @property
    def is_finishing(self) -> bool:
        """Whether a tick in which a human let go is not over yet; it is his."""
        return self._tick is not None and not self.is_human

    def open(self, epoch: int, now_ns: int, *, is_hand_open: bool = True) -> None:
        """Let actions of `epoch` through; the first target will start at the measured pose.

        Args:
            epoch: Epoch of the episode.
            now_ns: Present time.
            is_hand_open: How the reset left the gripper; what rows say before the first action.
        """
        self.close()
        self.gripper.reset(is_hand_open=is_hand_open)
        self._rows.reset(epoch, now_ns)

    def close(self, now_ns: int | None = None) -> ExecutedAction | None:
        """Let nothing through and forget the target, the gripper's state and the human.

        Args:
            now_ns: Present time; left out where nobody wants the last row.

        Returns:
            The row of the tick that a human drives now, as far as it went; it would be lost, as it
            has no row before it ends.
        """
        row, tick = None, self._tick
        if now_ns is not None and tick is not None and tick.is_counted and tick.stamp_ns <= now_ns:
            row = self._human_row(tick, now_ns)
        self._rows.reset(None, 0)
        self.is_human = False
        self._tick = None
        self.interrupt()
        self.gripper.reset()
        return row

    def interrupt(self) -> None:
        """Forget the target: nothing is repeated, and the next one starts at the measured pose."""
        self.target = None
        self._mirror.forget()
        self._approach = Approach() if self.is_human else None
        self._was_human = self._has_arrived = False
        if self._tick is not None:
            self._tick.origin = None

    def on_tick(self, stamp_ns: int) -> None:
        """Learn the stamp of a tick of the actor, so that rows of other ticks lie on its grid."""
        self._grid.on_tick(stamp_ns)
        tick, row_ns = self._tick, self._grid.row_ns
        if tick is None or (row_ns is not None and stamp_ns <= row_ns):
            return
        if 2 * abs(stamp_ns - tick.stamp_ns) < self._period_ns:
            tick.stamp_ns = stamp_ns

    def accept(
        self, action: PolicyAction, measured: Pose, human: FloatArray | None = None
    ) -> ExecutedAction:
        """Turn a proposal into the new `target`.

        Args:
            action: The actor's proposal; the caller has checked its age.
            measured: Newest measured TCP pose.
            human: What a human who is asked once per tick wants instead, SI, shape (7,); who has
                a hand on a device drives by `take_over`.

        Raises:
            InvalidCommandError: ``not_running``, ``wrong_epoch``, ``out_of_order``,
                ``human_drives`` or ``before_takeover``; then nothing has changed.
        """
        self._rows.require_due(action)
        if self.is_human or self._tick is not None:
            raise InvalidCommandError("human_drives", "the proposal is only noted")
        self._rows.require_fresh(action)
        settings = self.settings
        wanted, source, limits = choose(action, human, settings.spec)
        origin = self._origin(measured)
        anchor = self._anchor_after_human(origin, measured, action.stamp_ns)
        target = offset_pose(anchor, wanted[:3], wanted[3:6])
        target, acted = limit_target(target, measured, settings.limits)
        if acted or anchor is not origin:
            wanted = np.concatenate([*pose_increment(target, origin), wanted[GRIPPER_INDEX:]])
        wanted, clipped = in_range(wanted, settings.spec)
        self._aim(target, measured, action.stamp_ns)
        self.gripper.update(float(wanted[GRIPPER_INDEX]))
        self.gripper.forget_presses()
        limits = tuple(dict.fromkeys((*limits, *acted, *clipped)))
        return self._rows.of_action(action, source, wanted, limits)

    def note(self, action: PolicyAction) -> None:
        """Keep a proposal for the row of a tick that a human drives.

        Raises:
            InvalidCommandError: As `accept`.
        """
        self._rows.require_due(action)
        self._rows.note(action)

    def take_over(self, now_ns: int, measured: Pose) -> None:
        """A human drives from now on, from where the arm is.

        Args:
            now_ns: Present time.
            measured: Newest measured TCP pose.

        Raises:
            InvalidCommandError: ``not_running``.
        """
        if self.epoch is None:
            raise InvalidCommandError("not_running", "no episode runs")
        if self.is_human:
            return
        self.is_human = self._was_human = True
        self._has_arrived = False
        self._approach = Approach(measured)
        tick = self._tick
        if tick is not None:
            # He let go and took over again within one tick: from where it rests now.
            tick.rest(None)
            return
        next_ns = self._grid.next_ns()
        is_counted = now_ns >= next_ns
        stamp_ns = next_ns if is_counted else next_ns - self._period_ns
        self._begin_tick(stamp_ns, now_ns, measured, is_counted=is_counted)

    def steer(self, increment: FloatArray, now_ns: int, measured: Pose) -> None:
        """Move the target as the human wants; may be called at any time of a tick.

        Args:
            increment: What one tick of this adds to the TCP, base frame, SI, shape (6,).
            now_ns: Present time.
            measured: Newest measured TCP pose.
        """
        tick = self._tick
        if not self.is_human or tick is None:
            return
        if tick.origin is None:
            # The pose was lost meanwhile, and with it what the reference was.
            tick.rest(measured)
            self._approach = Approach(measured)
        if not increment.any():
            # A hand at rest does not ask for the way back to the arm. An arm that sags below its
            # reference would be followed down for as long as the hand rests.
            tick.rest(None)
            self._approach = Approach(self._approach.begin if self._approach else measured)
            self._has_arrived = tick.has_arrived
        limits = self.settings.limits
        move = increment + tick.given(increment)
        target = offset_pose(self._mirror.at(now_ns) or measured, move[:3], move[3:])
        target, acted = limit_target(target, measured, limits)
        tick.limits = tuple(dict.fromkeys((*tick.limits, *acted)))
        self._aim(target, measured, now_ns)

    def release(self, now_ns: int, measured: Pose | None) -> None:
        """The human let go: rest where the reference is, and wait for a proposal.

        Args:
            now_ns: Present time.
            measured: Newest measured TCP pose, None when there is no fresh one.
        """
        if not self.is_human:
            return
        self.is_human = False
        reference = self._mirror.at(now_ns)
        if reference is not None and measured is not None:
            self._aim(reference, measured, now_ns)

    def hold(self, now_ns: int, measured: Pose | None) -> ExecutedAction | None:
        """The row of a tick that passed without an action; call until it returns None.

        A tick is given up half a period after its stamp; one that a human drives has its row when
        it ends.

        Args:
            now_ns: Present time.
            measured: Newest measured TCP pose, None when there is no fresh one.

        Returns:
            A row with source `Source.HUMAN` or `Source.HOLD`, None when no tick is overdue.
        """
        if self.epoch is None:
            return None
        self._follow_clock(now_ns, measured)
        while (tick := self._tick) is not None:
            if now_ns < tick.stamp_ns + self._period_ns:
                return None
            row = self._human_row(tick, now_ns) if tick.is_counted else None
            self._end_tick(tick, now_ns, measured)
            if row is not None:
                return row
        stamp_ns = self._grid.next_ns()
        if 2 * (now_ns - stamp_ns) <= self._period_ns:
            return None
        stamp_ns = self._grid.caught_up(stamp_ns, now_ns)
        origin = None if measured is None else self._origin(measured)
        return self._rows.of_nobody(Source.HOLD, stamp_ns, self.target, origin)

    def _follow_clock(self, now_ns: int, measured: Pose | None) -> None:
        """Begin the grid anew where the clock was set back, or no row would come for as long."""
        tick = self._tick
        if not self._grid.is_ahead(now_ns, None if tick is None else tick.stamp_ns):
            return
        self._rows.begin_anew(now_ns)
        self._mirror.set_clock(now_ns)
        if tick is not None:
            stamp_ns = self._grid.after(now_ns - self._period_ns)
            self._begin_tick(stamp_ns, now_ns, measured)

    def _aim(self, target: Pose, measured: Pose, now_ns: int) -> None:
        self.target = target
        self._mirror.follow(target, measured, now_ns, self.settings.limits)

    def _origin(self, measured: Pose) -> Pose:
        if self.settings.anchor is Anchor.LAST_TARGET and self.target is not None:
            return self.target
        return measured

    def _anchor_after_human(self, origin: Pose, measured: Pose, now_ns: int) -> Pose:
        """What the policy's increment is added to; after a human not quite its own origin."""
        if self._was_human:
            self._was_human, self._approach = False, Approach()
        reference = self._mirror.at(now_ns)
        if self._approach is None or reference is None or origin is not measured:
            return origin
        anchor = self._approach.anchor(reference, measured)
        self._approach.grow()
        if self._approach.is_there:
            self._approach = None
        return anchor

    def _begin_tick(
        self, stamp_ns: int, now_ns: int, measured: Pose | None, *, is_counted: bool = True
    ) -> None:
        self._tick = tick = HumanTick.begin(
            stamp_ns,
            is_counted=is_counted,
            measured=measured,
            reference=self._mirror.at(now_ns),
            approach=self._approach or Approach(),
            is_from_reference=self.settings.anchor is Anchor.LAST_TARGET,
        )
        tick.has_arrived = self._has_arrived
        self._has_arrived = self._has_arrived or tick.arrives

    def _end_tick(self, tick: HumanTick, now_ns: int, measured: Pose | None) -> None:
        self._tick = None
        # A takeover that was over within a tick of the policy has the next one: only by a row of
        # a human do the others learn that what they had planned is void.
        if self.is_human or not tick.is_counted:
            next_ns = self._grid.after(tick.stamp_ns)
            self._begin_tick(self._grid.caught_up(next_ns, now_ns), now_ns, measured)
            if self._approach is not None:
                self._approach.grow()

    def _human_row(self, tick: HumanTick, now_ns: int) -> ExecutedAction:
        return self._rows.of_human(tick, self._mirror.at(now_ns), self.settings.spec)
