# SPDX-License-Identifier: Apache-2.0
"""A human at the gate on a real graph: by `teleop/joy`, and by the reports of a SpaceMouse."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest
from node.cell_stub import HOME, CellStub, P
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, Joy
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.intervention import NO_STEP, Source
from vla_rl_ros.core.teleop_config import AXES, BUTTONS
from vla_rl_ros.hardware.spacemouse import SpaceMouse
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.channels import decode_channels, from_stamp, to_stamp
from vla_rl_ros.ros.codecs import decode_pose
from vla_rl_ros.ros.nodes.intervention import InterventionNode

pytestmark = pytest.mark.ros

JOY = "teleop/joy"
START, HOLD = "supervisor/start_episode", "impedance_controller/hold"
TOPICS = ("arm/target_pose", "gripper/target", "action/executed", "/diagnostics")


class Operator:
    """A foreign publisher of `teleop/joy`, and the services his buttons ask for."""

    def __init__(self, cell: CellStub) -> None:
        self.cell = cell
        self.asked: list[object] = []
        self.axes: dict[str, float] = {}
        self.pressed: tuple[str, ...] = ()
        self.is_there = False
        cell.create_timer(0.02, self._report)
        cell.create_timer(0.1, self._tick)
        self.ticks: list[int] = []
        self._tick_ns = 0
        cell.create_service(SetBool, "supervisor/end_episode", self._end)
        cell.create_service(Trigger, START, self._answer(START))
        self.hold = cell.create_service(Trigger, HOLD, self._answer(HOLD))
        self.heard: list[Joy] = []
        cell.create_subscription(Joy, JOY, self.heard.append, 100)

    def push(self, *pressed: str, **axes: float) -> None:
        self.is_there, self.axes, self.pressed = True, axes, pressed

    def let_go(self) -> None:
        """Release everything and wait until that was heard: the next press is a new one."""
        self.push()
        self.heard.clear()
        # By the second one at the latest the gate has had the first.
        assert self.cell.until(lambda: sum(not any(m.buttons) for m in self.heard) > 1)

    def wait_ticks(self, count: int) -> None:
        """Wait for ticks of the actor, ten per second."""
        last = len(self.ticks) + count
        assert self.cell.until(lambda: len(self.ticks) >= last)

    def _report(self) -> None:
        if not self.is_there:
            return
        message = Joy(
            axes=[self.axes.get(name, 0.0) for name in AXES],
            buttons=[int(name in self.pressed) for name in BUTTONS],
        )
        message.header.stamp = to_stamp(self.cell.now_ns())
        self.cell.send(JOY, message)

    def _tick(self) -> None:
        now_ns = self.cell.now_ns()
        since = round((now_ns - self._tick_ns) / P)
        self._tick_ns = now_ns if since > 5 else self._tick_ns + since * P
        message = JointState(name=["a"], position=[0.0])
        message.header.stamp = to_stamp(self._tick_ns)
        message.header.frame_id = "v"
        self.ticks.append(self._tick_ns)
        self.cell.send("policy/observation", message)

    def _end(self, request, response):
        self.asked.append(request.data)
        response.success = True
        return response

    def _answer(self, name: str):
        def answer(_request, response):
            self.asked.append(name)
            response.success = True
            return response

        return answer


@pytest.fixture
def cell(executor):
    return CellStub(executor, TOPICS)


@pytest.fixture
def operator(cell):
    return Operator(cell)


@pytest.fixture
def bring_up(cell, operator):
    def make(**parameters: object) -> InterventionNode:
        node = InterventionNode({"autostart": False, "device": "joy", **parameters})
        cell.bring_up(node)
        assert cell.until(lambda: cell.count_subscribers("policy/observation") > 0)
        if parameters.get("device", "joy") == "joy":
            # The operator hears himself.
            assert cell.until(lambda: cell.count_subscribers(JOY) > 1)
        return node

    return make


@pytest.fixture
def mouse():
    pytest.importorskip("pyspacemouse")
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc for the stand-in of the HID library")
    from unit.hid_samples import mouse_at

    made = mouse_at("node", "wireless")
    made.plug()
    yield made
    made.unplug()


@pytest.fixture
def bring_up_driven(cell, bring_up, mouse):
    """Bring up a gate that a mouse drives in a running episode."""

    def make(*axes: float, **parameters: object) -> InterventionNode:
        gate = bring_up(device="spacemouse", **parameters)
        assert cell.until(lambda: mouse.is_connected)
        assert cell.until(lambda: cell.count_publishers(JOY) > 0)
        cell.enter(Phase.RUNNING)
        push_until_driven(cell, mouse, *axes)
        return gate

    return make


def push_until_driven(cell, mouse, *axes: float) -> None:
    """Push the mouse a hundred times per second until it has driven four more ticks."""
    num_rows = len(rows(cell, Source.HUMAN)) + 4
    last_s = 0.0

    def is_driven() -> bool:
        nonlocal last_s
        if time.monotonic() - last_s > 0.01:
            last_s = time.monotonic()
            mouse.push(axes)
        return len(rows(cell, Source.HUMAN)) >= num_rows

    assert cell.until(is_driven)


def report(stamp_ns, axes, *names, device="") -> Joy:
    message = Joy(axes=axes, buttons=[int(name in names) for name in BUTTONS])
    message.header.stamp = to_stamp(stamp_ns)
    message.header.frame_id = device
    return message


def rows(cell, source=None):
    found = [decode_executed(message) for message in cell.heard["action/executed"]]
    return [row for row in found if source is None or row.source is source]


def targets(cell):
    return [decode_pose(message) for message in cell.heard["arm/target_pose"]]


def widths(cell):
    return [
        decode_channels(message, ["gripper.width_m"])["gripper.width_m"]
        for message in cell.heard["gripper/target"]
    ]


def test_a_hand_takes_over_lets_go_and_the_policy_goes_on(cell, operator, bring_up) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    assert cell.act_until(lambda: len(rows(cell, Source.VLA)) > 1)
    operator.push(y=1.0)
    assert cell.act_until(lambda: len(rows(cell, Source.HUMAN)) > 6)
    assert targets(cell)[-1].position_m[1] > 0.005
    assert gate.diag.counted("takeovers") == 1
    human = rows(cell, Source.HUMAN)[-1]
    assert human.executed[1] > 0.01
    # What the actor still proposes is the base of the row, and drives nothing.
    assert abs(human.executed[0]) < 0.004
    operator.push()
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)
    num_vla = len(rows(cell, Source.VLA))
    assert cell.act_until(lambda: len(rows(cell, Source.VLA)) > num_vla)
    assert gate.diag.counted("takeovers") == 1


def test_each_tick_has_one_row_at_the_stamp_of_what_the_actor_saw(
    cell, operator, bring_up
) -> None:
    bring_up()
    cell.enter(Phase.RUNNING)
    operator.push(x=0.3)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 12)
    stamps = [row.stamp_ns for row in rows(cell, Source.HUMAN)]
    assert set(stamps[1:]) <= set(operator.ticks)
    assert np.all(np.diff(stamps) == P)
    assert all(row.chunk_step == NO_STEP for row in rows(cell, Source.HUMAN))


def test_demonstrating_ignores_the_policy_and_waiting_is_his_as_well(
    cell, operator, bring_up
) -> None:
    gate = bring_up(mode="demonstrate")
    cell.enter(Phase.RUNNING)
    assert cell.act_until(lambda: gate.diag.counted("proposals_ignored") > 2)
    operator.push(z=0.5)
    assert cell.act_until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    operator.push()
    before = len(rows(cell, Source.HUMAN))
    assert cell.act_until(lambda: len(rows(cell, Source.HUMAN)) > before + 8)
    assert not rows(cell, Source.VLA)
    assert rows(cell)[-1].source is Source.HUMAN
    assert not any(np.any(row.base) for row in rows(cell))


def test_a_shadowed_policy_is_compared_and_never_drives(cell, operator, bring_up) -> None:
    gate = bring_up(mode="shadow")
    cell.enter(Phase.RUNNING)
    operator.push(x=-1.0)
    assert cell.act_until(
        lambda: gate.diag.counted("disagreements") > 3, base=(0.02, 0, 0, 0, 0, 0, 1.0)
    )
    human = [row for row in rows(cell, Source.HUMAN) if row.chunk_step != NO_STEP]
    assert human
    assert all(row.base[0] == 0.02 for row in human)
    assert not rows(cell, Source.VLA)
    assert targets(cell)[-1].position_m[0] < HOME.position_m[0]


@pytest.mark.parametrize("how", ["ended", "next", "stopped", "silent"])
def test_the_tick_in_which_an_episode_ends_has_its_row(cell, operator, bring_up, how) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    operator.push(y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 0)
    before = rows(cell)[-1].stamp_ns
    end = {
        "ended": lambda: cell.enter(Phase.ENDED),
        "next": lambda: cell.enter(Phase.RUNNING, epoch=2),
        "stopped": gate.trigger_deactivate,
        "silent": lambda: setattr(cell, "is_supervised", False),
    }[how]
    end()
    assert cell.until(lambda: rows(cell)[-1].stamp_ns > before)
    last = rows(cell)[-1]
    assert (last.source, last.epoch) == (Source.HUMAN, 1)
    assert last.stamp_ns <= cell.now_ns()


def test_presses_of_the_gripper_reach_the_hand(cell, operator, bring_up) -> None:
    bring_up()
    cell.enter(Phase.RUNNING)
    operator.let_go()
    for width_m in (0.0, 0.08, 0.0):
        operator.push("gripper")
        assert cell.until(lambda width_m=width_m: widths(cell) and widths(cell)[-1] == width_m)
        operator.let_go()
    # The hand is told at once, the row follows with its tick.
    assert cell.until(lambda: rows(cell, Source.HUMAN)[-1].executed[6] == 0.0)


def test_a_button_that_is_held_while_its_publisher_is_silent_is_not_pressed_again(
    cell, operator, bring_up
) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    # Down from the first message on: nobody knows since when.
    operator.push("gripper", y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    assert not any(width_m == 0.0 for width_m in widths(cell))
    operator.let_go()
    operator.push("gripper", y=0.5)
    assert cell.until(lambda: widths(cell)[-1:] == [0.0])
    operator.is_there = False
    assert cell.until(lambda: gate.diag.counted("hand_silent") == 1)
    before = len(rows(cell, Source.HUMAN))
    operator.is_there = True
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > before + 2)
    assert widths(cell)[-1] == 0.0


def test_a_silent_publisher_is_let_go(cell, operator, bring_up) -> None:
    gate = bring_up(**{"teleop.release_after_s": 5.0})
    cell.enter(Phase.RUNNING)
    operator.push(y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    operator.is_there = False
    assert cell.until(lambda: gate.diag.counted("hand_silent") == 1)
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)


@pytest.mark.parametrize("mode", ["demonstrate", "shadow"])
def test_a_publisher_that_falls_silent_at_rest_is_let_go(cell, operator, bring_up, mode) -> None:
    gate = bring_up(mode=mode)
    cell.enter(Phase.RUNNING)
    operator.push(y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    operator.push()
    before = len(rows(cell, Source.HUMAN))
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > before + 5)
    operator.is_there = False
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)
    assert gate.diag.counted("hand_silent") == 1


def test_of_two_publishers_the_first_counts_until_it_falls_silent(
    cell, operator, bring_up
) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    operator.push(y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    intruder = cell.create_publisher(Joy, JOY, 10)

    names = ["gripper", "success"]

    def intrude() -> None:
        intruder.publish(report(cell.now_ns(), [0.0, -1.0, 0, 0, 0, 0], *names))

    cell.create_timer(0.02, intrude)
    assert cell.until(lambda: gate.diag.counted("rejected.joy.other") > 20)
    assert not widths(cell)[1:]
    assert not operator.asked
    assert targets(cell)[-1].position_m[1] > 0
    assert gate.diag.counted("takeovers") == 1
    names.clear()
    operator.is_there = False
    assert cell.until(lambda: targets(cell)[-1].position_m[1] < 0)


def test_reports_that_are_old_or_ahead_move_nothing(cell, operator, bring_up) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    for ahead_ns, reason in ((-400_000_000, "stale"), (200_000_000, "future")):

        def is_counted(ahead_ns=ahead_ns, reason=reason) -> bool:
            cell.send(JOY, report(cell.now_ns() + ahead_ns, [1.0] * 6, "gripper"))
            return gate.diag.counted(f"rejected.joy.{reason}") > 10

        assert cell.until(is_counted)
    assert cell.until(lambda: len(rows(cell, Source.HOLD)) > 2)
    assert gate.diag.counted("takeovers") == 0


@pytest.mark.parametrize("kind", ["plain", "malformed", "stale", "other"])
def test_stop_silences_the_gate_until_the_next_episode_though_nobody_hears_it(
    cell, operator, bring_up, kind
) -> None:
    gate = bring_up()
    operator.hold.destroy()
    cell.enter(Phase.RUNNING)
    operator.push(y=0.5)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    if kind == "plain":
        operator.push("stop", y=0.5)
    elif kind == "malformed":
        cell.send(JOY, report(cell.now_ns(), [float("nan")] * 6, "stop"))
    elif kind == "stale":
        cell.send(JOY, report(cell.now_ns() - 10**9, [0.0] * 6, "stop"))
    else:
        cell.send(JOY, report(cell.now_ns(), [0.0] * 6, "stop", device="b"))
    assert cell.until(lambda: gate.diag.counted("pressed.stop") == 1)
    operator.push(y=0.5)
    # Some beats of the same episode, and what was under way before the press.
    operator.wait_ticks(4)
    num_targets = len(targets(cell))
    for _ in range(5):
        cell.act()
        operator.wait_ticks(1)
    assert len(targets(cell)) == num_targets
    cell.enter(Phase.RUNNING, epoch=2)
    assert cell.until(lambda: len(targets(cell)) > num_targets)


def test_a_pushed_mouse_whose_driver_hangs_is_let_go(cell, bring_up_driven, monkeypatch) -> None:
    gate = bring_up_driven(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, mode="demonstrate")
    has_ended = threading.Event()
    monkeypatch.setattr(SpaceMouse, "read", lambda *_: has_ended.wait(20.0) and None)
    assert cell.until(lambda: gate.diag.counted("hand_silent") == 1)
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)
    has_ended.set()


def test_buttons_ask_the_supervisor_and_the_arm(cell, operator, bring_up) -> None:
    bring_up()
    for phase, button, expected in (
        (Phase.RUNNING, "success", True),
        (Phase.RUNNING, "failure", False),
        (Phase.IDLE, "success", "supervisor/start_episode"),
        (Phase.RUNNING, "stop", "impedance_controller/hold"),
    ):
        cell.enter(phase)
        operator.let_go()
        operator.push(button)
        assert cell.until(lambda expected=expected: operator.asked[-1:] == [expected]), button
    assert len(operator.asked) == 4


def test_malformed_reports_are_counted_and_move_nothing(cell, operator, bring_up) -> None:
    gate = bring_up()
    cell.enter(Phase.RUNNING)
    for axes, reason in (([0.5] * 3, "wrong_length"), ([float("nan")] * 6, "not_finite")):

        def is_counted(axes=axes, reason=reason) -> bool:
            cell.send(JOY, report(cell.now_ns(), axes))
            return gate.diag.counted(f"rejected.joy.{reason}") > 2

        assert cell.until(is_counted)
    assert cell.until(lambda: len(rows(cell, Source.HOLD)) > 2)
    assert not rows(cell, Source.HUMAN)


def test_mapping_and_scale_change_live(cell, operator, bring_up) -> None:
    gate = bring_up()
    opposite = ["-x", "-y", "z", "-rx", "-ry", "rz"]
    assert gate.set_parameters([Parameter("teleop.mapping", value=opposite)])[0].successful
    twice = Parameter("teleop.mapping", value=["x", "x", "z", "rx", "ry", "rz"])
    refused = gate.set_parameters([twice])[0]
    assert not refused.successful
    assert "mapping" in refused.reason
    cell.enter(Phase.RUNNING)
    operator.push(x=1.0)
    assert cell.until(lambda: len(rows(cell, Source.HUMAN)) > 2)
    assert targets(cell)[-1].position_m[0] < HOME.position_m[0] - 0.01


def test_without_a_device_the_other_modes_are_refused(cell) -> None:
    with pytest.raises(ValueError, match="device"):
        InterventionNode({"autostart": False, "mode": "shadow"})


def test_a_spacemouse_drives_and_its_reports_are_published(
    cell, operator, bring_up_driven, mouse
) -> None:
    gate = bring_up_driven(0.0, 0.6, 0.0, 0.0, 0.0, 0.0)
    assert targets(cell)[-1].position_m[1] > 0.003
    heard = operator.heard[-1]
    assert heard.axes[1] == pytest.approx((0.6 - 0.05) / 0.95, abs=0.01)
    assert heard.header.frame_id == "SpaceMouseWireless"
    mouse.press("LEFT")
    assert cell.until(lambda: widths(cell)[-1:] == [0.0])
    assert gate.diag.counted("takeovers") == 1


def test_unplugged_in_mid_takeover_the_arm_holds_at_once(cell, bring_up_driven, mouse) -> None:
    gate = bring_up_driven(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    begin_ns = cell.now_ns()
    mouse.unplug()
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)
    held = [
        from_stamp(message.header.stamp)
        for message, pose in zip(cell.heard["arm/target_pose"], targets(cell), strict=True)
        if np.array_equal(pose.position_m, targets(cell)[-1].position_m)
    ]
    assert held[0] - begin_ns < 100_000_000
    mouse.plug()
    push_until_driven(cell, mouse, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0)
    assert gate.diag.counted("takeovers") == 2


def test_a_button_that_is_held_while_the_mouse_is_unplugged_is_not_pressed_again(
    cell, bring_up_driven, mouse
) -> None:
    push = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    bring_up_driven(*push)
    mouse.press("LEFT")
    assert cell.until(lambda: widths(cell)[-1:] == [0.0])
    mouse.unplug()
    assert cell.until(lambda: rows(cell)[-1].source is Source.HOLD)
    mouse.plug()
    assert cell.until(lambda: mouse.is_connected)
    mouse.press("LEFT")
    push_until_driven(cell, mouse, *push)
    assert widths(cell)[-1] == 0.0
