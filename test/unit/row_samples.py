# SPDX-License-Identifier: Apache-2.0
"""Episodes of random rows for tests of rows, replay and training loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_rl_ros.learning.rows import Row, RowLayout, Source

LAYOUT = RowLayout(obs_dim=3, action_dim=2)


def episode(
    rng: np.random.Generator,
    rewards: Sequence[float],
    *,
    number: int = 0,
    end: str = "terminated",
    layout: RowLayout = LAYOUT,
) -> list[Row]:
    """One episode; `end` is terminated, truncated, or interrupted (no closing row)."""

    def vector(width: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, width).astype(np.float32)

    num_ticks = len(rewards)
    rows = [
        Row(
            obs=vector(layout.obs_dim),
            base=vector(layout.action_dim),
            executed=vector(layout.action_dim),
            rewards=(float(reward), *[0.0] * (len(layout.reward_terms) - 1)),
            source=Source.RESIDUAL,
            episode=number,
            seed=number + 100,
            tick=tick,
            stamp_ns=tick * 100_000_000,
            is_terminated=end == "terminated" and tick == num_ticks - 1,
            is_truncated=end == "truncated" and tick == num_ticks - 1,
        )
        for tick, reward in enumerate(rewards)
    ]
    if end != "interrupted":
        rows.append(
            Row(
                obs=vector(layout.obs_dim),
                base=vector(layout.action_dim),
                executed=np.zeros(layout.action_dim, np.float32),
                rewards=(0.0,) * len(layout.reward_terms),
                episode=number,
                seed=number + 100,
                tick=num_ticks,
                is_end=True,
            )
        )
    return rows
