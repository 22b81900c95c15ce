# SPDX-License-Identifier: Apache-2.0
"""Who drives, and what the arm is told: the rules of the gate.

Owns the only way from an action to an absolute target: arbitration, anchor, limits, gripper edges,
and what is repeated when nothing comes. Called by the intervention node; the caller brings stamps
and measured poses. Whatever interrupts the stream makes the gate forget its target, so that the
next one starts at the measured pose and the arm never jumps.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.geometry import offset_pose, pose_increment
from vla_rl_ros.core.gripper import GripperLatch
from vla_rl_ros.core.reference import ReferenceLimits, limit_target
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.types import FloatArray, Pose, finite_array

NO_STEP = -1
"""`chunk_step` of a tick at which no element of a chunk was executed."""


class Anchor(enum.Enum):
    """What an increment is added to."""

    MEASURED = "measured"
    """The newest measured TCP pose, as in HIL-SERL."""
    LAST_TARGET = "last_target"
    """The last target, for policies trained on differences of targets."""


class Source(enum.Enum):
    """Who drove a tick."""

    VLA = "vla"
    RESIDUAL = "residual"
    HUMAN = "human"
    HOLD = "hold"


MAX_CATCH_UP_TICKS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyAction:
    """What the actor proposes for one tick.

    Attributes:
        stamp_ns: Stamp of the tick.
        epoch: Episode epoch of the chunk.
        chunk_id: Chunk the base action is taken from.
        chunk_step: Index in the chunk.
        delay_ticks: Delay the chunk was conditioned for.
        base: The policy's action, SI, shape (7,).
        residual: What the actor adds, SI, shape (7,).
    """

    stamp_ns: int
    epoch: int
    chunk_id: int
    chunk_step: int
    delay_ticks: int
    base: FloatArray
    residual: FloatArray

    def __post_init__(self) -> None:
        """Validate shapes and finiteness."""
        for name in ("base", "residual"):
            object.__setattr__(self, name, finite_array(getattr(self, name), (ACTION_DIM,), name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExecutedAction:
    """What was done in one tick.

    Attributes:
        stamp_ns: Stamp of the tick.
        epoch: Episode epoch.
        source: Who drove.
        executed: Increment of the target from the anchor after all limits, and the gripper
            value that was followed; SI, shape (7,).
        base: The policy's action, zeros when nobody proposed one.
        residual: The actor's part, zeros when nobody proposed one.
        chunk_id: Chunk of the base action, that of the last one while holding.
        chunk_step: Index in the chunk, `NO_STEP` while holding.
        limits: Names of the limits that acted, out of ``range``, ``box``, ``step``, ``tilt``.
    """

    stamp_ns: int
    epoch: int
    source: Source
    executed: FloatArray
    base: FloatArray
    residual: FloatArray
    chunk_id: int
    chunk_step: int
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What the gate may change live.

    Attributes:
        anchor: What an increment is added to.
        limits: Limits of targets; steps are measured from the measured pose.
        spec: Range of actions.
    """

    anchor: Anchor
    limits: ReferenceLimits
    spec: ActionSpec


def choose(
    policy: PolicyAction, human: FloatArray | None, spec: ActionSpec
) -> tuple[FloatArray, Source, tuple[str, ...]]:
    """Human over residual over policy.

    Args:
        policy: The actor's proposal.
        human: The operator's action in SI, shape (7,), None while nobody takes over.
        spec: Range of actions.

    Returns:
        The wanted action, who drives, and ``("range",)`` when it had to be clipped.
    """
    if human is not None:
        wanted, source = human, Source.HUMAN
    elif np.any(policy.residual):
        wanted, source = policy.base + policy.residual, Source.RESIDUAL
    else:
        # Not the sum: it would turn a negative zero into a positive one.
        wanted, source = policy.base, Source.VLA
    clipped = clip_action(wanted, spec)
    # The sum of base and residual may leave the range by a rounding error.
    is_beyond = bool(np.abs(clipped - wanted).max() > 1e-9)
    return clipped, source, ("range",) if is_beyond else ()


