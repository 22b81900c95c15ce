# SPDX-License-Identifier: Apache-2.0
"""Transitions of rows against sums written out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.row_samples import LAYOUT, episode

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.learning.rows import Row, RowLayout, Source, as_demonstration
from vla_rl_ros.learning.transitions import rows_to_transitions

ENDS = ("terminated", "truncated", "interrupted")
GAMMA = 0.9


def by_hand(
    rows: list[Row], n: int, gamma: float, after: float, *, takeover_ends: bool, timeout_ends: bool
) -> list[dict]:
    """Transitions of one episode, tick by tick as the definitions say."""
    is_terminated = any(row.is_terminated for row in rows)
    last_is_tick = is_terminated and not rows[-1].is_end
    ticks = rows if last_is_tick else rows[:-1]
    result = []
    for tick, row in enumerate(ticks):
        losses = [
            later
            for later in range(tick + 1, len(rows))
            if (
                takeover_ends
                and rows[later].source is Source.HUMAN
                and rows[later - 1].source is not Source.HUMAN
            )
            or (timeout_ends and rows[later - 1].is_truncated)
        ]
        is_lost = bool(losses)
        end = losses[0] if is_lost else len(ticks)
        total, value, reached = 0.0, 0.0, tick
        for step in range(n):
            if tick + step < end:
                total += gamma**step * ticks[tick + step].rewards[0]
                reached = tick + step + 1
        for step in range(tick, end):
            value += gamma ** (step - tick) * ticks[step].rewards[0]
        if is_lost or not is_terminated:
            value += gamma ** (end - tick) * after
        if is_lost and reached == end:
            total += gamma ** (end - tick) * after
        is_over = reached == end and (is_lost or is_terminated)
        successor = rows[min(reached, len(rows) - 1)]
        result.append(
            {
                "obs": row.obs,
                "base": row.base,
                "action": row.executed,
                "next_obs": successor.obs,
                "next_base": successor.base,
                "reward": total,
                "discount": 0.0 if is_over else gamma ** (reached - tick),
                "mc_return": value,
                "is_demo": float(row.source is Source.HUMAN),
            }
        )
    return result


def with_humans(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """The same, with a human in some of the ticks."""
    return [
        row if rng.random() < 0.6 else dataclasses.replace(row, source=Source.HUMAN)
        for row in rows
    ]


@settings(max_examples=150, deadline=None)
@given(
    episodes=st.lists(
        st.tuples(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=9),
                  st.sampled_from(ENDS)),
        min_size=1, max_size=4,
    ),
    n=st.integers(1, 6),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    after=st.sampled_from([0.0, -3.0]),
    takeover_ends=st.booleans(),
    timeout_ends=st.booleans(),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_transitions_are_the_sums_of_the_definitions(
    episodes, n, gamma, after, takeover_ends, timeout_ends, seed
):
    rng = np.random.default_rng(seed)
    ends = {"takeover_ends": takeover_ends, "timeout_ends": timeout_ends}
    lists = [
        with_humans(episode(rng, rewards, number=number, end=end), rng)
        for number, (rewards, end) in enumerate(episodes)
    ]
    expected = [one for rows in lists for one in by_hand(rows, n, gamma, after, **ends)]
    packed = LAYOUT.pack([row for rows in lists for row in rows])
    found = rows_to_transitions(packed, LAYOUT, n, gamma, truncation_value=after, **ends)
    assert len(found["reward"]) == len(expected)
    for key, column in found.items():
        assert column.dtype == np.float32
        want = np.array([one[key] for one in expected], np.float32).reshape(column.shape)
        np.testing.assert_allclose(column, want, rtol=1e-6, atol=1e-6, err_msg=key)


def test_success_masks_the_bootstrap_and_truncation_does_not():
    rng = np.random.default_rng(0)
    ended = {
        end: rows_to_transitions(
            LAYOUT.pack(episode(rng, [0.0, 0.0, 1.0], end=end)), LAYOUT, 2, GAMMA
        )["discount"].tolist()
        for end in ("terminated", "truncated")
    }
    assert ended["terminated"] == pytest.approx([GAMMA**2, 0.0, 0.0])
    assert ended["truncated"] == pytest.approx([GAMMA**2, GAMMA**2, GAMMA])


def test_truncation_bootstraps_from_the_closing_observation_and_its_base_action():
    rows = episode(np.random.default_rng(1), [0.0, 0.0], end="truncated")
    found = rows_to_transitions(LAYOUT.pack(rows), LAYOUT, 1, GAMMA)
    np.testing.assert_array_equal(found["next_obs"][-1], rows[-1].obs)
    np.testing.assert_array_equal(found["next_base"][-1], rows[-1].base)


@pytest.mark.parametrize("end", ENDS)
def test_an_episode_that_was_cut_off_has_failed_where_that_is_wanted(end):
    rows = episode(np.random.default_rng(1), [0.0, 0.0, 0.0], end=end)
    found = rows_to_transitions(
        LAYOUT.pack(rows), LAYOUT, 2, GAMMA, truncation_value=-3.0, timeout_ends=True
    )
    if end == "truncated":
        assert found["discount"].tolist() == pytest.approx([GAMMA**2, 0.0, 0.0])
        assert found["reward"].tolist() == pytest.approx([0.0, -3.0 * GAMMA**2, -3.0 * GAMMA])
    elif end == "interrupted":
        # Nobody knows how it would have ended.
        assert (found["discount"] > 0.0).all()


def test_a_policy_that_is_helped_earns_nothing_of_what_the_human_does():
    rows = episode(np.random.default_rng(5), [0.0, 0.0, 0.0, 0.0, 1.0])
    rows[2:4] = [dataclasses.replace(row, source=Source.HUMAN) for row in rows[2:4]]
    found = rows_to_transitions(LAYOUT.pack(rows), LAYOUT, 5, GAMMA, takeover_ends=True)
    # Ticks 0 and 1 are the policy's, 2 and 3 the human's, who hands back what ends well.
    assert found["reward"].tolist() == pytest.approx([0.0, 0.0, GAMMA**2, GAMMA, 1.0])
    assert found["mc_return"].tolist() == pytest.approx([0.0, 0.0, GAMMA**2, GAMMA, 1.0])
    assert found["discount"].tolist() == [0.0] * 5
    np.testing.assert_array_equal(found["next_obs"][1], rows[2].obs)


def test_help_is_no_way_out_of_a_penalty():
    rows = episode(np.random.default_rng(6), [-0.1] * 4, end="truncated")
    rows[2:4] = [dataclasses.replace(row, source=Source.HUMAN) for row in rows[2:4]]
    after = -0.1 / (1.0 - GAMMA)
    found = rows_to_transitions(
        LAYOUT.pack(rows), LAYOUT, 5, GAMMA, truncation_value=after, takeover_ends=True
    )
    # As bad as if nothing had ever come of it.
    assert found["reward"][:2].tolist() == pytest.approx([after, after])
    assert found["mc_return"][:2].tolist() == pytest.approx([after, after])


@pytest.mark.parametrize("source", [Source.HUMAN, Source.RESIDUAL])
def test_a_takeover_at_the_very_end_is_one(source):
    rows = episode(np.random.default_rng(7), [0.0] * 3, end="truncated")
    rows[-1] = dataclasses.replace(rows[-1], source=source)
    found = rows_to_transitions(LAYOUT.pack(rows), LAYOUT, 1, GAMMA, takeover_ends=True)
    is_taken = source is Source.HUMAN
    assert found["discount"].tolist() == pytest.approx([GAMMA, GAMMA, 0.0 if is_taken else GAMMA])


def test_a_lost_row_never_joins_what_lay_on_its_two_sides():
    rows = episode(np.random.default_rng(2), [0.0] * 6)
    gap = [row for row in rows if row.tick != 3]
    found = rows_to_transitions(LAYOUT.pack(gap), LAYOUT, 5, GAMMA)
    # Ticks 0 and 1 lead to tick 2; what 2 led to is lost; 4 and 5 go on to the end.
    np.testing.assert_array_equal(found["obs"], [rows[i].obs for i in (0, 1, 4, 5)])
    np.testing.assert_array_equal(found["next_obs"][:2], [rows[2].obs] * 2)
    assert found["discount"].tolist() == pytest.approx([GAMMA**2, GAMMA, 0.0, 0.0])


def test_transitions_of_pieces_are_those_of_the_whole_bit_for_bit():
    rng = np.random.default_rng(3)
    first = LAYOUT.pack(episode(rng, [0.0, 1.0, 0.3], number=0, end="truncated"))
    second = LAYOUT.pack(episode(rng, [0.1, 0.7], number=1))
    whole = rows_to_transitions(np.concatenate([first, second]), LAYOUT, 3, 0.97)
    pieces = [rows_to_transitions(piece, LAYOUT, 3, 0.97) for piece in (first, second)]
    for key, column in whole.items():
        assert column.tobytes() == np.concatenate([piece[key] for piece in pieces]).tobytes()


def test_rows_of_human_and_of_demonstrations_are_marked():
    rows = episode(np.random.default_rng(4), [0.0, 0.0, 0.0])
    rows[1] = dataclasses.replace(rows[1], source=Source.HUMAN)
    packed = LAYOUT.pack(rows)

    def marked(array):
        return rows_to_transitions(array, LAYOUT, 1, GAMMA)["is_demo"].tolist()

    assert marked(packed) == [0.0, 1.0, 0.0]
    assert marked(as_demonstration(packed)) == [1.0, 1.0, 1.0]
    assert marked(as_demonstration(packed, only_human=True)) == [0.0, 1.0, 0.0]
    assert not (packed["flags"] & 8).any()  # the original is as it was


def test_the_grasp_penalty_is_no_part_of_the_reward():
    layout = RowLayout(obs_dim=3, action_dim=2, reward_terms=("task", "shaping", "grasp_penalty"))
    rows = [
        dataclasses.replace(row, rewards=(row.rewards[0], 0.25, -0.02))
        for row in episode(np.random.default_rng(5), [0.0, 1.0], layout=layout)
    ]
    found = rows_to_transitions(layout.pack(rows), layout, 2, 0.5)
    assert found["reward"].tolist() == pytest.approx([0.25 + 0.5 * 1.25, 1.25])
    assert found["grasp_penalty"].tolist() == pytest.approx([-0.03, -0.02])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"obs": np.zeros(4, np.float32)}, r"tick 0: obs has shape \(4,\)"),
        ({"base": np.array([0.0, math.nan], np.float32)}, "base is not finite"),
        ({"executed": np.array([0.0, 1.5], np.float32)}, "executed=.* is not within"),
        ({"rewards": (1.0, 2.0)}, "2 rewards"),
        ({"rewards": (math.inf,)}, "not finite"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(change, sentence):
    row = dataclasses.replace(episode(np.random.default_rng(6), [0.0])[0], **change)
    with pytest.raises(ReplayError, match=sentence):
        LAYOUT.pack([row])


def test_an_empty_layout_is_refused():
    with pytest.raises(ConfigError, match="RowLayout"):
        RowLayout(obs_dim=0, action_dim=2)


def test_fields_lie_on_their_natural_boundaries_for_any_width():
    for width in range(1, 6):
        dtype = RowLayout(obs_dim=width, action_dim=2).dtype
        assert dtype.itemsize % 8 == 0
        assert all(dtype.fields[name][1] % 8 == 0 for name in ("episode", "seed", "stamp_ns"))
