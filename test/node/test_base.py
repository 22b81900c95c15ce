# SPDX-License-Identifier: Apache-2.0
"""Parameters, lifecycle, diagnostics, worker and codecs on a real graph."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from hypothesis import given
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import EpisodeMachine, Outcome, Phase
from vla_rl_ros.core.errors import ConfigError, DeviceError, InvalidCommandError
from vla_rl_ros.core.types import ActionChunk, Pose
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.channels import check_age, decode_channels, encode_channels
from vla_rl_ros.ros.chunk_codec import decode_chunk, encode_chunk
from vla_rl_ros.ros.episode_codec import decode_episode, encode_episode
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.qos import EVENT
from vla_rl_ros.ros.testing import spin_until
from vla_rl_ros.ros.worker import Worker

pytestmark = pytest.mark.ros


@dataclass(frozen=True, kw_only=True)
class Config:
    address: str = param(doc="Required.")
    gain: float = param(1.0, doc="Gain.", unit="N/m", low=0.0, high=2.0, live=True)
    limit: float = param(1.5, doc="Largest gain.", low=0.0, high=2.0)
    box: tuple[float, ...] = param((0.0, 1.0), doc="Two numbers.", live=True)

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.gain > self.limit:
            raise ConfigError(f"gain={self.gain} exceeds limit={self.limit}")


class Probe(ManagedNode[Config]):
    def __init__(self, overrides: dict[str, object], breaks: str = "") -> None:
        self.calls: list[str] = []
        self._breaks = breaks
        super().__init__("probe", Config, overrides)

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if name == self._breaks:
            raise DeviceError(f"{name} is broken: plug it in")

    def setup(self) -> None:
        self._step("setup")

    def start(self) -> None:
        self._step("start")

    def stop(self, reason: str) -> None:
        self._step("stop")

    def teardown(self) -> None:
        self._step("teardown")


def made(executor, breaks: str = "", **overrides: object) -> Probe:
    node = Probe({"address": "here", "autostart": False, **overrides}, breaks)
    executor.add_node(node)
    return node


def test_required_unknown_and_inconsistent_parameters_are_named(executor) -> None:
    with pytest.raises(ConfigError, match="required parameter 'address'"):
        Probe({"autostart": False})
    with pytest.raises(ConfigError, match=r"unknown parameter.*gian"):
        made(executor, gian=1.0)
    with pytest.raises(ConfigError, match="exceeds limit"):
        made(executor, gain=1.9)
    with pytest.raises(ConfigError, match="gain"):
        made(executor, gain=5.0)


def test_live_fields_change_as_a_whole_or_not_at_all(executor) -> None:
    node = made(executor)
    good, bad, frozen = node.set_parameters(
        [
            Parameter("gain", value=1.2),
            Parameter("gain", value=1.8),
            Parameter("limit", value=1.0),
        ]
    )
    assert good.successful
    assert node.config.gain == 1.2
    assert not bad.successful
    assert "exceeds limit" in bad.reason
    assert not frozen.successful
    assert "only be set at start" in frozen.reason
    assert node.set_parameters([Parameter("box", value=[2.0, 3.0])])[0].successful
    assert node.config.box == (2.0, 3.0)


def test_hooks_run_in_order_and_shutdown_stops_first(executor) -> None:
    node = made(executor)
    node.trigger_configure()
    node.trigger_activate()
    node.trigger_shutdown()
    assert node.calls == ["setup", "start", "stop", "teardown"]


def test_autostart_brings_the_node_up_alone(executor) -> None:
    node = made(executor, autostart=True)
    assert spin_until(executor, lambda: node.is_running)


@pytest.mark.parametrize("hook", ["setup", "start"])
def test_a_failing_hook_leaves_its_sentence_in_diagnostics(executor, hook: str) -> None:
    node = made(executor, breaks=hook)
    seen: list[str] = []
    node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: seen.append(m.status[0].message), EVENT
    )
    spin_until(executor, lambda: node.count_publishers("/diagnostics") > 0)
    node.trigger_configure()
    node.trigger_activate()
    assert spin_until(executor, lambda: any("is broken: plug it in" in text for text in seen))
    assert not node.is_running


def test_worker_keeps_only_the_newest_waiting_job_and_survives_errors() -> None:
    gate, entered, done, errors = threading.Event(), threading.Event(), [], []

    def work(job: int) -> None:
        entered.set()
        gate.wait(5.0)
        if job == 0:
            raise ValueError("bad job")
        done.append(job)

    worker = Worker(work, errors.append, "test")
    worker.submit(0)
    assert entered.wait(5.0)
    assert worker.submit(1)
    assert not worker.submit(2)
    gate.set()
    deadline = threading.Event()
    while not worker.is_idle and not deadline.wait(0.001):
        pass
    assert done == [2]
    assert str(errors[0]) == "bad job"
    assert worker.stop()


number = st.floats(-10.0, 10.0)


@given(st.lists(st.lists(number, min_size=7, max_size=7), min_size=1, max_size=20))
def test_chunk_round_trips(rows: list[list[float]]) -> None:
    chunk = ActionChunk(
        chunk_id=7,
        epoch=3,
        stamp_ns=1_700_000_000_123_456_789,
        period_ns=100_000_000,
        delay_ticks=2,
        actions=np.array(rows),
    )
    back = decode_chunk(encode_chunk(chunk), chunk.period_ns)
    assert (back.chunk_id, back.epoch, back.stamp_ns, back.delay_ticks) == (
        7,
        3,
        chunk.stamp_ns,
        2,
    )
    assert np.array_equal(back.actions, chunk.actions)


def test_chunk_of_another_period_or_length_is_refused() -> None:
    chunk = ActionChunk(
        chunk_id=1,
        epoch=1,
        stamp_ns=0,
        period_ns=100_000_000,
        delay_ticks=0,
        actions=np.zeros((3, 7)),
    )
    message = encode_chunk(chunk)
    with pytest.raises(InvalidCommandError, match="bad_period"):
        decode_chunk(message, 50_000_000)
    message.points[1].positions = [0.0]
    with pytest.raises(InvalidCommandError, match="wrong_length"):
        decode_chunk(message, 100_000_000)


def test_pose_image_and_episode_round_trip() -> None:
    pose = Pose(np.array([0.1, 0.2, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
    back = codecs.decode_pose(codecs.encode_pose(pose, 5))
    assert np.array_equal(back.position_m, pose.position_m)
    rgb = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(codecs.decode_image(codecs.encode_image(rgb, 1, "camera")), rgb)
    machine = EpisodeMachine()
    machine.go(Phase.IDLE)
    machine.begin(episode_id="a", task="lift", instruction="lift the red cube", seed=4)
    machine.go(Phase.FAULT, reason="reflex")
    assert machine.state.outcome is Outcome.FAULT
    assert decode_episode(encode_episode(machine.state, 9)) == machine.state


@pytest.mark.parametrize(
    ("names", "values", "reason"),
    [
        (["a"], [1.0, 2.0], "wrong_length"),
        (["a", "a"], [1.0, 2.0], "duplicate_channel"),
        (["b"], [1.0], "unknown_channel"),
        ([], [], "missing_channel"),
        (["a"], [float("nan")], "not_finite"),
    ],
)
def test_bad_channels_are_refused_whole(
    names: list[str], values: list[float], reason: str
) -> None:
    with pytest.raises(InvalidCommandError) as caught:
        decode_channels(JointState(name=names, position=values), ["a"])
    assert caught.value.reason == reason


def test_stale_and_future_stamps_are_refused() -> None:
    assert decode_channels(encode_channels({"a": 1.0}, 5), ["a"]) == {"a": 1.0}
    with pytest.raises(InvalidCommandError, match="stale_stamp"):
        check_age(0, 200_000_000, max_age_s=0.1, max_ahead_s=0.05)
    with pytest.raises(InvalidCommandError, match="future_stamp"):
        check_age(200_000_000, 0, max_age_s=0.1, max_ahead_s=0.05)


CHILD = """
import sys
import time
from rclpy.lifecycle import LifecycleNode
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.run import run
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class Config: pass
class Child(ManagedNode[Config]):
    def start(self): print("started", flush=True)
    def stop(self, reason): print("stopped", reason, self.context.ok(), flush=True)
