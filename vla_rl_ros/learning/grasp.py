# SPDX-License-Identifier: Apache-2.0
"""Discrete critic for the gripper (HIL-SERL, arXiv 2410.21845, section III-C), as a residual.

Choices are close, keep what the base does, and open; the choice is in the last action channel.

    y    = reward + grasp_penalty + discount Q'(s', c'),   c' = choice of the online critic at s'
    loss = 1/2 E[(Q(s, c) - y)^2]                          (double DQN)

An alternative has to beat the base by a margin and has to differ from what the base does. The
last layer begins at zero, so an untrained critic always keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_rl_ros.learning.acting import GRASP_TOLERANCE, Grasp


def executed_choice(action_gripper: Tensor, base_gripper: Tensor) -> Tensor:
    """Which choice was executed, int64, shape (B,), from the last channels (B,)."""
    side = torch.where(action_gripper > 0.0, int(Grasp.OPEN), int(Grasp.CLOSE))
    is_base = (action_gripper - base_gripper).abs() <= GRASP_TOLERANCE
    return torch.where(is_base, int(Grasp.KEEP), side)


def choose(q: Tensor, base_gripper: Tensor, margin: float) -> Tensor:
    """Best choice, int64, shape (B,), from values (B, 3) and the base's gripper channel (B,)."""
    never = torch.full_like(base_gripper, -torch.inf)
    close = torch.where(base_gripper > -1.0 + GRASP_TOLERANCE, q[:, Grasp.CLOSE], never)
    opens = torch.where(base_gripper < 1.0 - GRASP_TOLERANCE, q[:, Grasp.OPEN], never)
    side = torch.where(opens > close, int(Grasp.OPEN), int(Grasp.CLOSE))
    gains = torch.maximum(close, opens) > q[:, Grasp.KEEP] + margin
    return torch.where(gains, side, int(Grasp.KEEP))


def value_of(q: Tensor, choice: Tensor) -> Tensor:
    """Values (B,) of the given choices (B,) out of (B, 3)."""
    return q.gather(1, choice.unsqueeze(1)).squeeze(1)
