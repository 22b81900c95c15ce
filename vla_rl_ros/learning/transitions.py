# SPDX-License-Identifier: Apache-2.0
"""The transitions that follow from rows: n-step sums, Monte-Carlo returns, bootstraps.

Rows are stored and transitions derived, so the same rows serve any n and gamma. Pure: live rows
and rows read from a recording give the same transitions, bit for bit. Called by `replay`, and by
whoever has rows in memory.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vla_rl_ros.learning.batch import GRASP_KEY
from vla_rl_ros.learning.rows import (
    DEMO,
    END,
    TERMINATED,
    TRUNCATED,
    Float32Array,
    RowArray,
    RowLayout,
    Source,
)

Transitions = dict[str, Float32Array]
"""Arrays under the keys of `batch.Batch`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransitionTable:
    """Which rows begin and end each transition, and the sums in between; arrays of shape (m,).

    Attributes:
        row: Index of the first row.
        next_row: Index of the row the bootstrap looks at.
        reward: n-step sum.
        discount: ``gamma^k (1 - terminated)`` over the k <= n ticks there were.
        mc_return: Discounted sum to the end of the episode.
        is_demo: 1 where demonstrated or chosen by a human.
        grasp_penalty: n-step sum of the penalties; zeros where the layout has none.
    """

    row: npt.NDArray[np.int64]
    next_row: npt.NDArray[np.int64]
    reward: Float32Array
    discount: Float32Array
    mc_return: Float32Array
    is_demo: Float32Array
    grasp_penalty: Float32Array


def segments(rows: RowArray) -> list[tuple[int, int]]:
    """Bounds [first, last) of the runs without a gap: same episode, ticks one after the other."""
    if not len(rows):
        return []
    flags = rows["flags"]
    is_break = (
        (np.diff(rows["episode"]) != 0)
        | (np.diff(rows["tick"]) != 1)
        | ((flags[:-1] & END) != 0)
        | (((flags[:-1] & (TERMINATED | TRUNCATED)) != 0) & ((flags[1:] & END) == 0))
    )
    bounds = [0, *(np.flatnonzero(is_break) + 1).tolist(), len(rows)]
    return list(itertools.pairwise(bounds))


def is_closed(last_row: np.void) -> bool:
    """Whether a run that ends with this row can grow no further."""
    return bool(last_row["flags"] & END)


