# SPDX-License-Identifier: Apache-2.0
"""The gate on a real graph: what it lets through, and when it is silent."""

from __future__ import annotations

import numpy as np
import pytest
from node.cell_stub import HOME, CellStub, P
from rclpy.parameter import Parameter

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.intervention import NO_STEP, Source
from vla_rl_ros.core.types import GripperState, Pose
from vla_rl_ros.ros.action_codecs import decode_executed, encode_policy_action
from vla_rl_ros.ros.channels import decode_channels, from_stamp
from vla_rl_ros.ros.codecs import decode_pose, encode_gripper
from vla_rl_ros.ros.nodes.intervention import InterventionNode

pytestmark = pytest.mark.ros

TOPICS = ("arm/target_pose", "gripper/target", "action/executed", "/diagnostics")
AHEAD = HOME.position_m + np.array([0.01, 0.0, 0.0])
FAR_AHEAD = HOME.position_m + np.array([0.02, 0.0, 0.0])


@pytest.fixture
def cell(executor):
    return CellStub(executor, TOPICS)


@pytest.fixture
def gate(cell):
    node = InterventionNode({"autostart": False})
    cell.bring_up(node)
    return node


def targets(cell):
    return [decode_pose(message) for message in cell.heard["arm/target_pose"]]


def rows(cell):
    return [decode_executed(message) for message in cell.heard["action/executed"]]


def widths(cell):
    return [
        decode_channels(message, ["gripper.width_m"])["gripper.width_m"]
        for message in cell.heard["gripper/target"]
    ]


def run_episode(cell, gate, epoch: int = 1) -> None:
    cell.enter(Phase.RUNNING, epoch)
    assert cell.act_until(lambda: len(targets(cell)) > 2)


def test_action_becomes_a_target_anchored_at_the_measured_pose(cell, gate) -> None:
    run_episode(cell, gate)
    assert np.allclose(targets(cell)[0].position_m, AHEAD)
    vla = next(row for row in rows(cell) if row.source is Source.VLA)
    assert vla.executed.tobytes() == vla.base.tobytes()
    assert (vla.chunk_id, vla.chunk_step, vla.epoch) == (7, 1, 1)


def test_target_is_repeated_with_fresh_stamps_and_equal_pose(cell, gate) -> None:
    run_episode(cell, gate)
    cell.heard["arm/target_pose"].clear()
    assert cell.until(lambda: len(targets(cell)) > 8)
    assert len({pose.position_m.tobytes() for pose in targets(cell)}) == 1
    stamps = [from_stamp(m.header.stamp) for m in cell.heard["arm/target_pose"]]
    assert np.all(np.diff(stamps) > 0)


def test_outside_running_nothing_is_published(cell, gate) -> None:
    for phase in (Phase.BRINGUP, Phase.IDLE, Phase.RESETTING, Phase.READY, Phase.ENDED):
        cell.enter(phase)
        before = gate.diag.counted("rejected.not_running")
        assert cell.act_until(
            lambda before=before: gate.diag.counted("rejected.not_running") > before + 1
        )
    # Topics keep their order: what was published before this would be heard before this.
    cell.enter(Phase.RUNNING)
    assert cell.act_until(lambda: targets(cell) and widths(cell), base=(0.02, 0, 0, 0, 0, 0, 0))
    assert np.allclose(targets(cell)[0].position_m, FAR_AHEAD)
    assert widths(cell)[0] == 0.0


def test_after_the_end_nothing_is_published_until_the_next_episode(cell, gate) -> None:
    run_episode(cell, gate)
    cell.enter(Phase.ENDED)
    rejected = gate.diag.counted("rejected.not_running")
    assert cell.act_until(lambda: gate.diag.counted("rejected.not_running") > rejected)
    end_ns = cell.now_ns()
    assert cell.act_until(lambda: gate.diag.counted("rejected.not_running") > rejected + 3)
    cell.move(Pose(np.array([0.6, 0.1, 0.2]), HOME.quat_xyzw))
    start_ns = cell.now_ns()
    cell.enter(Phase.RUNNING, epoch=2)

    def fresh() -> list[Pose]:
        stamped = [(from_stamp(m.header.stamp), m) for m in cell.heard["arm/target_pose"]]
        assert not [stamp for stamp, _ in stamped if end_ns < stamp < start_ns]
        return [decode_pose(m) for stamp, m in stamped if stamp > start_ns]

    assert cell.act_until(fresh, base=(0, 0, 0, 0, 0, 0, 1))
    assert np.allclose(fresh()[0].position_m, cell.pose.position_m)


