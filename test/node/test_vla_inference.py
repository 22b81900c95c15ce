# SPDX-License-Identifier: Apache-2.0
"""The inference node on a real graph: when it asks, what it answers, and what it survives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from node.cell_stub import HOME, CellStub, P
from node.policy_stub import PolicyStub
from rclpy.parameter import Parameter

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import ConfigError, InferenceError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import ArmState, Mode, Pose, Twist, Wrench
from vla_rl_ros.policies.protocol import (
    POLICY_MODULES,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.chunk_codec import decode_chunk
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
    node.trigger_shutdown()


def chunks(cell):
    return [decode_chunk(message, P) for message in cell.heard["policy/chunk"]]


class ActorStub:
    """Actor and gate of the cell: plays what the node publishes, one tick per period."""

    def __init__(self, cell) -> None:
        self.cell = cell
        self.plan = ChunkPlan(P)
        self.stamps: list[int] = []
        self.source: Source | None = None
        self.executed = np.full(7, 0.002)
        self.num_offered = 0

    def tick(self) -> None:
        cell = self.cell
        stamp_ns = self.stamps[-1] + P if self.stamps else cell.now_ns()
        self.stamps.append(stamp_ns)
        if self.plan.epoch != cell.episode.epoch:
            self.plan.reset(cell.episode.epoch)
        step = self.plan.play(stamp_ns)
        is_hold = step is None or self.source in (Source.HOLD, Source.HUMAN)
        row = ExecutedAction(
            stamp_ns=stamp_ns,
            epoch=cell.episode.epoch,
            source=self.source or (Source.HOLD if step is None else Source.VLA),
            executed=self.executed,
            base=np.zeros(7) if is_hold else step.action,
            residual=np.zeros(7),
            chunk_id=0 if step is None else step.chunk.chunk_id,
            chunk_step=NO_STEP if is_hold else step.index,
        )
        self.plan.on_executed(row)
        cell.send("action/executed", encode_executed(row))

    def take_chunks(self) -> None:
        new = chunks(self.cell)[self.num_offered :]
        next_ns = self.stamps[-1] + P if self.stamps else self.cell.now_ns()
        for chunk in new:
            self.num_offered += 1
            self.plan.offer(chunk, next_ns)

    def run_until(self, predicate) -> None:
        """Tick in real time until something holds."""

        def check() -> bool:
            self.take_chunks()
            if not self.stamps or self.cell.now_ns() - self.stamps[-1] >= P:
                self.tick()
            return predicate()

        assert self.cell.until(check)


@pytest.fixture
def actor(cell):
    return ActorStub(cell)


def test_a_chunk_waits_before_the_episode_runs_and_is_kept_fresh(cell, vla) -> None:
    cell.enter(Phase.READY)
    assert cell.until(lambda: len(chunks(cell)) > 2)
    first, second, third = chunks(cell)[:3]
    assert first.epoch == 1
    assert first.actions.shape == (6, 7)
    assert first.stamp_ns < second.stamp_ns < third.stamp_ns
    assert first.chunk_id < second.chunk_id < third.chunk_id
    assert PolicyStub.newest.num_resets == 1


def begins_anew(cell, vla) -> None:
    """Play an episode, and be in the reset of the next with the last frames taken before it."""
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    cell.enter(Phase.RESETTING, epoch=2)
    assert cell.until(lambda: vla.episode.phase is Phase.RESETTING)
    cell.cameras.clear()


def first_seen(cell, vla) -> set[int]:
    """Greys of the first observation of the second episode; its scene is seen late."""
    num_waits = vla.diag.counted("waits_for_scene")
    assert cell.until(lambda: vla.diag.counted("waits_for_scene") > num_waits, timeout_s=1.0)
    cell.cameras, cell.grey = {"wrist", "front"}, 9
    assert cell.until(lambda: chunks(cell)[-1].epoch == 2)
    seen = PolicyStub.newest.seen[PolicyStub.newest.first_of_episode]
    return {int(image.max()) for image in seen.images.values()}


def test_an_episode_begins_with_what_is_seen_after_its_reset(cell, vla) -> None:
    begins_anew(cell, vla)
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: vla.episode.phase is Phase.READY)
    assert first_seen(cell, vla) == {9}


def test_a_node_that_is_activated_late_looks_at_the_new_scene_as_well(cell, vla) -> None:
    begins_anew(cell, vla)
    vla.trigger_deactivate()
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: vla.episode.phase is Phase.READY)
    vla.trigger_activate()
    assert first_seen(cell, vla) == {9}


def test_an_episode_whose_reset_was_not_heard_of_begins_with_the_new_scene(cell, vla) -> None:
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    cell.cameras.clear()
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: vla.episode.epoch == 2)
    assert first_seen(cell, vla) == {9}


def test_a_clock_that_is_set_back_after_the_reset_stops_nothing(cell, vla, monkeypatch) -> None:
    true_ns, ahead_ns = vla.now_ns, [60_000_000_000]
    monkeypatch.setattr(vla, "now_ns", lambda: true_ns() + ahead_ns[0])
    cell.enter(Phase.READY)
    assert cell.until(lambda: vla.episode.phase is Phase.READY)
    ahead_ns[0] = 0
    assert cell.until(lambda: len(chunks(cell)) > 1)


def test_poses_of_objects_are_of_after_the_reset_too(cell, monkeypatch) -> None:
    monkeypatch.setattr(PolicyStub, "needs_objects", True)
    node = VlaInferenceNode({"autostart": False, "policy": "stub", "settings.horizon": 6})
    cell.bring_up(node)
    assert cell.until(lambda: cell.count_subscribers("sim/objects") > 0)
    cell.objects = {"cube": HOME}
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    cell.enter(Phase.RESETTING, epoch=2)
    assert cell.until(lambda: node.episode.phase is Phase.RESETTING)
    refused = ("waits_for_scene", "rejected.stale.sim/objects")
    cell.objects, num_refused = None, sum(map(node.diag.counted, refused))
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: sum(map(node.diag.counted, refused)) > num_refused, timeout_s=1.0)
    cell.objects = {"cube": Pose(HOME.position_m + 0.1, HOME.quat_xyzw)}
    assert cell.until(lambda: chunks(cell)[-1].epoch == 2)
    seen = PolicyStub.newest.seen[PolicyStub.newest.first_of_episode]
    assert seen.objects["cube"].position_m[0] == pytest.approx(0.6)
    node.trigger_shutdown()


def test_outside_an_episode_the_policy_is_not_asked(cell, vla, actor) -> None:
    for phase in (Phase.IDLE, Phase.RESETTING, Phase.ENDED):
        cell.enter(phase)
        actor.tick()
    cell.enter(Phase.READY)
    ready_ns = cell.now_ns()
    assert cell.until(lambda: chunks(cell))
    assert all(seen.stamp_ns > ready_ns - P for seen in PolicyStub.newest.seen)


def test_each_executed_tick_asks_with_its_own_stamp(cell, vla, actor) -> None:
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: actor.plan.remaining(cell.now_ns()) and len(actor.stamps) > 8)
    asked = [chunk for chunk in chunks(cell) if chunk.stamp_ns in actor.stamps]
    assert len(asked) >= 4
    assert np.all(np.diff([chunk.stamp_ns for chunk in asked])[-3:] == P)
    seen = next(s for s in PolicyStub.newest.seen if s.stamp_ns == asked[-1].stamp_ns)
    assert seen.instruction == "lift the red cube"
    assert seen.task == "lift"
    assert seen.state.shape == (20,)
    assert np.allclose(seen.state[:3], [0.5, 0.0, 0.3])
    assert set(seen.images) == {"wrist", "front"}
    assert seen.images["front"].shape == (8, 8, 3)
    assert np.array_equal(seen.last_action, np.full(7, 0.002))
    assert seen.objects is None
    assert seen.joint_rad is None
    assert seen.target is None


def test_execute_ticks_sets_how_often_the_policy_is_asked_live(cell, vla, actor) -> None:
    assert vla.set_parameters([Parameter("execute_ticks", value=3)])[0].successful
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: len(chunks(cell)) > 5)
    asked = [chunk.stamp_ns for chunk in chunks(cell) if chunk.stamp_ns in actor.stamps]
    assert np.all(np.diff(asked)[-3:] == 3 * P)


def test_a_pace_that_does_not_fit_the_horizon_is_refused_live(cell, vla) -> None:
    result = vla.set_parameters([Parameter("execute_ticks", value=6)])[0]
    assert not result.successful
    assert "settings.horizon=6" in result.reason


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


def test_a_passing_failure_is_a_warning_so_that_the_episode_may_go_on(cell, vla) -> None:
    PolicyStub.newest.error = InferenceError("the server is away")
    cell.enter(Phase.READY)
    assert cell.until(lambda: cell.said("/vla_inference", "the server is away"))
    assert cell.heard["/diagnostics"][-1].status[0].level == b"\x01"
    PolicyStub.newest.error = None
    assert cell.until(lambda: chunks(cell))


def test_ticks_go_on_while_the_model_thinks_and_only_one_question_waits(cell, vla, actor) -> None:
    stub = PolicyStub.newest
    stub.may_answer.clear()
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: len(stub.seen) == 1)
    num_before = len(actor.stamps)
    actor.run_until(lambda: len(actor.stamps) > num_before + 4)
    assert len(stub.seen) == 1
    stub.may_answer.set()
    actor.run_until(lambda: len(stub.seen) > 2)


def test_a_policy_that_hangs_is_reported_and_does_not_hold_up_the_stop(cell, vla, actor) -> None:
    stub = PolicyStub.newest
    stub.may_answer.clear()
    cell.enter(Phase.READY)
    assert cell.until(lambda: cell.said("/vla_inference", "waiting for the policy"))
    before_ns = cell.now_ns()
    vla.trigger_deactivate()
    assert cell.now_ns() - before_ns < 0.2e9
    # The hung inference is still alone with its policy after the node is active again.
    vla.trigger_activate()
    cell.enter(Phase.RESETTING, epoch=2)
    cell.enter(Phase.READY, epoch=2)
    assert cell.until(lambda: vla._requests.is_pending)  # noqa: SLF001
    assert len(stub.seen) == 1
    stub.may_answer.set()
    assert cell.until(lambda: chunks(cell))
    assert chunks(cell)[0].epoch == 2


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


def test_prefix_covers_the_measured_delay_and_starts_with_what_was_executed(
    cell, vla, actor
) -> None:
    cell.enter(Phase.RUNNING)
    stub = PolicyStub.newest
    actor.run_until(lambda: len(stub.seen) > 4 and stub.prefixes[-1] is not None)
    prefix = stub.prefixes[-1]
    assert prefix.actions.shape == (1, 7)
    assert (prefix.num_locked, prefix.conditioning) == (1, Conditioning.LOCK)
    assert np.array_equal(prefix.actions[0], np.full(7, 0.002))
    num_before = len(chunks(cell))
    actor.run_until(lambda: len(chunks(cell)) > num_before)
    newest = chunks(cell)[-1]
    assert newest.delay_ticks == 1
    assert newest.mode is Mode.PREFIX_LOCK
    # The runtime locks the rows, whatever the policy answers.
    assert newest.actions[0].tobytes() == np.full(7, 0.002).tobytes()


def test_a_slow_model_is_told_longer_promises_and_repeats_them(cell, vla, actor) -> None:
    assert vla.set_parameters(
        [Parameter("extra_delay_s", value=0.15), Parameter("execute_ticks", value=2)]
    )[0].successful
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: chunks(cell) and chunks(cell)[-1].delay_ticks > 1)
    newest = chunks(cell)[-1]
    promised = next(
        prefix
        for seen, prefix in zip(PolicyStub.newest.seen, PolicyStub.newest.prefixes, strict=True)
        if seen.stamp_ns == newest.stamp_ns
    )
    assert promised.num_locked == newest.delay_ticks
    locked = slice(0, newest.delay_ticks)
    assert newest.actions[locked].tobytes() == promised.actions[locked].tobytes()


def test_a_takeover_cancels_what_was_asked_and_the_release_asks_afresh(cell, vla, actor) -> None:
    stub = PolicyStub.newest
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: len(actor.stamps) > 3 and stub.prefixes[-1] is not None)
    stub.may_answer.clear()
    num_seen = len(stub.seen)
    actor.run_until(lambda: len(stub.seen) > num_seen)
    actor.source = Source.HUMAN
    num_ticks = len(actor.stamps)
    actor.run_until(lambda: len(actor.stamps) > num_ticks + 2)
    stub.may_answer.set()
    actor.run_until(lambda: vla.diag.counted("answers.before_takeover") == 1)
    num_seen = len(stub.seen)
    actor.source = None
    actor.run_until(lambda: len(stub.seen) > num_seen)
    assert stub.prefixes[num_seen] is None
    actor.run_until(lambda: stub.prefixes[-1] is not None)


def test_the_newest_instruction_of_a_running_episode_is_used(cell, vla, actor) -> None:
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: PolicyStub.newest.seen)
    cell.episode = replace(cell.episode, instruction="press the button")
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: PolicyStub.newest.seen[-1].instruction == "press the button")


def test_joints_and_target_are_there_where_the_cell_has_them(cell, vla, actor) -> None:
    goal = Pose(np.array([0.4, 0.1, 0.2]), np.array([1.0, 0.0, 0.0, 0.0]))

    def speak() -> None:
        now_ns = cell.now_ns()
        state = ArmState(
            stamp_ns=now_ns,
            q_rad=np.arange(7.0),
            dq_rad_per_s=np.zeros(7),
            tau_nm=np.zeros(7),
            pose=goal,
            twist=Twist(),
            wrench=Wrench(),
        )
        joints = codecs.encode_joint_state(state, [f"joint{n}" for n in range(7)])
        cell.send("arm/joint_state", joints)
        cell.send("arm/target_pose", codecs.encode_pose(goal, now_ns))

    cell.create_timer(0.02, speak)
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: PolicyStub.newest.seen and PolicyStub.newest.seen[-1].target)
    seen = PolicyStub.newest.seen[-1]
    # Between two samples, which rounds.
    np.testing.assert_allclose(seen.joint_rad, np.arange(7.0), atol=1e-9)
    np.testing.assert_allclose(seen.target.position_m, goal.position_m, atol=1e-9)


def test_injected_delay_postpones_the_answer(cell, vla) -> None:
    assert vla.set_parameters([Parameter("extra_delay_s", value=0.3)])[0].successful
    cell.enter(Phase.READY)
    assert cell.until(lambda: chunks(cell))
    assert cell.now_ns() - chunks(cell)[0].stamp_ns >= 300_000_000


def test_an_arm_that_holds_is_asked_for_at_once(cell, vla, actor) -> None:
    actor.source = Source.HOLD
    cell.enter(Phase.RUNNING)
    actor.run_until(lambda: len(PolicyStub.newest.seen) > 3)
    assert all(prefix is None for prefix in PolicyStub.newest.prefixes)


def refused(executor, monkeypatch, **parameters: object) -> str:
    """Sentence with which a node refuses to be configured."""
    monkeypatch.setitem(POLICY_MODULES, "stub", "node.policy_stub")
    node = VlaInferenceNode({"autostart": False, "policy": "stub", **parameters})
    executor.add_node(node)
    sentences = []
    node.diag.level = lambda _, sentence: sentences.append(sentence)
    node.trigger_configure()
    return sentences[-1]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"mode": "rtc"}, "mode='rtc'"),
        ({"anchor": "last_target"}, "anchor='last_target'"),
        ({"settings.horizon": 4, "latency_budget_s": 0.25}, "settings.horizon=4"),
        ({"execute_ticks": 1, "latency_budget_s": 0.25}, "execute_ticks=1"),
        ({"mode": "sync", "execute_ticks": 9}, "execute_ticks=9"),
    ],
)
def test_what_does_not_fit_the_policy_is_refused_by_name(
    executor, monkeypatch, parameters: dict[str, object], words: str
) -> None:
    assert words in refused(executor, monkeypatch, **parameters)


def test_unknown_policies_and_missing_cameras_are_refused_by_name(executor) -> None:
    node = VlaInferenceNode({"autostart": False, "policy": "oracle"})
    executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    assert not node.is_running
    with pytest.raises(ConfigError, match=r"'oracle' is unknown; known: .*scripted, still"):
        make_policy("oracle", PolicySettings(), PolicyEnvironment())


def test_still_policy_stands_still_and_keeps_the_prefix() -> None:
    policy = make_policy("still", PolicySettings(horizon=4), PolicyEnvironment(cameras=("a",)))
    assert policy.cameras == ("a",)
    assert not policy.needs_objects
    policy.reset()
    observation = PolicyObservation(
        stamp_ns=0, images={}, state=np.zeros(20), instruction="", task=""
    )
    promised = np.full((2, 7), 0.01)
    prefix = Prefix(actions=promised, num_locked=2, conditioning=Conditioning.LOCK)
    actions = policy.infer(observation, prefix)
    assert actions.shape == (policy.horizon, 7)
    assert np.array_equal(actions[:2], promised)
    assert np.array_equal(actions[2:, :6], np.zeros((2, 6)))