class Stuck(Child):
    def destroy_node(self):
        import ctypes
        ctypes.PyDLL(None).sleep(60)  # with the interpreter's lock, as the middleware does
class Interrupted(Child):
    def setup(self):
        print("started", flush=True)
        time.sleep(60)
    def teardown(self):
        time.sleep(2.0)  # longer than the middleware may take
        print("torn down", flush=True)
sys.exit(run(lambda: globals()[sys.argv[1]]("child", Config)))
"""


def start_child(kind: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "started"
    return child


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_node_while_its_context_is_alive(signum: signal.Signals) -> None:
    child = start_child("Child")
    child.send_signal(signum)
    out, _ = child.communicate(timeout=10)
    assert out.strip() == "stopped shutdown True"
    assert child.returncode == 0


def test_a_middleware_that_hangs_does_not_keep_a_stopped_node() -> None:
    child = start_child("Stuck")
    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=10)
    assert out.strip() == "stopped shutdown True"
    assert child.returncode == -signal.SIGALRM
    assert "in destroy_node" in said


def test_a_node_that_was_interrupted_in_a_transition_still_lets_go() -> None:
    child = start_child("Interrupted")
    child.send_signal(signal.SIGINT)
    out = said = ""
    for _ in range(5):
        # While one is on its way the kernel gives another to any thread, where it wakes nobody.
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, said = child.communicate(timeout=5)
            break
    assert out.strip() == "torn down", said
    assert child.returncode == 0, said
