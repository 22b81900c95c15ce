# SPDX-License-Identifier: Apache-2.0
"""How far a policy that only watches is from the human who drives."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec, is_open_command


def disagreement(row: ExecutedAction, spec: ActionSpec) -> float | None:
    """Largest distance of a channel between human and policy in one tick.

    Args:
        row: Of the tick.
        spec: Range of actions.

    Returns:
        In ranges of an action (1 is from rest to full speed); 2 where one opens the hand and the
        other closes it. None where no human drove or the policy proposed nothing.
    """
    if row.source is not Source.HUMAN or row.chunk_step == NO_STEP:
        return None
    proposed = row.base + row.residual
    if is_open_command(row.executed) != is_open_command(proposed):
        return 2.0
    apart = spec.to_normalised(row.executed) - spec.to_normalised(proposed)
    return float(np.abs(apart[:GRIPPER_INDEX]).max())
