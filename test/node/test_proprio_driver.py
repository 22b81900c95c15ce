# SPDX-License-Identifier: Apache-2.0
"""The driver node on a real graph with a fake arm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from node.arm_bench import ArmBench
from rclpy.lifecycle import TransitionCallbackReturn

from vla_rl_ros.hardware import fakes
from vla_rl_ros.hardware.fakes import HOME_POSE, HOME_Q_RAD
from vla_rl_ros.ros.codecs import decode_gripper, decode_pose, decode_twist, decode_wrench
from vla_rl_ros.ros.nodes.proprio_driver import ProprioDriverNode

pytestmark = pytest.mark.ros

STREAMS = ("arm/joint_state", "arm/tcp_pose", "arm/tcp_twist", "arm/tcp_wrench", "gripper/state")


@pytest.fixture
def bench(executor) -> Iterator[ArmBench]:
    made = ArmBench(executor)
    made.listen(*STREAMS, "/diagnostics")
    made.bring_up()
    yield made
    made.close()


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def test_every_stream_carries_the_state_with_one_stamp(bench: ArmBench) -> None:
    assert bench.until(lambda: all(len(bench.heard[name]) > 5 for name in STREAMS))
    joints = bench.heard["arm/joint_state"][-1]
    assert list(joints.position) == pytest.approx(HOME_Q_RAD)
    assert list(joints.name) == [f"fr3_joint{index}" for index in range(1, 8)]
    pose = decode_pose(bench.heard["arm/tcp_pose"][-1])
    assert pose.position_m == pytest.approx(HOME_POSE.position_m)
    decode_twist(bench.heard["arm/tcp_twist"][-1])
    decode_wrench(bench.heard["arm/tcp_wrench"][-1])
    assert decode_gripper(bench.heard["gripper/state"][-1]).width_m == 0.08
    stamps = [{stamp_ns(m) for m in bench.heard[name]} for name in STREAMS[:4]]
    assert len(set.intersection(*stamps)) > 3


def test_streams_keep_their_rates(bench: ArmBench) -> None:
    assert bench.until(lambda: bench.heard["arm/tcp_pose"])
    for name in STREAMS:
        bench.heard[name].clear()
    assert bench.until(lambda: len(bench.heard["arm/tcp_pose"]) >= 200)
    poses = bench.heard["arm/tcp_pose"]
    elapsed_s = (stamp_ns(poses[-1]) - stamp_ns(poses[0])) * 1e-9
    # Lower bounds with room for a busy machine; nothing is published twice.
    assert 100.0 < (len(poses) - 1) / elapsed_s < 205.0
    assert 25.0 < len(bench.heard["gripper/state"]) / elapsed_s < 55.0


def test_a_clock_that_is_set_back_does_not_silence_the_gripper(
    bench: ArmBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.until(lambda: len(bench.heard["gripper/state"]) > 2)
    before_ns = stamp_ns(bench.heard["gripper/state"][-1])
    hour_ns = 3_600_000_000_000
    late = SimpleNamespace(time_ns=lambda: time.time_ns() - hour_ns, monotonic=time.monotonic)
    monkeypatch.setattr(fakes, "time", late)
    assert bench.until(
        lambda: (
            sum(stamp_ns(m) < before_ns - hour_ns // 2 for m in bench.heard["gripper/state"]) > 5
        )
    )


def test_a_dead_link_is_silence_and_an_error(bench: ArmBench) -> None:
    assert bench.until(lambda: len(bench.heard["arm/tcp_pose"]) > 5)
    bench.arm.fail("link_lost", "UDP receive: Timeout")
    snapshot = bench.arm_handle.loop.snapshot
    bench.arm_handle.loop.wait_cycle(snapshot.cycle + 5, 5.0)
    bench.heard["arm/tcp_pose"].clear()
    num_gripper = len(bench.heard["gripper/state"])

    def shown() -> bool:
        statuses = [m.status[0] for m in bench.heard["/diagnostics"]]
        return any(s.level == b"\x02" and "no state from the arm" in s.message for s in statuses)

    assert bench.until(shown)
    # At most what was on its way when the link died.
    assert len(bench.heard["arm/tcp_pose"]) <= 10
    # The gripper has a link of its own.
    assert len(bench.heard["gripper/state"]) > num_gripper
    assert bench.call("recover").success
    bench.heard["arm/tcp_pose"].clear()
    assert bench.until(lambda: len(bench.heard["arm/tcp_pose"]) > 5)


def test_an_inactive_driver_is_silent(bench: ArmBench) -> None:
    assert bench.until(lambda: bool(bench.heard["arm/tcp_pose"]))
    bench.proprio.trigger_deactivate()
    bench.listen("arm/controller_state")
    assert bench.until(lambda: len(bench.heard["arm/controller_state"]) > 2)
    bench.heard["arm/tcp_pose"].clear()
    # The controller's state is the sentinel: it comes from the same loop.
    assert bench.until(lambda: len(bench.heard["arm/controller_state"]) > 6)
    assert bench.heard["arm/tcp_pose"] == []


def test_a_node_without_an_arm_says_so(executor) -> None:
    node = ProprioDriverNode({"autostart": False})
    executor.add_node(node)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
