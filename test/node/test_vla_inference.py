# SPDX-License-Identifier: Apache-2.0
"""The inference node on a real graph: when it asks, what it answers, and what it survives."""

from __future__ import annotations

import numpy as np
import pytest
from node.cell_stub import CellStub, P
from node.policy_stub import PolicyStub
from rclpy.parameter import Parameter

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.policies.protocol import (
    POLICY_MODULES,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.codecs import decode_chunk
from vla_rl_ros.ros.nodes.vla_inference import VlaInferenceNode

pytestmark = pytest.mark.ros


@pytest.fixture
def cell(executor, monkeypatch):
    monkeypatch.setitem(POLICY_MODULES, "stub", "node.policy_stub")
    made = CellStub(executor, ("policy/chunk", "policy/path", "/diagnostics"))
    made.cameras = {"wrist", "front"}
    return made


@pytest.fixture
def vla(cell):
    node = VlaInferenceNode({"autostart": False, "policy": "stub", "settings.horizon": 6})
    cell.bring_up(node)
    yield node
    PolicyStub.newest.may_answer.set()
    node.trigger_deactivate()


def chunks(cell):
    return [decode_chunk(message, P) for message in cell.heard["policy/chunk"]]


def tick(cell, stamp_ns: int, *, chunk_id: int = 1, step: int = 1) -> int:
    """One executed tick, as the gate reports it."""
    row = ExecutedAction(
        stamp_ns=stamp_ns,
        epoch=cell.episode.epoch,
        source=Source.HOLD if step == NO_STEP else Source.VLA,
        executed=np.full(7, 0.002),
        base=np.zeros(7),
        residual=np.zeros(7),
        chunk_id=chunk_id,
        chunk_step=step,
    )
    cell.send("action/executed", encode_executed(row))
    return stamp_ns


def run_ticks(cell, predicate, **row: object) -> list[int]:
    """Ticks on the grid until something holds; returns their stamps."""
    stamps: list[int] = []

    def check() -> bool:
        now_ns = cell.now_ns()
        if not stamps or now_ns - stamps[-1] >= P:
            stamps.append(tick(cell, stamps[-1] + P if stamps else now_ns, **row))
        return predicate()

    assert cell.until(check)
    return stamps


def test_a_chunk_waits_before_the_episode_runs_and_is_kept_fresh(cell, vla) -> None:
    cell.enter(Phase.READY)
    assert cell.until(lambda: len(chunks(cell)) > 2)
    first, second, third = chunks(cell)[:3]
    assert first.epoch == 1
    assert first.actions.shape == (6, 7)
    assert first.stamp_ns < second.stamp_ns < third.stamp_ns
    assert first.chunk_id < second.chunk_id < third.chunk_id
    assert PolicyStub.newest.num_resets == 1


def test_outside_an_episode_the_policy_is_not_asked(cell, vla) -> None:
    for phase in (Phase.IDLE, Phase.RESETTING, Phase.ENDED):
        cell.enter(phase)
        tick(cell, cell.now_ns())
    cell.enter(Phase.READY)
    ready_ns = cell.now_ns()
    assert cell.until(lambda: chunks(cell))
    assert all(seen.stamp_ns > ready_ns - P for seen in PolicyStub.newest.seen)


def test_each_executed_tick_asks_with_its_own_stamp(cell, vla) -> None:
    cell.enter(Phase.RUNNING)
    num_before = len(chunks(cell))
    stamps = run_ticks(cell, lambda: len(chunks(cell)) > num_before + 4)
    on_grid = [chunk for chunk in chunks(cell) if chunk.stamp_ns in stamps]
    assert len(on_grid) >= 4
    seen = next(s for s in PolicyStub.newest.seen if s.stamp_ns == on_grid[-1].stamp_ns)
    assert seen.instruction == "lift the red cube"
    assert seen.task == "lift"
    assert seen.state.shape == (20,)
    assert np.allclose(seen.state[:3], [0.5, 0.0, 0.3])
    assert set(seen.images) == {"wrist", "front"}
    assert seen.images["front"].shape == (8, 8, 3)
    assert np.array_equal(seen.last_action, np.full(7, 0.002))
    assert seen.objects is None


def test_execute_ticks_sets_how_often_the_policy_is_asked_live(cell, vla) -> None:
    assert vla.set_parameters([Parameter("execute_ticks", value=3)])[0].successful
    cell.enter(Phase.RUNNING)
    num_before = len(chunks(cell))
    stamps = run_ticks(cell, lambda: len(chunks(cell)) > num_before + 3)
    asked = [chunk.stamp_ns for chunk in chunks(cell) if chunk.stamp_ns in stamps]
    assert np.all(np.diff(asked) == 3 * P)


def test_the_path_starts_at_the_measured_pose(cell, vla) -> None:
    cell.enter(Phase.READY)
    assert cell.until(lambda: cell.heard["policy/path"])
    path = cell.heard["policy/path"][0]
    assert path.header.frame_id == "fr3_link0"
    assert len(path.poses) == 7
    first, last = path.poses[0].pose.position, path.poses[-1].pose.position
    assert first.x == pytest.approx(0.5)
    assert last.x - first.x == pytest.approx(6 * 1e-4)
    stamps = [from_stamp(pose.header.stamp) for pose in path.poses]
    assert set(np.diff(stamps)) == {P}


@pytest.mark.parametrize("source", ["camera/wrist/image", "arm/tcp_pose"])
def test_stale_inputs_give_no_chunk_and_are_named(cell, vla, source: str) -> None:
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    if source == "arm/tcp_pose":
        cell.is_sensing = False
    else:
        cell.cameras.remove("wrist")
    counter = f"rejected.stale.{source}"
    assert cell.until(lambda: vla.diag.counted(counter) > 1)
    assert cell.until(lambda: cell.said("/vla_inference", source))
    num_asked, num_stale = len(PolicyStub.newest.seen), vla.diag.counted(counter)
    assert cell.until(lambda: vla.diag.counted(counter) > num_stale + 2)
    assert len(PolicyStub.newest.seen) == num_asked
    cell.is_sensing = True
    cell.cameras.add("wrist")
    assert cell.until(lambda: len(PolicyStub.newest.seen) > num_asked)


def test_a_failing_model_is_an_error_without_a_chunk_and_is_asked_again(cell, vla) -> None:
    PolicyStub.newest.error = RuntimeError("out of memory")
    cell.enter(Phase.READY)
    assert cell.until(lambda: vla.diag.counted("inference_errors") > 1)
    assert cell.until(lambda: cell.said("/vla_inference", "out of memory"))
    assert not chunks(cell)
    PolicyStub.newest.error = None
    assert cell.until(lambda: chunks(cell))
    assert cell.until(lambda: cell.said("/vla_inference", "active"))


def test_a_chunk_of_the_wrong_shape_is_an_error(cell, vla) -> None:
    PolicyStub.newest.wrong_shape = True
    cell.enter(Phase.READY)
    assert cell.until(lambda: vla.diag.counted("inference_errors") > 0)
    assert not chunks(cell)


def test_ticks_go_on_while_the_model_thinks_and_only_one_question_waits(cell, vla) -> None:
    stub = PolicyStub.newest
    stub.may_answer.clear()
    cell.enter(Phase.RUNNING)
    run_ticks(cell, lambda: len(stub.seen) == 1)
    ticks = run_ticks(cell, lambda: cell.now_ns() > stub.seen[0].stamp_ns + 5 * P)
    assert len(ticks) >= 3
    assert len(stub.seen) == 1
    stub.may_answer.set()
    run_ticks(cell, lambda: len(stub.seen) > 2)


def test_an_answer_for_the_last_episode_is_discarded(cell, vla) -> None:
    stub = PolicyStub.newest
    stub.may_answer.clear()
    cell.enter(Phase.READY)
    assert cell.until(lambda: stub.seen)
    cell.enter(Phase.RESETTING, epoch=2)
    assert cell.until(lambda: vla._requests.epoch == 2)  # noqa: SLF001
    stub.may_answer.set()
    assert cell.until(lambda: vla.diag.counted("answers_of_other_epochs") == 1)
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: chunks(cell))
    assert chunks(cell)[0].epoch == 2
    assert stub.num_resets == 2