class Gate:
    """Builds targets while an episode runs, and nothing outside of it."""

    def __init__(self, settings: GateSettings) -> None:
        """Start closed."""
        self.settings = settings
        self.gripper = GripperLatch()
        self.target: Pose | None = None
        """What the arm is to follow now; None when nothing may be sent."""
        self._period_ns = round(settings.spec.control_period_s * 1e9)
        self._epoch: int | None = None
        self._opened_ns = 0
        self._is_hand_open = True
        self._row_ns: int | None = None
        self._action_ns: int | None = None
        self._chunk_id = 0

    @property
    def epoch(self) -> int | None:
        """The epoch whose actions pass, None while closed."""
        return self._epoch

    def open(self, epoch: int, now_ns: int, *, is_hand_open: bool = True) -> None:
        """Let actions of `epoch` through; the first target will start at the measured pose.

        Args:
            epoch: Epoch of the episode.
            now_ns: Present time.
            is_hand_open: How the reset left the gripper; what rows say before the first action.
        """
        self.close()
        self._is_hand_open = is_hand_open
        self._epoch = epoch
        self._opened_ns = now_ns

    def close(self) -> None:
        """Let nothing through and forget the target and the gripper's state."""
        self._epoch = None
        self._row_ns = self._action_ns = None
        self._chunk_id = 0
        self.interrupt()
        self.gripper.reset()

    def interrupt(self) -> None:
        """Forget the target: nothing is repeated, and the next one starts at the measured pose."""
        self.target = None

    def accept(
        self, action: PolicyAction, measured: Pose, human: FloatArray | None = None
    ) -> ExecutedAction:
        """Turn a proposal into the new `target`.

        Args:
            action: The actor's proposal; the caller has checked its age.
            measured: Newest measured TCP pose.
            human: The operator's action in SI while he drives.

        Raises:
            InvalidCommandError: ``not_running``, ``wrong_epoch`` or ``out_of_order``; then
                nothing has changed.
        """
        self._require_due(action)
        settings = self.settings
        wanted, source, limits = choose(action, human, settings.spec)
        anchor = self._anchor(measured)
        target = offset_pose(anchor, wanted[:3], wanted[3:6])
        target, acted = limit_target(target, measured, settings.limits)
        if acted:
            wanted = np.concatenate([*pose_increment(target, anchor), wanted[GRIPPER_INDEX:]])
        self.target = target
        self.gripper.update(float(wanted[GRIPPER_INDEX]))
        self._row_ns = self._action_ns = action.stamp_ns
        self._chunk_id = action.chunk_id
        return ExecutedAction(
            stamp_ns=action.stamp_ns,
            epoch=action.epoch,
            source=source,
            executed=wanted,
            base=action.base,
            residual=action.residual,
            chunk_id=action.chunk_id,
            chunk_step=action.chunk_step,
            limits=limits + acted,
        )

    def hold(self, now_ns: int, measured: Pose | None) -> ExecutedAction | None:
        """The row of a tick that passed without an action; call until it returns None.

        A tick is given up half a period after its stamp.

        Args:
            now_ns: Present time.
            measured: Newest measured TCP pose, None when there is no fresh one.

        Returns:
            A row with source `Source.HOLD`, None when no tick is overdue.
        """
        if self._epoch is None:
            return None
        last_ns = self._opened_ns if self._row_ns is None else self._row_ns
        if 2 * (now_ns - last_ns) <= 3 * self._period_ns:
            return None
        num_behind = (now_ns - last_ns) // self._period_ns
        if num_behind > MAX_CATCH_UP_TICKS:
            # The clock was set: thousands of rows would keep the gate from its heartbeat.
            last_ns += (num_behind - 1) * self._period_ns
        self._row_ns = last_ns + self._period_ns
        executed = np.zeros(ACTION_DIM)
        if self.target is not None and measured is not None:
            increment = pose_increment(self.target, self._anchor(measured))
            executed[:GRIPPER_INDEX] = np.concatenate(increment)
        # Unknown until the first action of an episode, which starts as the reset left the hand.
        executed[GRIPPER_INDEX] = float(
            self._is_hand_open if self.gripper.is_open is None else self.gripper.is_open
        )
        return ExecutedAction(
            stamp_ns=self._row_ns,
            epoch=self._epoch,
            source=Source.HOLD,
            executed=executed,
            base=np.zeros(ACTION_DIM),
            residual=np.zeros(ACTION_DIM),
            chunk_id=self._chunk_id,
            chunk_step=NO_STEP,
        )

    def _anchor(self, measured: Pose) -> Pose:
        if self.settings.anchor is Anchor.LAST_TARGET and self.target is not None:
            return self.target
        return measured

    def _require_due(self, action: PolicyAction) -> None:
        if self._epoch is None:
            raise InvalidCommandError("not_running", "no episode runs")
        if action.epoch != self._epoch:
            raise InvalidCommandError("wrong_epoch", f"{action.epoch} instead of {self._epoch}")
        # Half a period apart, so that a flood of well-formed actions does not add up to speed.
        is_flood = (
            self._action_ns is not None
            and 2 * (action.stamp_ns - self._action_ns) < self._period_ns
        )
        if is_flood or (self._row_ns is not None and action.stamp_ns <= self._row_ns):
            raise InvalidCommandError("out_of_order", f"stamp {action.stamp_ns}")
