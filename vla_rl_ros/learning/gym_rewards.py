# SPDX-License-Identifier: Apache-2.0
"""Reward terms of rows in an environment of gymnasium; called by `gym_loop`."""

from __future__ import annotations

from collections.abc import Callable

from vla_rl_ros.learning.rows import Float32Array

_IS_COMMAND = 0.5

RewardTerms = Callable[[float, Float32Array], tuple[float, ...]]


def task_reward(reward: float, _executed: Float32Array) -> tuple[float, ...]:
    """What the task pays, and nothing else."""
    return (reward,)


def with_grasp_penalty(penalty: float) -> RewardTerms:
    """Task reward, and a penalty whenever the last channel orders the gripper to turn round.

    Values within +-0.5 order nothing. Make a new one for each episode.

    Args:
        penalty: Of each toggle, negative (HIL-SERL, arXiv 2410.21845).
    """
    last_order = 0.0

    def terms(reward: float, executed: Float32Array) -> tuple[float, ...]:
        nonlocal last_order
        order = float(executed[-1])
        if abs(order) < _IS_COMMAND:
            return (reward, 0.0)
        is_toggle = last_order * order < 0.0
        last_order = order
        return (reward, penalty if is_toggle else 0.0)

    return terms
