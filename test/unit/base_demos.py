# SPDX-License-Identifier: Apache-2.0
"""Demonstrations without a simulator, for tests of what learns from them."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.learning.base_data import DemoSet, joined


def episode(length: int, *, task: int = 0, pushed: tuple[int, ...] = (), seed: int = 0) -> DemoSet:
    """One episode of random ticks whose labels follow from the state."""
    rng = np.random.default_rng(seed)
    states = rng.normal(0.0, 0.1, (length, 20)).astype(np.float32)
    states[:, 3:7] = (1.0, 0.0, 0.0, 0.0)
    labels = np.zeros((length, 7), dtype=np.float32)
    labels[:, :3] = 0.1 * states[:, :3]
    labels[:, 6] = states[:, 0] > 0.0
    is_pushed = np.zeros(length, dtype=bool)
    is_pushed[list(pushed)] = True
    return DemoSet(
        images=rng.integers(0, 256, (length, 2, 64, 64, 3), dtype=np.uint8),
        states=states,
        labels=labels,
        executed=labels + np.float32(0.001),
        targets_m=states[:, :3] + np.float32(0.05),
        tasks=np.full(length, task),
        is_pushed=is_pushed,
        episodes=np.zeros(length, dtype=np.int64),
    )


def demo_set(num_episodes: int = 6, length: int = 20) -> DemoSet:
    """Episodes of all tasks in turn; every third pair of lift and button shares its start."""
    parts = [episode(length, task=number % 3, seed=number // 3) for number in range(num_episodes)]
    return joined(parts)
