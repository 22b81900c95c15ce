# SPDX-License-Identifier: Apache-2.0
"""Whether somebody's latest episodes are measurably worse than those of another.

"Measurably worse" is Fisher's exact test, one-sided: how probable so few successes of the residual
are, next to those it is compared with, if both were equally good. It looks at the latest episodes,
as many of them as speak most clearly: a policy that broke a moment ago is not excused by what it
did before. Called by `learning.schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def are_latest_worse(
    recent: Sequence[bool], successes: int, episodes: int, p_value: float, *, least: int
) -> bool:
    """Whether the latest episodes are worse, however many of them one looks at.

    Args:
        recent: Outcomes of the residual, the latest last.
        successes: Of those it is compared with.
        episodes: Of those it is compared with; without any nothing is worse.
        p_value: Largest one at which they count as worse.
        least: Episodes of the residual to look at, at least.
    """
    if not episodes:
        return False
    mine = 0
    for count, is_success in enumerate(reversed(recent), 1):
        mine += is_success
        if count >= least and worse_p_value(mine, count, successes, episodes) <= p_value:
            return True
    return False


def worse_p_value(successes: int, episodes: int, base_successes: int, base_episodes: int) -> float:
    """One-sided p-value of Fisher's exact test.

    Args:
        successes: Of the residual.
        episodes: Of the residual.
        base_successes: Of the base.
        base_episodes: Of the base.

    Returns:
        Probability of at most so many successes of the residual if both were equally good, given
        the successes of both together.
    """
    all_successes = successes + base_successes
    all_failures = episodes + base_episodes - all_successes
    fewest = max(0, episodes - all_failures)
    ways = sum(
        math.comb(all_successes, i) * math.comb(all_failures, episodes - i)
        for i in range(fewest, successes + 1)
    )
    return ways / math.comb(episodes + base_episodes, episodes)