def test_silent_actor_is_held_and_each_tick_has_a_row(cell, gate) -> None:
    run_episode(cell, gate)
    last = targets(cell)[-1].position_m
    assert cell.until(lambda: gate.diag.counted("source.hold") > 3)
    assert cell.until(lambda: sum(r.source is Source.HOLD for r in rows(cell)) > 3)
    assert np.array_equal(targets(cell)[-1].position_m, last)
    held = [row for row in rows(cell) if row.source is Source.HOLD]
    assert all(row.chunk_step == NO_STEP and not np.any(row.base) for row in held)
    stamps = np.array([row.stamp_ns for row in rows(cell)])
    assert np.all(np.diff(stamps) < 1.6 * P)
    # The actor is back: the gate goes on without a restart.
    before = gate.diag.counted("source.vla")
    assert cell.act_until(lambda: gate.diag.counted("source.vla") > before)


def test_silent_supervisor_silences_the_gate_which_says_so(cell, gate) -> None:
    run_episode(cell, gate)
    cell.is_supervised = False
    assert cell.act_until(lambda: gate.diag.counted("rejected.supervisor_silent") > 2)
    assert cell.until(lambda: cell.said("/intervention", "supervisor_silent"))
    heard = len(targets(cell))
    num_rejected = gate.diag.counted("rejected.supervisor_silent")
    assert cell.act_until(
        lambda: gate.diag.counted("rejected.supervisor_silent") > num_rejected + 3
    )
    assert len(targets(cell)) == heard
    cell.is_supervised = True
    assert cell.act_until(lambda: len(targets(cell)) > heard)


def test_stale_pose_silences_the_target_but_not_the_rows(cell, gate) -> None:
    run_episode(cell, gate)
    cell.is_sensing = False
    reason = "rejected.stale.arm/tcp_pose"
    assert cell.act_until(lambda: gate.diag.counted(reason) > 1)
    heard, num_rejected = len(targets(cell)), gate.diag.counted(reason)
    held = gate.diag.counted("source.hold")
    assert cell.act_until(lambda: gate.diag.counted(reason) > num_rejected + 3)
    assert cell.until(lambda: gate.diag.counted("source.hold") > held + 2)
    assert len(targets(cell)) == heard
    # The arm was moved meanwhile: no jump back.
    cell.move(Pose(np.array([0.45, 0.1, 0.25]), HOME.quat_xyzw))
    assert cell.act_until(lambda: len(targets(cell)) > heard, base=(0, 0, 0, 0, 0, 0, 1))
    assert np.allclose(targets(cell)[heard].position_m, cell.pose.position_m)


def put(channel: str, value: float):
    def change(message) -> None:
        message.position[list(message.name).index(channel)] = value

    return change


def cut(message) -> None:
    message.name, message.position = message.name[1:], message.position[1:]


def shift(seconds: int):
    def change(message) -> None:
        message.header.stamp.sec += seconds

    return change


MANGLED = {
    "not_finite": put("base.tcp.dy_m", float("nan")),
    "infinite": put("residual.tcp.dz_m", float("inf")),
    "unknown_channel": lambda m: m.name.__setitem__(0, "base.tcp.dq_m"),
    "missing_channel": cut,
    "wrong_length": lambda m: m.position.pop(),
    "duplicate_channel": lambda m: m.name.__setitem__(1, m.name[0]),
    "wrong_frame": lambda m: setattr(m.header, "frame_id", "camera_wrist"),
    "bad_value": put("chunk.epoch", 1.5),
    "stale_stamp": shift(-1),
    "future_stamp": shift(1),
    "wrong_epoch": put("chunk.epoch", 99.0),
}


