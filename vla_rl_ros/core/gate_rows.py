# SPDX-License-Identifier: Apache-2.0
"""Which proposals are due at the gate, and the row that each tick gets; called by `core.gate`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.geometry import pose_increment
from vla_rl_ros.core.gripper import GripperLatch
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, PolicyAction, Source
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.row_grid import RowGrid
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.takeover import HumanTick
from vla_rl_ros.core.types import FloatArray, Pose


class GateRows:
    """The rows of one episode after the other; each tick has exactly one.

    Attributes:
        grid: Stamps of the rows.
        epoch: Of the episode, None outside of one.
    """

    def __init__(self, period_ns: int, gripper: GripperLatch) -> None:
        """Start outside of an episode.

        Args:
            period_ns: Control period.
            gripper: Whose level a row says where nobody asked for another.
        """
        self.grid = RowGrid(period_ns)
        self._period_ns, self._gripper = period_ns, gripper
        self.reset(None, 0)

    def reset(self, epoch: int | None, now_ns: int) -> None:
        """Begin an episode, or be outside of one."""
        self.epoch = epoch
        self.grid.open(now_ns)
        self._action_ns: int | None = None
        self._human_ns: int | None = None
        self._proposal: PolicyAction | None = None
        self._chunk_id = 0

    def begin_anew(self, now_ns: int) -> None:
        """Go on on another grid: the clock was set."""
        self.grid.open(now_ns)
        self._action_ns = self._human_ns = None

    def require_due(self, action: PolicyAction) -> None:
        """Refuse a proposal that is not for the next tick of this episode.

        Raises:
            InvalidCommandError: ``not_running``, ``wrong_epoch`` or ``out_of_order``.
        """
        if self.epoch is None:
            raise InvalidCommandError("not_running", "no episode runs")
        if action.epoch != self.epoch:
            raise InvalidCommandError("wrong_epoch", f"{action.epoch} instead of {self.epoch}")
        # Half a period apart, so that a flood of well-formed actions does not add up to speed.
        is_flood = (
            self._action_ns is not None
            and 2 * (action.stamp_ns - self._action_ns) < self._period_ns
        )
        row_ns = self.grid.row_ns
        if is_flood or (row_ns is not None and action.stamp_ns <= row_ns):
            raise InvalidCommandError("out_of_order", f"stamp {action.stamp_ns}")

    def require_fresh(self, action: PolicyAction) -> None:
        """Refuse what was planned before a human drove.

        The actor drops its plan when it hears of his row. After a takeover of a single row it has
        proposed for the next tick by then.

        Raises:
            InvalidCommandError: ``before_takeover``.
        """
        # Element 0 of a chunk belongs to the tick it was observed in. Of one that begins from rest
        # it belongs to the tick it is played in, and passes; the actor drops the rest.
        observed_ns = action.stamp_ns - action.chunk_step * self._period_ns
        if self._human_ns is not None and observed_ns <= self._human_ns:
            raise InvalidCommandError("before_takeover", f"chunk {action.chunk_id}")

    def note(self, action: PolicyAction) -> None:
        """Keep a proposal for the row of a tick that a human drives."""
        self._proposal = action

    def of_action(
        self, action: PolicyAction, source: Source, executed: FloatArray, limits: tuple[str, ...]
    ) -> ExecutedAction:
        """The row of a proposal that was carried out.

        Args:
            action: The proposal.
            source: Who drove.
            executed: What was done.
            limits: What kept it from being what was wanted.
        """
        self._action_ns, self._chunk_id = action.stamp_ns, action.chunk_id
        self._note(action.stamp_ns)
        return ExecutedAction(
            stamp_ns=action.stamp_ns,
            epoch=action.epoch,
            source=source,
            executed=executed,
            base=action.base,
            residual=action.residual,
            chunk_id=action.chunk_id,
            chunk_step=action.chunk_step,
            limits=limits,
        )

    def of_human(
        self, tick: HumanTick, reference: Pose | None, spec: ActionSpec
    ) -> ExecutedAction:
        """The row of a tick that a human drove, with what the policy proposed for it.

        Args:
            tick: The tick.
            reference: Where the reference is at its end, None when it is not known.
            spec: Range of actions.
        """
        row = self.of_nobody(Source.HUMAN, tick.stamp_ns, reference, tick.origin)
        self._human_ns = tick.stamp_ns
        executed, clipped = in_range(row.executed, spec)
        row = replace(row, executed=executed, limits=(*tick.limits, *clipped))
        proposal = self._proposal
        if proposal is None or 2 * abs(proposal.stamp_ns - tick.stamp_ns) >= self._period_ns:
            return row
        self._chunk_id = proposal.chunk_id
        return replace(
            row,
            base=proposal.base,
            residual=proposal.residual,
            chunk_id=proposal.chunk_id,
            chunk_step=proposal.chunk_step,
        )

    def of_nobody(
        self, source: Source, stamp_ns: int, target: Pose | None, origin: Pose | None
    ) -> ExecutedAction:
        """The row of a tick for which no proposal was carried out.

        Args:
            source: Who drove.
            stamp_ns: Of the tick.
            target: Where the arm was sent, None when nowhere.
            origin: What its increment is counted from, None when that is not known.
        """
        assert self.epoch is not None
        executed = np.zeros(ACTION_DIM)
        if target is not None and origin is not None:
            executed[:GRIPPER_INDEX] = np.concatenate(pose_increment(target, origin))
        executed[GRIPPER_INDEX] = float(self._gripper.level)
        self._note(stamp_ns)
        return ExecutedAction(
            stamp_ns=stamp_ns,
            epoch=self.epoch,
            source=source,
            executed=executed,
            base=np.zeros(ACTION_DIM),
            residual=np.zeros(ACTION_DIM),
            chunk_id=self._chunk_id,
            chunk_step=NO_STEP,
        )

    def _note(self, stamp_ns: int) -> None:
        self.grid.row_ns = stamp_ns
        self._gripper.shown()


def in_range(executed: FloatArray, spec: ActionSpec) -> tuple[FloatArray, tuple[str, ...]]:
    """What a row says, within the range, and ``("range",)`` where that is not what was done.

    A target near the reference may lie further from the measured pose than an action reaches.
    """
    clipped = clip_action(executed, spec)
    return clipped, ("range",) if float(np.abs(clipped - executed).max()) > 1e-9 else ()
