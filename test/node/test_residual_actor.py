# SPDX-License-Identifier: Apache-2.0
"""The owner of the tick on a real graph: it plays each element in its own tick, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from node.cell_stub import CellStub, P

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.core.types import Mode
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.ros.action_codecs import (
    decode_observation,
    decode_policy_action,
    encode_executed,
)
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.nodes.residual_actor import ResidualActorNode

pytestmark = pytest.mark.ros


@pytest.fixture
def cell(executor):
    return CellStub(executor, ("policy/action", "policy/observation", "/diagnostics"))


@pytest.fixture
def actor(cell):
    node = ResidualActorNode({"autostart": False})
    cell.bring_up(node)
    return node


def actions(cell):
    return [decode_policy_action(message) for message in cell.heard["policy/action"]]


def start_with_chunk(cell, actor, **chunk: object):
    cell.enter(Phase.READY)
    accepted = actor.diag.counted("chunks.accepted")
    sent = []

    def is_accepted() -> bool:
        if not sent or cell.now_ns() - sent[-1].stamp_ns > P:
            sent.append(cell.chunk(chunk_id=len(sent) + 1, **chunk))
        return actor.diag.counted("chunks.accepted") > accepted

    assert cell.until(is_accepted)
    cell.enter(Phase.RUNNING)
    return sent[-1]


def test_each_tick_plays_the_element_that_belongs_to_it(cell, actor) -> None:
    chunk = start_with_chunk(cell, actor, horizon=8)
    assert cell.until(lambda: len(actions(cell)) > 4)
    for action in actions(cell):
        index = (2 * (action.stamp_ns - chunk.stamp_ns) + P) // (2 * P)
        assert action.chunk_step == index
        assert action.base.tobytes() == chunk.actions[index].tobytes()
        assert action.residual.tobytes() == np.zeros(7).tobytes()
        assert (action.chunk_id, action.epoch) == (chunk.chunk_id, 1)
    assert set(np.diff([action.stamp_ns for action in actions(cell)])) == {P}


def test_observation_and_action_of_a_tick_carry_one_stamp(cell, actor) -> None:
    start_with_chunk(cell, actor)
    assert cell.until(lambda: len(cell.heard["policy/observation"]) > 2)
    seen = {from_stamp(m.header.stamp) for m in cell.heard["policy/observation"]}
    assert cell.until(lambda: seen <= {action.stamp_ns for action in actions(cell)})
    observation = decode_observation(cell.heard["policy/observation"][0])
    assert observation.names == (*STATE_CHANNELS, "chunk.phase")
    assert observation.version == ActorObservationSpec().version
    assert np.allclose(observation.vector[:7], [0.5, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
    assert observation.vector[19] == np.float32(0.08)
    first = actions(cell)[0]
    assert observation.vector[20] == np.float32(first.chunk_step / 5)


def test_a_chunk_that_ends_is_an_underflow_and_nothing_is_proposed(cell, actor) -> None:
    chunk = start_with_chunk(cell, actor, horizon=4)
    assert cell.until(lambda: actor.diag.counted("underflows") > 2)
    assert cell.until(lambda: len(actions(cell)) > 0)
    assert cell.said("/residual_actor", "no element") or cell.until(
        lambda: cell.said("/residual_actor", "no element")
    )
    # A new chunk is the sentinel: between the last element and its first, there was nothing.
    last_ns = actions(cell)[-1].stamp_ns
    assert last_ns <= chunk.stamp_ns + 3 * P + P // 2
    newer = cell.chunk(chunk_id=99)
    assert cell.until(lambda: actions(cell)[-1].chunk_id == 99)
    between = [a for a in actions(cell) if last_ns < a.stamp_ns < newer.stamp_ns - P]
    assert between == []


def test_outside_running_nothing_is_proposed(cell, actor) -> None:
    chunk = start_with_chunk(cell, actor, horizon=20)
    assert cell.until(lambda: len(actions(cell)) > 1)
    cell.enter(Phase.ENDED)
    ticks = actor.diag.counted("ticks")
    accepted = actor.diag.counted("chunks.accepted")
    assert cell.until(
        lambda: (
            cell.chunk(chunk_id=50, horizon=20) is not None
            and actor.diag.counted("chunks.accepted") > accepted + 2
        )
    )
    assert actor.diag.counted("ticks") <= ticks + 1
    assert chunk.epoch == 1


def test_chunks_of_other_epochs_are_dropped_and_counted(cell, actor) -> None:
    start_with_chunk(cell, actor)
    cell.enter(Phase.RUNNING, epoch=2)
    switch_ns = cell.now_ns()
    foreign = encode_chunk(replace(cell.make_chunk(), epoch=1))
    assert cell.until(
        lambda: cell.send("policy/chunk", foreign) or actor.diag.counted("chunks.other_epoch") > 0
    )
    assert cell.until(lambda: cell.chunk() and actions(cell) and actions(cell)[-1].epoch == 2)
    assert not [a for a in actions(cell) if a.epoch == 1 and a.stamp_ns > switch_ns + P]


def play_one(cell, actor, **changes: object):
    """A chunk of which the first elements have been played."""
    cell.enter(Phase.RUNNING)
    first = replace(cell.make_chunk(horizon=40), delay_ticks=0, **changes)
    cell.send("policy/chunk", encode_chunk(first))
    assert cell.until(lambda: len(actions(cell)) > 4)
    return first


def continued(cell, first, *, delay_ticks: int, mark: float = 0.0):
    """A chunk observed at the newest tick that repeats the plan, and then something else."""
    newest = actions(cell)[-1]
    base = first.actions[newest.chunk_step :].copy()
    base[delay_ticks:, 1] = 2e-3
    base[1:delay_ticks, 1] += mark
    return replace(
        first,
        chunk_id=first.chunk_id + 1,
        stamp_ns=newest.stamp_ns,
        delay_ticks=delay_ticks,
        actions=base,
    )


def test_a_chunk_asked_for_at_rest_starts_with_its_first_element(cell, actor) -> None:
    cell.enter(Phase.READY)
    first = replace(cell.make_chunk(horizon=8), delay_ticks=0)
    cell.send("policy/chunk", encode_chunk(first))
    assert cell.until(lambda: actor.diag.counted("chunks.accepted") == 1)
    assert cell.until(lambda: cell.now_ns() - first.stamp_ns > 3 * P)
    cell.enter(Phase.RUNNING)
    assert cell.until(lambda: len(actions(cell)) > 2)
    start_ns = actions(cell)[0].stamp_ns
    assert actions(cell)[0].chunk_step == 0
    for action in actions(cell):
        assert action.stamp_ns == start_ns + action.chunk_step * P


def test_a_chunk_that_repeats_the_plan_takes_over_without_a_step(cell, actor) -> None:
    first = play_one(cell, actor)
    sent = []

    def is_taken() -> bool:
        # A busy machine may be late for one.
        if not sent or actions(cell)[-1].stamp_ns > sent[-1].stamp_ns + 2 * P:
            sent.append(continued(cell, first, delay_ticks=4))
            cell.send("policy/chunk", encode_chunk(sent[-1]))
        return actor.diag.counted("chunks.accepted") == 2

    assert cell.until(is_taken)
    assert cell.until(lambda: actions(cell)[-1].base[1] == 2e-3)
    second = sent[-1]
    for action in actions(cell):
        if action.chunk_id == second.chunk_id:
            assert action.base.tobytes() == second.actions[action.chunk_step].tobytes()


def test_a_chunk_later_than_promised_is_dropped_and_the_old_one_played_on(cell, actor) -> None:
    first = play_one(cell, actor)
    late = continued(cell, first, delay_ticks=2)
    assert cell.until(lambda: actions(cell)[-1].stamp_ns >= late.stamp_ns + 2 * P)
    cell.send("policy/chunk", encode_chunk(late))
    assert cell.until(lambda: actor.diag.counted("chunks.later_than_promised") == 1)
    num_heard = len(actions(cell))
    assert cell.until(lambda: len(actions(cell)) > num_heard + 3)
    assert {action.chunk_id for action in actions(cell)} == {first.chunk_id}
    assert actor.diag.counted("underflows") == 0


def test_a_chunk_that_repeats_something_else_is_dropped(cell, actor) -> None:
    first = play_one(cell, actor)
    wrong = continued(cell, first, delay_ticks=4, mark=1e-12)
    cell.send("policy/chunk", encode_chunk(wrong))
    assert cell.until(lambda: actor.diag.counted("chunks.broken_promise") == 1)


def test_the_chunk_says_how_it_is_executed(cell, actor) -> None:
    first = play_one(cell, actor, mode=Mode.NAIVE)
    late = replace(continued(cell, first, delay_ticks=1), mode=Mode.NAIVE)
    assert cell.until(lambda: actions(cell)[-1].stamp_ns >= late.stamp_ns + 3 * P)
    cell.send("policy/chunk", encode_chunk(late))
    assert cell.until(lambda: actions(cell)[-1].chunk_id == late.chunk_id)
    played = next(a for a in actions(cell) if a.chunk_id == late.chunk_id)
    assert played.chunk_step >= 4


def test_a_human_who_drives_ends_the_plan(cell, actor) -> None:
    play_one(cell, actor)
    row = ExecutedAction(
        stamp_ns=actions(cell)[-1].stamp_ns,
        epoch=1,
        source=Source.HUMAN,
        executed=np.zeros(7),
        base=np.zeros(7),
        residual=np.zeros(7),
        chunk_id=1,
        chunk_step=NO_STEP,
    )
    cell.send("action/executed", encode_executed(row))
    assert cell.until(lambda: actor.diag.counted("takeovers") == 1)
    assert cell.until(lambda: actor.diag.counted("underflows") > 2)
    stale = replace(cell.make_chunk(), stamp_ns=row.stamp_ns - P)
    cell.send("policy/chunk", encode_chunk(stale))
    assert cell.until(lambda: actor.diag.counted("chunks.before_takeover") == 1)


@pytest.mark.parametrize("period_s", [0.02, 0.05])
def test_fast_control_plays_every_element_in_its_tick(executor, period_s: float) -> None:
    cell = CellStub(executor, ("policy/action", "/diagnostics"))
    node = ResidualActorNode({"autostart": False, "control_period_s": period_s})
    cell.bring_up(node)
    period_ns = round(period_s * 1e9)
    cell.enter(Phase.RUNNING)
    made = replace(cell.make_chunk(horizon=20), period_ns=period_ns, delay_ticks=0)
    cell.send("policy/chunk", encode_chunk(made))
    assert cell.until(lambda: actions(cell) and actions(cell)[-1].chunk_step >= 15)
    for action in actions(cell):
        first_ns = actions(cell)[0].stamp_ns
        assert action.stamp_ns == first_ns + action.chunk_step * period_ns


def hostile(chunk, how: str):
    late = replace(chunk, stamp_ns=chunk.stamp_ns - 10**9)
    message = encode_chunk(late if how == "too_late" else chunk)
    if how == "not_finite":
        message.points[1].positions[0] = float("nan")
    elif how == "unknown_channel":
        message.joint_names = [*message.joint_names[1:], message.joint_names[0]]
    elif how == "wrong_length":
        message.points[2].positions = [0.0]
    elif how == "wrong_frame":
        message.header.frame_id = "map"
    elif how == "bad_period":
        message.points[1].time_from_start.nanosec = 1
    elif how == "from_future":
        message.header.stamp.sec += 5
    return message


@pytest.mark.parametrize(
    ("how", "counter"),
    [
        ("not_finite", "rejected.chunk.not_finite"),
        ("unknown_channel", "rejected.chunk.unknown_channel"),
        ("wrong_length", "rejected.chunk.wrong_length"),
        ("wrong_frame", "rejected.chunk.wrong_frame"),
        ("bad_period", "rejected.chunk.bad_period"),
        ("too_late", "chunks.too_late"),
        ("from_future", "chunks.from_future"),
    ],
)
def test_hostile_chunks_are_dropped_whole_and_counted(cell, actor, how: str, counter: str) -> None:
    cell.enter(Phase.READY)

    assert cell.until(
        lambda: (
            cell.send("policy/chunk", hostile(cell.make_chunk(), how))
            or actor.diag.counted(counter) > 0
        )
    )
    assert actor.diag.counted("chunks.accepted") == 0


def test_stale_state_proposes_nothing_and_says_why(cell, actor) -> None:
    cell.is_sensing = False
    start_with_chunk(cell, actor, horizon=50)
    assert cell.until(lambda: actor.diag.counted("rejected.stale.arm/tcp_pose") > 2)
    num_heard = len(actions(cell))
    stale = actor.diag.counted("rejected.stale.arm/tcp_pose")
    assert cell.until(lambda: actor.diag.counted("rejected.stale.arm/tcp_pose") > stale + 2)
    assert len(actions(cell)) == num_heard
    assert cell.until(lambda: cell.said("/residual_actor", "arm/tcp_pose"))
    cell.is_sensing = True
    assert cell.until(lambda: len(actions(cell)) > num_heard)


def test_actor_can_be_stopped_and_configured_again(cell, actor) -> None:
    actor.trigger_deactivate()
    actor.trigger_cleanup()
    actor.trigger_configure()
    actor.trigger_activate()
    start_with_chunk(cell, actor)
    assert cell.until(lambda: len(actions(cell)) > 1)