@pytest.mark.parametrize("how", sorted(MANGLED))
def test_hostile_actions_are_dropped_whole_and_counted(cell, gate, how: str) -> None:
    cell.enter(Phase.RUNNING)
    reason = f"rejected.{'not_finite' if how == 'infinite' else how}"

    def is_counted() -> bool:
        message = encode_policy_action(cell.action(base=(0.02, 0, 0, 0, 0, 0, 1)))
        MANGLED[how](message)
        cell.send("policy/action", message)
        return gate.diag.counted(reason) > 5

    assert cell.until(is_counted)
    assert cell.act_until(lambda: targets(cell))
    assert np.allclose(targets(cell)[0].position_m, AHEAD)


def test_thousand_targets_nine_metres_away_stay_within_the_limits(cell, gate) -> None:
    cell.enter(Phase.RUNNING)
    for _ in range(1000):
        cell.act(base=(9.0, -9.0, 9.0, 3.0, 3.0, 3.0, 9.0))
        cell.spin_once()
    assert cell.act_until(
        lambda: gate.diag.counted("limited.range") > 2, base=(9.0, 0, 0, 0, 0, 0, 1)
    )
    limits = gate.config.limits
    for pose in targets(cell):
        assert np.linalg.norm(pose.position_m - HOME.position_m) <= limits.max_step_m + 1e-9
        assert np.all(pose.position_m <= limits.box_max_m)
        assert np.all(pose.position_m >= limits.box_min_m)
    assert gate.diag.counted("rejected.out_of_order") > 0


def test_gripper_is_told_on_change_and_again_after_a_second(cell, gate) -> None:
    run_episode(cell, gate)
    assert widths(cell) == [0.08]
    assert cell.act_until(lambda: len(widths(cell)) > 1, base=(0, 0, 0, 0, 0, 0, 0.1))
    assert widths(cell)[1] == 0.0
    # Nobody proposes anything any more, and the hand is still told once per second.
    assert cell.until(lambda: len(widths(cell)) > 2)
    assert widths(cell)[2] == 0.0


def test_a_hand_that_holds_something_wide_is_closed(cell, gate) -> None:
    cell.is_sensing = False
    cell.enter(Phase.RUNNING)

    def begins_closed() -> bool:
        held = GripperState(stamp_ns=cell.now_ns(), width_m=0.06, is_grasped=True)
        cell.send("gripper/state", encode_gripper(held))
        epoch = cell.episode.epoch
        levels = [row.executed[6] for row in rows(cell) if row.epoch == epoch]
        if levels and levels[0] == 1.0:
            # The episode began before this was heard.
            cell.enter(Phase.RUNNING, epoch + 1)
        return levels[:1] == [0.0]

    assert cell.until(begins_closed)


def test_limits_change_live_and_the_anchor_never(cell, gate) -> None:
    low = Parameter("limits.box_max_m", value=[0.505, 0.35, 0.6])
    assert gate.set_parameters([low])[0].successful
    upside_down = Parameter("limits.box_max_m", value=[0.1, 0.35, 0.6])
    assert not gate.set_parameters([upside_down])[0].successful
    run_episode(cell, gate)
    assert targets(cell)[0].position_m[0] == pytest.approx(0.505)
    row = next(row for row in rows(cell) if row.source is Source.VLA)
    assert row.executed[0] == pytest.approx(0.005)
    assert gate.diag.counted("limited.box") > 0
    assert not gate.set_parameters([Parameter("anchor", value="last_target")])[0].successful


def test_deactivated_gate_is_silent_and_can_be_activated_again(cell, gate) -> None:
    run_episode(cell, gate)
    gate.trigger_deactivate()
    assert cell.act_until(lambda: not gate.is_running)
    cell.heard["arm/target_pose"].clear()
    gate.trigger_activate()
    cell.move(Pose(np.array([0.4, 0.0, 0.2]), HOME.quat_xyzw))
    position = cell.pose.position_m + np.array([0.01, 0.0, 0.0])
    assert cell.act_until(
        lambda: targets(cell) and np.allclose(targets(cell)[-1].position_m, position)
    )
    gate.trigger_deactivate()
    gate.trigger_cleanup()
    gate.trigger_configure()
    gate.trigger_activate()
    assert gate.is_running