def tabulate(
    rows: RowArray,
    layout: RowLayout,
    n: int,
    gamma: float,
    *,
    truncation_value: float = 0.0,
    takeover_ends: bool = False,
    timeout_ends: bool = False,
) -> TransitionTable:
    """Derive the transitions of a piece of rows.

    Success masks the bootstrap; truncation bootstraps from the closing row, unless it counts as
    failure. A run without a closing row was interrupted: its last row serves as one, as nobody
    knows what its action did.

    Args:
        rows: In the order of recording.
        layout: Of the rows.
        n: Ticks of reward before the bootstrap, >= 1.
        gamma: Discount per tick.
        truncation_value: Value after a truncated end in the Monte-Carlo return: 0 is a lower bound
            where rewards are not negative; where every tick costs p > 0 use ``-p / (1 - gamma)``
            (Cal-QL, arXiv 2303.05479).
        takeover_ends: What comes before a human takes over earns nothing of what he does then but
            `truncation_value`, as if it had failed there (cf. RLIF, arXiv 2311.12996, which pays
            -1). Otherwise a policy is paid for getting stuck where somebody helps.
        timeout_ends: An episode that was cut off has failed: `truncation_value` is all there is
            after it. Otherwise nothing ever says that a policy which is stuck stays so.
    """
    pieces = [
        _tabulate_run(
            rows[first:last],
            first,
            layout,
            n,
            gamma,
            truncation_value,
            takeover_ends=takeover_ends,
            timeout_ends=timeout_ends,
        )
        for first, last in segments(rows)
    ]

    def joined(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate([np.empty(0), *(piece[name] for piece in pieces)]).astype(dtype)

    return TransitionTable(
        row=joined("row", np.int64),
        next_row=joined("next_row", np.int64),
        reward=joined("reward", np.float32),
        discount=joined("discount", np.float32),
        mc_return=joined("mc_return", np.float32),
        is_demo=joined("is_demo", np.float32),
        grasp_penalty=joined("grasp_penalty", np.float32),
    )


def _tabulate_run(
    run: RowArray,
    first: int,
    layout: RowLayout,
    n: int,
    gamma: float,
    truncation_value: float,
    *,
    takeover_ends: bool,
    timeout_ends: bool,
) -> dict[str, npt.NDArray[Any]]:
    is_terminated = bool((run["flags"] & TERMINATED).any())
    # The closing row is no tick; without one, a terminated tick needs no successor.
    ends_in_tick = is_terminated and not is_closed(run[-1])
    num_ticks = len(run) if ends_in_tick else len(run) - 1
    ticks = np.arange(num_ticks)
    # The closing row says who would have acted next.
    is_human = np.append(run["source"] == Source.HUMAN, False)[: num_ticks + 1]
    is_cut = (run["flags"][:num_ticks] & TRUNCATED) != 0
    # Where each tick's future ends for it: with the run, or where a human takes over.
    is_final = (is_human[1:] & ~is_human[:-1] & takeover_ends) | (is_cut & timeout_ends)
    end = np.where(is_final, ticks + 1, num_ticks)
    end = np.minimum.accumulate(end[::-1])[::-1]
    reach = np.minimum(ticks + n, end)
    rewards = run["rewards"][:num_ticks].astype(np.float64)
    is_penalty = np.array([name == GRASP_KEY for name in layout.reward_terms])
    reward = rewards[:, ~is_penalty].sum(axis=1)
    is_lost = (reach == end) & is_final[end - 1]
    masked = is_lost | ((reach == num_ticks) & is_terminated)
    discount = gamma ** (reach - ticks)
    after = 0.0 if is_terminated else truncation_value
    return {
        "row": first + ticks,
        "next_row": first + np.minimum(reach, len(run) - 1),
        "reward": _sums(reward, reach, gamma) + is_lost * discount * truncation_value,
        "discount": np.where(masked, 0.0, discount),
        "mc_return": _returns(reward, is_final, gamma, after, truncation_value),
        "is_demo": ((run["flags"][:num_ticks] & DEMO) != 0) | is_human[:num_ticks],
        "grasp_penalty": _sums(rewards[:, is_penalty].sum(axis=1), reach, gamma),
    }


def _sums(
    reward: npt.NDArray[np.float64], reach: npt.NDArray[np.int64], gamma: float
) -> npt.NDArray[np.float64]:
    total, ticks = np.zeros_like(reward), np.arange(len(reward))
    for step in range(int((reach - ticks).max(initial=0))):
        own = ticks[ticks + step < reach]
        total[own] += gamma**step * reward[own + step]
    return total


def _returns(
    reward: npt.NDArray[np.float64],
    is_final: npt.NDArray[np.bool_],
    gamma: float,
    after: float,
    after_loss: float,
) -> npt.NDArray[np.float64]:
    result = np.empty_like(reward)
    value = after
    for tick in range(len(reward) - 1, -1, -1):
        value = reward[tick] + gamma * (after_loss if is_final[tick] else value)
        result[tick] = value
    return result


def gather(rows: RowArray, table: TransitionTable, layout: RowLayout) -> Transitions:
    """Copy the transitions of a table out of its rows."""
    here, there = rows[table.row], rows[table.next_row]
    result = {
        "obs": here["obs"],
        "base": here["base"],
        "action": here["executed"],
        "next_obs": there["obs"],
        "next_base": there["base"],
        "reward": table.reward,
        "discount": table.discount,
        "mc_return": table.mc_return,
        "is_demo": table.is_demo,
    }
    if GRASP_KEY in layout.reward_terms:
        result[GRASP_KEY] = table.grasp_penalty
    return result


def rows_to_transitions(
    rows: RowArray,
    layout: RowLayout,
    n: int,
    gamma: float,
    *,
    truncation_value: float = 0.0,
    takeover_ends: bool = False,
    timeout_ends: bool = False,
) -> Transitions:
    """Transitions of rows, arrays of m rows each under the keys of a batch; see `tabulate`."""
    table = tabulate(
        rows, layout, n, gamma, truncation_value=truncation_value,
        takeover_ends=takeover_ends, timeout_ends=timeout_ends,
    )  # fmt: skip
    return gather(rows, table, layout)
