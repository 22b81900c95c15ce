# SPDX-License-Identifier: Apache-2.0
"""What the actor plays, and which chunks it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.timing_cases import START, P, chunk, row

from vla_rl_ros.core.chunking import Verdict
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, Source
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.types import ActionChunk, Mode


def at(tick: int) -> int:
    return START + tick * P


def plan(epoch: int = 1) -> ChunkPlan:
    made = ChunkPlan(P)
    made.reset(epoch)
    return made


def playing(num_ticks: int, **first: object) -> ChunkPlan:
    """A plan that has played the first elements of a chunk of tick 0."""
    made = plan()
    assert made.offer(chunk(START, **first), START) is Verdict.ACCEPTED
    for tick in range(num_ticks):
        assert made.play(at(tick)) is not None
    return made


def test_each_tick_plays_its_own_element_and_none_after_the_last() -> None:
    made = playing(0)
    for tick in range(8):
        step = made.play(at(tick))
        assert step is not None
        assert (step.index, step.action[0]) == (tick, tick)
    assert made.play(at(8)) is None
    assert made.remaining(at(8)) == 0


@pytest.mark.parametrize("mode", [Mode.NAIVE, Mode.RTC, Mode.WEIGHTED, Mode.ENSEMBLE])
def test_other_modes_play_a_late_chunk_from_its_own_index(mode: Mode) -> None:
    made = playing(5, mode=mode)
    assert made.offer(chunk(at(1), chunk_id=2, mode=mode), at(5)) is Verdict.ACCEPTED
    step = made.play(at(5))
    assert step is not None
    assert (step.index, step.chunk.chunk_id) == (4, 2)
    assert step.action[0] == pytest.approx(5.0)


def test_locked_chunk_is_dropped_a_tick_after_its_promise_and_taken_until_then() -> None:
    for next_tick, verdict in ((4, Verdict.ACCEPTED), (5, Verdict.LATER_THAN_PROMISED)):
        made = playing(next_tick)
        offered = chunk(at(1), chunk_id=2, delay_ticks=3)
        assert made.offer(offered, at(next_tick)) is verdict
        step = made.play(at(next_tick))
        assert step is not None
        assert step.chunk.chunk_id == (2 if verdict is Verdict.ACCEPTED else 1)


def test_a_chunk_that_repeats_something_else_is_dropped() -> None:
    offered = chunk(at(1), chunk_id=2, delay_ticks=3, mark=1e-9)
    assert playing(2).offer(offered, at(2)) is Verdict.BROKEN_PROMISE
    assert playing(4).offer(offered, at(4)) is Verdict.BROKEN_PROMISE


def test_a_promised_tick_that_was_held_breaks_the_promise() -> None:
    made = playing(4)
    made.on_executed(row(at(2), source=Source.HOLD))
    assert made.offer(chunk(at(1), chunk_id=2, delay_ticks=3), at(4)) is Verdict.BROKEN_PROMISE
    skipped = playing(2)
    skipped.hold(at(2))
    skipped.play(at(3))
    assert skipped.offer(chunk(at(1), chunk_id=2, delay_ticks=3), at(4)) is Verdict.BROKEN_PROMISE


def test_a_held_tick_that_the_new_chunk_repeats_brings_the_old_plan_back() -> None:
    made = playing(3)
    offered = chunk(at(1), chunk_id=2, delay_ticks=4)
    assert made.offer(offered, at(3)) is Verdict.ACCEPTED
    assert made.play(at(3)).chunk.chunk_id == 2
    assert made.on_executed(row(at(3), source=Source.HOLD)) is Verdict.BROKEN_PROMISE
    assert made.play(at(4)).chunk.chunk_id == 1
    # Before and behind what it repeats, a held tick is none of its business.
    for held in (1, 5):
        other = playing(3)
        other.offer(chunk(at(1), chunk_id=2, delay_ticks=4), at(3))
        assert other.on_executed(row(at(held), source=Source.HOLD)) is None


def test_a_hold_that_was_promised_behind_the_end_of_the_plan_comes_true() -> None:
    made = playing(4, horizon=4)
    assert made.play(at(4)) is None
    offered = chunk(at(2), chunk_id=2, delay_ticks=4)
    actions = offered.actions.copy()
    actions[2:4] = 0.0
    padded = replace(offered, actions=actions)
    assert made.offer(padded, at(5)) is Verdict.ACCEPTED
    assert made.play(at(6)).index == 4


def test_the_first_chunk_starts_with_element_0_however_long_it_waited() -> None:
    made = plan()
    assert made.offer(chunk(START, delay_ticks=0), at(3)) is Verdict.ACCEPTED
    newer = chunk(at(2), chunk_id=2, delay_ticks=0)
    assert made.offer(newer, at(4)) is Verdict.ACCEPTED
    assert made.remaining(at(9)) == 8
    for index in range(8):
        step = made.play(at(9 + index))
        assert step is not None
        assert (step.index, step.chunk.chunk_id) == (index, 2)
    assert made.play(at(17)) is None


def test_a_chunk_that_waits_too_long_is_not_played() -> None:
    made = plan()
    assert made.offer(chunk(START, delay_ticks=0), at(1)) is Verdict.ACCEPTED
    assert made.play(at(17)) is None
    assert made.offer(chunk(at(1), delay_ticks=0), at(17)) is Verdict.TOO_LATE


def test_an_unconditioned_chunk_never_interrupts_a_plan_in_lock_mode() -> None:
    offered = chunk(at(1), chunk_id=2, delay_ticks=0)
    assert playing(2).offer(offered, at(2)) is Verdict.LATER_THAN_PROMISED
    assert playing(2, mode=Mode.NAIVE).offer(
        chunk(at(1), chunk_id=2, delay_ticks=0, mode=Mode.NAIVE), at(2)
    ) is (Verdict.ACCEPTED)


def test_a_chunk_from_before_the_motion_does_not_start_at_rest() -> None:
    made = playing(4, horizon=4)
    made.play(at(4))
    # Observed at tick 2, while the arm moved: it may not start over at tick 5.
    assert made.offer(chunk(at(2), chunk_id=2, delay_ticks=0), at(5)) is (
        Verdict.LATER_THAN_PROMISED
    )
    assert made.offer(chunk(at(4), chunk_id=3, delay_ticks=0), at(6)) is Verdict.ACCEPTED
    assert made.play(at(6)).index == 0


@pytest.mark.parametrize(
    ("offered", "next_tick", "verdict"),
    [
        (chunk(START, epoch=2), 0, Verdict.OTHER_EPOCH),
        (chunk(START, epoch=0), 0, Verdict.OTHER_EPOCH),
        (chunk(START, period_ns=P // 2), 0, Verdict.BAD_PERIOD),
        (chunk(START, mode=Mode.NAIVE), 8, Verdict.TOO_LATE),
        (chunk(START, mode=Mode.NAIVE), 7, Verdict.ACCEPTED),
        (chunk(START), 2, Verdict.LATER_THAN_PROMISED),
        (chunk(START), 1, Verdict.ACCEPTED),
        (chunk(START), -1, Verdict.FROM_FUTURE),
    ],
)
def test_chunks_that_cannot_be_played_are_dropped_with_the_reason(
    offered: ActionChunk, next_tick: int, verdict: Verdict
) -> None:
    made = plan()
    assert made.offer(offered, at(next_tick)) is verdict
    assert (made.remaining(at(next_tick)) > 0) is (verdict is Verdict.ACCEPTED)


def test_an_older_observation_never_replaces_a_newer_one_whatever_the_ids_say() -> None:
    made = plan()
    made.offer(chunk(at(1), chunk_id=900, mode=Mode.NAIVE), at(2))
    older = chunk(START, chunk_id=901, mode=Mode.NAIVE)
    assert made.offer(older, at(2)) is Verdict.OLDER
    assert made.offer(chunk(at(1), chunk_id=902, mode=Mode.NAIVE), at(2)) is Verdict.OLDER
    # A policy process that was started again counts from one.
    assert made.offer(chunk(at(2), chunk_id=1, mode=Mode.NAIVE), at(3)) is Verdict.ACCEPTED


def test_reset_forgets_the_chunk_and_refuses_its_epoch() -> None:
    made = playing(1)
    made.reset(2)
    assert made.play(at(1)) is None
    assert made.offer(chunk(at(1)), at(2)) is Verdict.OTHER_EPOCH


def test_a_human_ends_the_plan_and_what_was_asked_before() -> None:
    made = playing(3)
    assert made.on_executed(row(at(2), source=Source.HUMAN)) is Verdict.BEFORE_TAKEOVER
    assert made.on_executed(row(at(3), source=Source.HUMAN)) is None
    assert made.on_executed(row(at(9), source=Source.HUMAN, epoch=7)) is None
    assert made.play(at(3)) is None
    assert made.offer(chunk(at(2), chunk_id=2, delay_ticks=2), at(4)) is Verdict.BEFORE_TAKEOVER
    assert made.offer(chunk(at(4), chunk_id=3, delay_ticks=0), at(6)) is Verdict.ACCEPTED
    assert made.play(at(6)).index == 0


@pytest.mark.parametrize("is_human", [False, True])
def test_a_clock_set_back_begins_the_plan_anew(is_human: bool) -> None:
    made = playing(3)
    if is_human:
        made.on_executed(row(at(2), source=Source.HUMAN))
    assert made.play(at(-600)) is None
    assert made.offer(chunk(at(3), chunk_id=2), at(-599)) is Verdict.FROM_FUTURE
    fresh = chunk(at(-600), chunk_id=3, delay_ticks=0)
    assert made.offer(fresh, at(-599)) is Verdict.ACCEPTED
    assert made.play(at(-599)).index == 0


def test_a_clock_set_back_before_the_first_tick_does_not_starve_the_episode() -> None:
    made = playing(0)
    assert made.play(at(-600)) is None
    fresh = chunk(at(-600), chunk_id=2, delay_ticks=0)
    assert made.offer(fresh, at(-599)) is Verdict.ACCEPTED
    assert made.play(at(-599)).index == 0


def test_a_tick_that_is_only_early_leaves_the_plan_alone() -> None:
    made = playing(3)
    assert made.play(at(2) - P) is not None


def test_who_drives_when_the_clock_is_set_back_still_voids_what_was_seen_before() -> None:
    made = playing(3)
    made.on_executed(row(at(-600), source=Source.HUMAN))
    assert made.play(at(-600)) is None
    seen_before = chunk(at(-600), chunk_id=2, delay_ticks=0)
    assert made.offer(seen_before, at(-599)) is Verdict.BEFORE_TAKEOVER


def test_a_plan_that_is_only_watched_goes_on_beside_a_human() -> None:
    made = ChunkPlan(P, is_shadow=True)
    made.reset(1)
    assert made.offer(chunk(START), START) is Verdict.ACCEPTED
    for tick in range(4):
        step = made.play(at(tick))
        assert step is not None
        assert step.index == tick
        # With the proposal of the tick, and without one that came too late.
        changes = {} if tick % 2 else {"step": NO_STEP}
        assert made.on_executed(row(at(tick), source=Source.HUMAN, **changes)) is None
    assert made.offer(chunk(at(3), chunk_id=2, delay_ticks=1), at(4)) is Verdict.ACCEPTED


def test_ensemble_weighs_every_chunk_that_covers_the_tick_oldest_first() -> None:
    made = playing(1, mode=Mode.ENSEMBLE, horizon=4)
    for tick in (1, 2):
        made.offer(
            chunk(at(tick), chunk_id=tick + 1, mode=Mode.ENSEMBLE, horizon=4, mark=float(tick)),
            at(tick + 1),
        )
        made.play(at(tick + 1))
    weights = np.exp(-0.01 * np.arange(3))
    assert made.play(at(3)).action[1] == pytest.approx(weights @ [0.0, 1.0, 2.0] / weights.sum())
    # The first chunk has ended.
    assert made.play(at(4)).action[1] == pytest.approx(
        weights[:2] @ [1.0, 2.0] / weights[:2].sum()
    )


def test_weighted_blends_what_both_cover_and_takes_the_new_one_behind() -> None:
    made = playing(2, mode=Mode.WEIGHTED, horizon=4)
    offered = chunk(at(1), chunk_id=2, mode=Mode.WEIGHTED, horizon=4, mark=1.0)
    assert made.offer(offered, at(2)) is Verdict.ACCEPTED
    blended = [made.play(at(tick)).action[1] for tick in (2, 3, 4)]
    assert blended == pytest.approx([0.7, 0.7, 1.0])


def test_the_seam_is_at_the_first_element_of_its_own() -> None:
    made = playing(3)
    offered = chunk(at(1), chunk_id=2, delay_ticks=4)
    assert made.offer(offered, at(3)) is Verdict.ACCEPTED
    assert made.seam is not None
    assert made.seam.tick_ns == at(5)
    assert made.seam.old[0] == made.seam.new[0] == 5.0
    naive = playing(3, mode=Mode.NAIVE)
    naive.offer(chunk(at(1), chunk_id=2, mode=Mode.NAIVE, mark=0.5), at(3))
    assert naive.seam.tick_ns == at(3)
    assert naive.seam.new[1] - naive.seam.old[1] == 0.5


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ConfigError):
        ChunkPlan(0)
