# SPDX-License-Identifier: Apache-2.0
"""The controller node on a real graph with a fake arm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from node.arm_bench import ArmBench, at
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

from vla_rl_ros.hardware.control_types import ControlMode
from vla_rl_ros.hardware.fakes import HOME_POSE
from vla_rl_ros.hardware.protocols import ArmMode
from vla_rl_ros.ros.channels import decode_channels, encode_channels, to_stamp
from vla_rl_ros.ros.codecs import encode_pose
from vla_rl_ros.ros.controller_config import ImpedanceControllerConfig

pytestmark = pytest.mark.ros

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def bench(executor) -> Iterator[ArmBench]:
    made = ArmBench(executor)
    made.bring_up()
    yield made
    made.close()


def test_targets_move_the_arm_and_the_reference_is_published(bench: ArmBench) -> None:
    bench.listen("arm/reference_pose", "arm/controller_state")
    assert bench.drive(
        at(0.02),
        lambda: (
            abs(bench.arm.state().pose.position_m[0] - 0.47) < 1e-3
            and bench.heard["arm/controller_state"]
            and "run" in _modes(bench.heard["arm/controller_state"][-1])
        ),
    )
    references, states = bench.heard["arm/reference_pose"], bench.heard["arm/controller_state"]
    assert references[-1].header.frame_id == "fr3_link0"
    assert references[-1].pose.position.x == pytest.approx(0.47, abs=1e-3)
    channels = dict(zip(states[-1].name, states[-1].position, strict=True))
    assert channels["clip_plus.x_m"] == 0.01
    assert 0.0 <= channels["target.age_s"] < 0.5


def _modes(state: JointState) -> list[str]:
    pairs = zip(state.name, state.position, strict=True)
    return [name.removeprefix("mode.") for name, on in pairs if name.startswith("mode.") and on]


def test_silence_holds_then_stops_and_recover_leads_out(bench: ArmBench) -> None:
    assert bench.drive(at(0.02), lambda: bench.mode == "run")
    assert bench.until(lambda: bench.mode == "stopped")
    assert bench.until(lambda: bench.arm.mode is ArmMode.IDLE)
    bench.send(at(0.02))
    assert bench.until(lambda: bench.counted("rejected.stopped") == 1)
    assert bench.call("recover").success
    assert bench.drive(at(0.02), lambda: bench.mode == "run")


def message(**changes: object) -> Callable[[ArmBench], PoseStamped]:
    def make(bench: ArmBench) -> PoseStamped:
        made = encode_pose(at(0.01), bench.now_ns())
        for name, value in changes.items():
            if name == "frame_id":
                made.header.frame_id = value
            elif name == "age_s":
                made.header.stamp = to_stamp(bench.now_ns() - int(value * 1e9))
            elif name == "quat":
                quat = made.pose.orientation
                quat.x, quat.y, quat.z, quat.w = value
            else:
                setattr(made.pose.position, name, value)
        return made

    return make


HOSTILE = {
    "nan": (message(x=NAN), "not_finite"),
    "inf": (message(y=-INF), "not_finite"),
    "huge": (message(z=1e308), "jump"),
    "far": (message(x=9.0), "jump"),
    "no_quaternion": (message(quat=(0.0, 0.0, 0.0, 0.0)), "not_unit_quaternion"),
    "huge_quaternion": (message(quat=(1e200, 0.0, 0.0, 0.0)), "not_unit_quaternion"),
    "nan_quaternion": (message(quat=(NAN, 0.0, 0.0, 1.0)), "not_finite"),
    "turned": (message(quat=(0.0, 0.0, 0.0, 1.0)), "jump"),
    "wrong_frame": (message(frame_id="world"), "wrong_frame"),
    "no_frame": (message(frame_id=""), "wrong_frame"),
    "stale": (message(age_s=0.2), "stale_stamp"),
    "future": (message(age_s=-1.0), "future_stamp"),
    "no_stamp": (message(age_s=1e9), "stale_stamp"),
}


def test_every_malformed_target_is_counted_and_moves_nothing(bench: ArmBench) -> None:
    # One at a time: the topic keeps the newest message only.
    assert bench.drive(at(0.0), lambda: bench.mode == "run")
    rejected = {reason: 0 for _, reason in HOSTILE.values()}
    for _ in range(4):
        for make, reason in HOSTILE.values():
            rejected[reason] += 1
            wanted = rejected[reason]
            key = f"rejected.{reason}"
            bench.target.publish(make(bench))
            assert bench.until(lambda key=key, wanted=wanted: bench.counted(key) >= wanted), key
            assert np.allclose(bench.arm.reference[0].position_m, HOME_POSE.position_m)
            accepted = bench.counted("accepted")
            assert bench.drive(
                at(0.0), lambda accepted=accepted: bench.counted("accepted") > accepted
            )
    for reason, wanted in rejected.items():
        # On a machine that stalls, a late heartbeat may count as stale as well.
        assert bench.counted(f"rejected.{reason}") >= wanted
    assert np.allclose(bench.arm.state().pose.position_m, HOME_POSE.position_m, atol=1e-6)


def test_gripper_targets_are_validated_and_sent_once(bench: ArmBench) -> None:
    def send(channels: dict[str, float], age_s: float = 0.0) -> None:
        stamp_ns = bench.now_ns() - int(age_s * 1e9)
        bench.gripper.publish(encode_channels(channels, stamp_ns))

    for channels, age_s, reason in (
        ({"gripper.width_m": NAN}, 0.0, "not_finite"),
        ({"gripper.width_m": 9.0}, 0.0, "out_of_range"),
        ({"gripper.width_m": -0.01}, 0.0, "out_of_range"),
        ({"gripper.open": 1.0}, 0.0, "unknown_channel"),
        ({}, 0.0, "missing_channel"),
        ({"gripper.width_m": 0.0}, 0.5, "stale_stamp"),
    ):
        before = bench.counted(f"rejected.gripper.{reason}")
        send(channels, age_s)
        assert bench.until(
            lambda reason=reason, before=before: (
                bench.counted(f"rejected.gripper.{reason}") == before + 1
            )
        ), reason
    bench.gripper.publish(JointState(name=["gripper.width_m"], position=[]))
    assert bench.until(lambda: bench.counted("rejected.gripper.wrong_length") == 1)
    worker = bench.arm_handle.controller.gripper
    assert worker.num_commands == 0
    for count in (1, 2):
        send({"gripper.width_m": 0.0})
        assert bench.until(lambda count=count: bench.counted("accepted.gripper") == count)
    assert bench.until(lambda: worker.state is not None and worker.state.width_m == 0.0)
    assert worker.num_commands == 1


def test_home_is_refused_while_targets_arrive_and_works_in_silence(bench: ArmBench) -> None:
    assert bench.drive(at(0.02), lambda: bench.mode == "run")
    refused = bench.call("home")
    assert not refused.success
    assert "silence the gate" in refused.message
    set_offset = Parameter("home_offset_m", value=[0.0, 0.02, 0.05])
    assert bench.controller.set_parameters([set_offset])[0].successful
    assert bench.until(lambda: bench.mode == "stopped")
    assert bench.call("home").success
    assert bench.arm.state().pose.position_m == pytest.approx(at(0.0, 0.02, 0.05).position_m)
    assert bench.until(lambda: bench.mode == "idle")


def test_services_that_wait_leave_the_executor_free(bench: ArmBench) -> None:
    """A homing that lasts: targets, timers and other services are answered meanwhile."""
    release: Future[None] = Future()
    arm = bench.arm
    arm.move_joints = lambda *_: release.result(10.0)  # type: ignore[method-assign]
    future = bench.clients["home"].call_async(_request())
    assert bench.until(lambda: bench.mode == "homing")
    bench.send(at(0.0))
    assert bench.until(lambda: bench.counted("rejected.homing") == 1)
    assert not bench.call("home").success
    assert "busy" in bench.call("recover").message
    ticks: list[float] = []
    timer = bench.peer.create_timer(0.005, lambda: ticks.append(time.monotonic()))
    assert bench.until(lambda: len(ticks) >= 40)
    bench.peer.destroy_timer(timer)
    assert np.percentile(np.diff(ticks), 90) < 0.015
    assert not future.done()
    release.set_result(None)
    released_s = time.monotonic()
    assert bench.until(future.done)
    assert time.monotonic() - released_s < 0.08
    assert future.result().success


def _request() -> object:
    from std_srvs.srv import Trigger

    return Trigger.Request()


def test_hold_freezes_until_recover(bench: ArmBench) -> None:
    with bench.heartbeat(lambda: at(0.02)):
        assert bench.until(lambda: bench.mode == "run")
        assert bench.call("hold").message == "the reference is frozen"
        assert bench.until(lambda: bench.mode == "hold" and bench.counted("rejected.held") > 0)
        frozen = bench.arm.reference[0].position_m
        seen = bench.counted("rejected.held")
        assert bench.until(lambda: bench.counted("rejected.held") > seen + 10)
        assert np.array_equal(bench.arm.reference[0].position_m, frozen)
        assert bench.call("recover").success
        assert bench.until(lambda: bench.mode == "run")


def test_rearming_ends_a_stop_and_never_a_hold(bench: ArmBench) -> None:
    assert bench.drive(at(0.02), lambda: bench.mode == "run")
    assert bench.until(lambda: bench.mode == "stopped")
    assert bench.call("rearm").success
    assert bench.until(lambda: bench.mode == "idle")
    assert bench.call("hold").success
    refused = bench.call("rearm")
    assert not refused.success
    assert "hold was asked for" in refused.message
    bench.send(at(0.02))
    assert bench.until(lambda: bench.counted("rejected.held") > 0)
    assert bench.call("recover").success
    assert bench.drive(at(0.02), lambda: bench.mode == "run")


def test_a_reflex_shows_at_once_and_is_latched_until_recover(bench: ArmBench) -> None:
    bench.listen("/diagnostics")
    assert bench.drive(at(0.02), lambda: bench.mode == "run")
    bench.arm.fail("reflex", "cartesian_reflex")

    def shown() -> bool:
        statuses = [m.status[0] for m in bench.heard["/diagnostics"]]
        return any(s.level == b"\x02" and "cartesian_reflex" in s.message for s in statuses)

    failed_s = time.monotonic()
    assert bench.until(shown)
    assert time.monotonic() - failed_s < 0.5
    assert not bench.call("home").success
    assert bench.call("recover").success
    assert bench.until(lambda: bench.mode == "idle")


def test_gains_and_clips_are_live_and_wrong_ones_are_refused(bench: ArmBench) -> None:
    results = bench.controller.set_parameters(
        [
            Parameter("stiffness_n_per_m", value=1000.0),
            Parameter("clip_plus_m", value=[0.002, 0.0, 0.0]),
            Parameter("preset", value="precise"),
            Parameter("clip_plus_m", value=[0.002]),
            Parameter("stiffness_n_per_m", value=1e6),
            Parameter("loop.rate_hz", value=100.0),
        ]
    )
    assert [r.successful for r in results] == [True, True, True, False, False, False]
    settings = bench.controller.config.settings()
    assert settings.stiffness_n_per_m == 1000.0
    assert settings.clip_plus_m == (0.002, 0.01, 0.01)
    assert settings.damping_nms_per_rad == 9.0
    assert bench.drive(at(0.0), lambda: bench.arm.settings == settings and bench.mode == "run")
    softer = Parameter("stiffness_n_per_m", value=500.0)
    assert bench.controller.set_parameters([softer])[0].successful
    assert bench.drive(at(0.0), lambda: bench.arm.settings.stiffness_n_per_m == 500.0)


def test_deactivation_brings_the_arm_to_rest(bench: ArmBench) -> None:
    assert bench.drive(at(0.02), lambda: bench.mode == "run")
    bench.controller.trigger_deactivate()
    assert bench.arm.mode is ArmMode.IDLE
    bench.send(at(0.02))
    assert bench.until(lambda: bench.counted("rejected.inactive") == 1)
    bench.controller.trigger_cleanup()
    bench.proprio.trigger_deactivate()
    arm = bench.arm
    bench.proprio.trigger_cleanup()
    assert arm.mode is ArmMode.DISCONNECTED


def test_the_statistics_are_in_the_diagnostics(bench: ArmBench) -> None:
    bench.listen("/diagnostics")

    def figures() -> dict[str, str]:
        for array in reversed(bench.heard["/diagnostics"]):
            values = {pair.key: pair.value for pair in array.status[0].values}
            if values.get("reference_rate_hz", "nan") != "nan":
                return values
        return {}

    assert bench.drive(at(0.02), lambda: bool(figures()))
    values = figures()
    for key in (
        "reference_rate_hz",
        "reference_jitter_p99_ms",
        "target_to_arm_p50_ms",
        "target_to_arm_p99_ms",
    ):
        assert float(values[key]) >= 0.0
    assert values["mode"] in [mode.value for mode in ControlMode]


def test_home_is_where_the_simulated_scene_expects_it() -> None:
    pytest.importorskip("mujoco")
    from vla_rl_ros.sim.scene import HOME_Q_RAD

    assert ImpedanceControllerConfig().home_joint_rad == HOME_Q_RAD


def test_the_controller_state_has_finite_channels_before_the_first_target(
    bench: ArmBench,
) -> None:
    bench.listen("arm/controller_state")
    assert bench.until(lambda: bool(bench.heard["arm/controller_state"]))
    state = bench.heard["arm/controller_state"][-1]
    assert decode_channels(state, state.name)["target.age_s"] == -1.0
