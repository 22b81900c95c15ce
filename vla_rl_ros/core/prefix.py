# SPDX-License-Identifier: Apache-2.0
"""What is promised to the arm when a chunk is asked for: from the timing core to policies."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.core.types import FloatArray, finite_array


class Conditioning(enum.Enum):
    """How an inference takes the promised actions into account."""

    NONE = "none"
    """Not at all."""
    LOCK = "lock"
    """The locked rows are repeated exactly and the others follow from them."""
    GUIDE = "guide"
    """The whole plan pulls the denoising, less with every row (RTC, arXiv 2506.07339)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """The plan that is under way while the model thinks.

    Attributes:
        actions: Plan from element 0 on, SI, shape (n, 7). Row 0 is what was executed in the tick
            of the observation, the others are base actions that are promised.
        num_locked: The first rows that will have been executed before the answer can be used,
            the delay d of the literature; at most n.
        conditioning: What the mode of execution asks for.
    """

    actions: FloatArray
    num_locked: int
    conditioning: Conditioning

    def __post_init__(self) -> None:
        """Validate."""
        shape = (len(self.actions), ACTION_DIM)
        object.__setattr__(self, "actions", finite_array(self.actions, shape, "prefix"))
        if not 0 <= self.num_locked <= len(self.actions):
            raise InvalidCommandError(
                "wrong_length", f"{self.num_locked} locked rows of {len(self.actions)}"
            )
