# SPDX-License-Identifier: Apache-2.0
"""Events become rows: whole episodes, the same ones in whatever order topics arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.session_samples import (
    CLASSIFIER_JUDGE,
    LAYOUT,
    PERIOD_NS,
    SPEC,
    Session,
    feed,
    full_session,
    packed,
    rows_of,
    tell,
)

from vla_rl_ros.core.episode import Outcome, Phase
from vla_rl_ros.core.intervention import NO_STEP
from vla_rl_ros.core.intervention import Source as Driver
from vla_rl_ros.core.reward import make_reward
from vla_rl_ros.core.verdict import GROUND_TRUTH, OPERATOR, judge_code
from vla_rl_ros.learning.rows import DEMO, END, TERMINATED, TRUNCATED, Source
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionRows, session_layout
from vla_rl_ros.learning.transitions import rows_to_transitions


def collected(session: Session) -> tuple[SessionRows, list[EpisodeRows]]:
    rows = SessionRows(SPEC)
    return rows, feed(rows, session.in_order())


def played(num_ticks: int, outcome: Outcome) -> Session:
    session = Session()
    session.begin()
    for _ in range(num_ticks):
        session.tick()
    session.end(outcome)
    return session


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 20))
def test_the_order_between_topics_does_not_matter(order: int, seed: int) -> None:
    session = full_session(seed)
    assert rows_of(session.shuffled(order)).tobytes() == rows_of(session.in_order()).tobytes()


def test_success_terminates_and_everything_else_truncates() -> None:
    rows, episodes = collected(full_session())
    outcomes = [episode.state.outcome for episode in episodes]
    assert outcomes == [
        Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.FAULT, Outcome.SUCCESS, None, Outcome.SUCCESS,
    ]  # fmt: skip
    for episode in episodes:
        array = LAYOUT.pack(episode.rows)
        assert array["flags"][-1] == END
        assert array["flags"][-2] == (TERMINATED if episode.is_success else TRUNCATED)
        assert not array["flags"][:-2].any()
        assert array["rewards"].sum() == episode.is_success
        assert array["rewards"][-2, 0] == episode.is_success
        assert set(array["episode"]) == {episode.state.epoch}
        assert set(array["seed"]) == {episode.state.seed}
    assert rows.counters.episodes == 6
    assert rows.counters.without_outcome == 1
    assert rows.counters.empty == 1


def test_every_row_says_who_judged_its_episode() -> None:
    _, episodes = collected(full_session())
    judges = [episode.state.judge for episode in episodes]
    assert judges == [
        GROUND_TRUTH, CLASSIFIER_JUDGE, "", OPERATOR, "", GROUND_TRUTH,
    ]  # fmt: skip
    for episode, judge in zip(episodes, judges, strict=True):
        assert set(LAYOUT.pack(episode.rows)["judge"]) == {judge_code(judge)}


def test_a_truncated_episode_ends_in_the_last_tick_that_was_seen() -> None:
    _, [won] = collected(played(10, Outcome.SUCCESS))
    _, [lost] = collected(played(10, Outcome.TIMEOUT))
    assert len(won.rows) == 11
    assert len(lost.rows) == 10
    assert lost.rows[-1].is_end
    assert lost.rows[-1].tick == 9
    assert lost.rows[-1].obs is not lost.rows[-2].obs
    made = rows_to_transitions(LAYOUT.pack(lost.rows), LAYOUT, 1, 0.9)
    assert np.array_equal(made["next_base"][-1], lost.rows[-1].base)
    assert made["discount"][-1] == np.float32(0.9)


def test_ticks_without_an_element_have_a_hold_as_their_base() -> None:
    _, episodes = collected(full_session())
    late = LAYOUT.pack(episodes[1].rows)
    held = late[(late["tick"] >= 4) & (late["tick"] <= 6)]
    assert len(held) == 3
    assert not held["base"][:, :6].any()
    assert np.array_equal(held["base"][:, 6], held["executed"][:, 6])
    assert (held["source"] == Source.NOBODY).all()


def test_human_ticks_keep_what_the_base_proposed() -> None:
    _, episodes = collected(full_session())
    helped = LAYOUT.pack(episodes[3].rows)
    human = helped["source"] == Source.HUMAN
    assert list(np.flatnonzero(human)) == [4, 5, 6, 7]
    assert episodes[3].num_human_ticks == 4
    assert helped["base"][human].any(axis=1).all()
    assert (helped["base"][human] != helped["executed"][human]).any()
    assert not (helped["flags"] & DEMO).any()


def test_a_human_without_a_policy_deviates_from_a_hold_with_the_hand_as_it_was() -> None:
    session = Session()
    session.begin()
    for _ in range(4):
        session.tick()
    session.executed[1:] = [
        (sent_ns, replace(action, source=Driver.HUMAN, base=np.zeros(7), chunk_step=NO_STEP))
        for sent_ns, action in session.executed[1:]
    ]
    session.end(Outcome.SUCCESS)
    _, [episode] = collected(session)
    before, after = episode.rows[:2]
    assert not after.base[:6].any()
    assert after.base[6] == before.executed[6]
    assert after.source is Source.HUMAN


def test_lost_doubled_and_late_messages_are_counted() -> None:
    session = full_session()
    rows, episodes = collected(session)
    # Two ticks of the last episode, and the four at which the arm's state was unknown.
    assert rows.counters.lost_ticks == 6
    assert rows.counters.doubled == 1
    assert rows.counters.late == 0
    ticks = [row.tick for row in episodes[-1].rows]
    assert ticks != list(range(len(ticks)))
    assert ticks[-1] == 20

    rows.on_executed(session.executed[3][1])
    rows.on_observation(*session.observations[-3][1])
    assert rows.counters.late == 2
    assert rows.finish() == []


def test_no_sum_crosses_a_lost_tick() -> None:
    _, episodes = collected(full_session())
    array = LAYOUT.pack(episodes[-1].rows)
    made = rows_to_transitions(array, LAYOUT, 5, 1.0)
    gap = int(np.flatnonzero(np.diff(array["tick"]) > 1)[0])
    before = made["mc_return"][:gap]
    assert not before.any()
    assert made["mc_return"][-1] == 1.0


def test_an_episode_is_given_out_once_its_last_messages_had_their_time() -> None:
    session = played(5, Outcome.SUCCESS)
    rows = SessionRows(SPEC, grace_s=0.5)
    events = session.in_order()
    assert not tell(rows, events[:-1])
    ended_ns = session.states[-2][0]
    last = session.states[-1][1][1]
    assert rows.on_state(ended_ns + 499_999_999, last) == []
    assert len(rows.on_state(ended_ns + 500_000_000, last)) == 1
    assert rows.finish() == []


def test_an_episode_of_which_only_the_end_was_heard_is_settled_too() -> None:
    session = played(5, Outcome.SUCCESS)
    first = session.epoch
    session.begin()
    session.end(Outcome.ABORTED)
    # Whoever listens anew hears nothing of states but the end.
    session.states = [told for told in session.states if told[1][1].outcome is not None]
    session.now_ns += 10**9
    session.state(Phase.IDLE)
    rows = SessionRows(SPEC, after_epoch=first - 1)
    assert rows.settled_epoch == first - 1
    [episode] = tell(rows, session.in_order())
    assert episode.is_success
    assert rows.settled_epoch == first + 1
    assert rows.counters.empty == 1


def test_who_stops_gets_what_is_over_and_nothing_that_still_runs() -> None:
    session = played(5, Outcome.SUCCESS)
    session.states.pop()
    session.begin()
    for _ in range(4):
        session.tick()
    # The next one has begun on the grid of ticks, and the supervisor has not said so yet.
    session.states = [told for told in session.states if told[1][1].epoch < session.epoch]
    rows = SessionRows(SPEC)
    assert tell(rows, session.in_order()) == []
    [over] = rows.finish_ended()
    assert (over.is_success, len(over.rows)) == (True, 6)
    assert rows.finish_ended() == []
    [running] = rows.finish()
    assert running.state.outcome is None


def test_what_is_executed_after_the_verdict_is_not_part_of_the_episode() -> None:
    session = played(5, Outcome.SUCCESS)
    session.now_ns = session.states[-2][0] + PERIOD_NS // 2
    session.gate.open(session.epoch, session.now_ns - PERIOD_NS)
    session.tick()
    _, [episode] = collected(session)
    assert len(episode.rows) == 6


def test_a_fault_after_the_end_does_not_undo_a_success() -> None:
    session = played(5, Outcome.SUCCESS)
    session.states.pop()
    session.state(Phase.FAULT)
    _, [episode] = collected(session)
    assert episode.is_success


def test_a_heartbeat_whose_stamp_is_newer_than_the_end_does_not_undo_it() -> None:
    session = played(5, Outcome.SUCCESS)
    running = next(told for _, (_, told) in session.states if told.phase is Phase.RUNNING)
    ended_ns = session.states[-2][0]
    # Sent before the end; then the clock was set back.
    late = (ended_ns + PERIOD_NS, (ended_ns + PERIOD_NS, running))
    session.states.insert(-1, late)
    rows, [episode] = collected(session)
    assert episode.is_success
    assert len(episode.rows) == 6
    assert rows.counters.without_outcome == 0


def test_a_step_of_the_clock_breaks_the_episode_in_two() -> None:
    session = Session()
    session.begin()
    for number in range(10):
        session.tick()
        session.now_ns += 137_000_000 * (number == 4)
    session.end(Outcome.SUCCESS)
    rows, [episode] = collected(session)
    assert rows.counters.clock_steps == 1
    ticks = [row.tick for row in episode.rows]
    assert ticks[:5] == [0, 1, 2, 3, 4]
    assert ticks[5] > 5
    assert np.diff(ticks[5:]).tolist() == [1] * 5


def test_rows_can_be_stored_where_the_clock_learned_the_year_in_between() -> None:
    session = Session()
    session.begin()
    for number in range(10):
        session.tick()
        session.now_ns += (50 * 366 * 86_400_000 + 37) * 1_000_000 * (number == 4)
    session.end(Outcome.SUCCESS)
    _, [episode] = collected(session)
    assert episode.rows[-1].tick < 20


@pytest.mark.parametrize("num_ticks", [0, 1])
def test_too_short_to_learn_from(num_ticks: int) -> None:
    rows, episodes = collected(played(num_ticks, Outcome.TIMEOUT))
    assert not episodes
    assert rows.counters.empty == 1


def test_the_grasp_critic_gets_its_penalty() -> None:
    rows = SessionRows(SPEC, make_reward=lambda: make_reward(grasp_penalty=-0.1))
    session = played(40, Outcome.SUCCESS)
    [episode] = feed(rows, session.in_order())
    layout = session_layout(
        LAYOUT.obs_dim, LAYOUT.obs_version, reward=make_reward(grasp_penalty=-0.1)
    )
    array = layout.pack(episode.rows)
    penalties = array["rewards"][:, 1]
    assert (penalties < 0.0).any()
    assert penalties[0] == 0.0


def test_nothing_was_executed_beyond_the_range() -> None:
    array = packed(collected(full_session(3))[1])
    assert np.abs(array["base"]).max() <= 1.0
    assert np.abs(array["executed"]).max() <= 1.0