def test_prefix_covers_the_measured_delay_and_starts_with_what_was_executed(cell, vla) -> None:
    cell.enter(Phase.RUNNING)
    stub = PolicyStub.newest
    run_ticks(cell, lambda: len(stub.seen) > 4)
    prefix = stub.prefixes[-1]
    assert prefix is not None
    assert prefix.shape == (1, 7)
    assert chunks(cell)[-1].delay_ticks == 1
    assert np.array_equal(prefix[0], np.full(7, 0.002))


def test_injected_delay_postpones_the_answer(cell, vla) -> None:
    assert vla.set_parameters([Parameter("extra_delay_s", value=0.3)])[0].successful
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    assert cell.now_ns() - chunks(cell)[0].stamp_ns >= 300_000_000


def test_a_hold_row_asks_at_once(cell, vla) -> None:
    assert vla.set_parameters([Parameter("execute_ticks", value=50)])[0].successful
    cell.enter(Phase.RUNNING)
    num_before = len(PolicyStub.newest.seen)
    run_ticks(cell, lambda: len(PolicyStub.newest.seen) > num_before + 3, step=NO_STEP)


def test_unknown_policies_and_missing_cameras_are_refused_by_name(executor) -> None:
    node = VlaInferenceNode({"autostart": False, "policy": "oracle"})
    executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    assert not node.is_running
    with pytest.raises(ConfigError, match="'oracle' is unknown; known: scripted, still"):
        make_policy("oracle", PolicySettings(), PolicyEnvironment())


def test_still_policy_stands_still_and_keeps_the_prefix() -> None:
    policy = make_policy("still", PolicySettings(horizon=4), PolicyEnvironment(cameras=("a",)))
    assert policy.cameras == ("a",)
    assert not policy.needs_objects
    policy.reset()
    observation = PolicyObservation(
        stamp_ns=0, images={}, state=np.zeros(20), instruction="", task=""
    )
    prefix = np.full((2, 7), 0.01)
    actions = policy.infer(observation, prefix)
    assert actions.shape == (policy.horizon, 7)
    assert np.array_equal(actions[:2], prefix)
    assert np.array_equal(actions[2:, :6], np.zeros((2, 6)))
