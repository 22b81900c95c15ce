# SPDX-License-Identifier: Apache-2.0
"""The openpi client against a real server in another process, well and ill."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from contract.openpi_server import ServerProcess

from vla_rl_ros.core.errors import ConfigError, InferenceError, InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)

ENVIRONMENT = PolicyEnvironment(control_period_s=0.1, cameras=("wrist", "front"))
TIMEOUT_S = 1.0
EXAMPLES = sorted((Path(__file__).parents[2] / "config" / "policies").glob("openpi_*.json"))
SLACK_S = 0.5
"""What a busy machine may add to a bound."""


def manifest(**changes: object) -> dict[str, object]:
    return {
        "format": 1,
        "backend": "openpi",
        "control_period_s": 0.1,
        "horizon": 8,
        "cameras": ["front"],
        "image_px": 32,
        "inputs": {
            "image": "camera.front",
            "state": ["tcp.x_m", "tcp.y_m", "tcp.z_m", "gripper.width_m"],
            "prompt": "instruction",
        },
        "action": {"codec": "delta_target", "gripper": "binary"},
        **changes,
    }


def observation(instruction: str = "lift", **changes: object) -> PolicyObservation:
    state = np.zeros(20)
    state[:3], state[3:7], state[19] = [0.5, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0], 0.08
    image = np.full((64, 64, 3), 100, dtype=np.uint8)
    image.setflags(write=False)
    values = {
        "stamp_ns": 0,
        "images": {"front": image},
        "state": state,
        "instruction": instruction,
        "task": "",
        **changes,
    }
    return PolicyObservation(**values)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    server = ServerProcess(tmp_path_factory.mktemp("openpi"))
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path):
    server = ServerProcess(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def make(tmp_path):
    """Make a policy that asks a server."""

    def _make(url: str, timeout_s: float = TIMEOUT_S, **changes: object):
        path = tmp_path / "policy.json"
        path.write_text(json.dumps(manifest(**changes)), encoding="utf-8")
        settings = PolicySettings(path=str(path), url=url, timeout_s=timeout_s)
        return make_policy("openpi", settings, ENVIRONMENT)

    return _make


def test_a_chunk_comes_from_the_server(shared_server, make) -> None:
    policy = make(shared_server.url)
    actions = policy.infer(observation(), None)
    wanted = 0.01 * np.sin(np.arange(8)[:, None] + np.array([0.5, 0.0, 0.3]))
    assert policy.horizon == 8
    assert policy.cameras == ("front",)
    assert policy.anchor is Anchor.LAST_TARGET
    np.testing.assert_allclose(actions[:, :3], wanted, atol=1e-7)
    assert np.array_equal(actions[:, 3:], [[0.0, 0.0, 0.0, 1.0]] * 8)


def test_the_server_sees_what_the_manifest_lists(shared_server, make) -> None:
    make(shared_server.url).infer(observation("press the button"), None)
    seen = shared_server.questions()[-1]
    assert set(seen) == {"image", "state", "prompt"}
    assert seen["image"][:2] == ["uint8", [32, 32, 3]]
    assert seen["state"] == ["float64", [4], pytest.approx(0.88)]
    assert seen["prompt"] == "press the button"


def test_promised_actions_go_under_both_names(shared_server, make) -> None:
    policy = make(shared_server.url, prefix={"max_locked": 4, "conditioning": ["lock"]})
    promised = np.full((5, 7), 0.01)
    prefix = Prefix(actions=promised, num_locked=3, conditioning=Conditioning.LOCK)
    actions = policy.infer(observation(), prefix)
    assert np.array_equal(actions[:3], promised[:3])
    assert policy.conditionings == {Conditioning.NONE, Conditioning.LOCK}
    assert policy.max_locked == 4
    seen = shared_server.questions()[-1]
    assert seen["prev_chunk"] == seen["prev_chunk_left_over"]
    assert seen["prev_chunk"][:2] == ["float32", [5, 7]]
    assert seen["inference_delay"] == 3


def test_a_server_without_prefix_gets_none(shared_server, make) -> None:
    prefix = Prefix(actions=np.zeros((5, 7)), num_locked=3, conditioning=Conditioning.NONE)
    make(shared_server.url).infer(observation(), prefix)
    assert "prev_chunk" not in shared_server.questions()[-1]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("garbage", "no openpi message"),
        ("huge", "closed the connection.*16"),
        ("text", "reports: KeyError: 'observation/image'"),
        ("list", "a list instead of a map"),
        ("nameless", "no array 'actions', but action"),
        ("few rows", r"shape \(5, 7\), horizon in policy.json is 8"),
        ("wide rows", "32 numbers per row, the codec 'delta_target' in policy.json has 7"),
        ("nan", "not_finite"),
        ("short", "has 3 bytes"),
        ("object", "object are not accepted"),
    ],
)
def test_nonsense_is_named_and_the_next_answer_is_right(
    shared_server, make, prompt: str, sentence: str
) -> None:
    policy = make(shared_server.url)
    good = policy.infer(observation(), None)
    with pytest.raises(InferenceError, match=sentence):
        policy.infer(observation(prompt), None)
    assert np.array_equal(ask_until_answered(policy), good)


def test_a_slow_server_costs_the_timeout_and_its_late_answer_is_never_used(
    shared_server, make
) -> None:
    policy = make(shared_server.url)
    good = policy.infer(observation(), None)
    slow = observation(f"sleep {TIMEOUT_S + 0.3}")
    slow.state[0] = 0.7
    begun_s = time.monotonic()
    with pytest.raises(InferenceError, match=r"did not answer within timeout_s=1\.0"):
        policy.infer(slow, None)
    assert time.monotonic() - begun_s < TIMEOUT_S + SLACK_S
    for _ in range(3):
        assert np.array_equal(ask_until_answered(policy), good)


def test_a_killed_server_is_found_again(own_server, make) -> None:
    policy = make(own_server.url)
    good = policy.infer(observation(), None)
    with pytest.raises(InferenceError, match="closed the connection"):
        policy.infer(observation("die"), None)
    own_server.stop()
    for _ in range(20):
        begun_s = time.monotonic()
        with pytest.raises(InferenceError, match=r"no policy server at|next try in"):
            policy.infer(observation(), None)
        assert time.monotonic() - begun_s < SLACK_S
    own_server.start()
    begun_s = time.monotonic()
    assert np.array_equal(ask_until_answered(policy), good)
    assert time.monotonic() - begun_s < 2.0


def test_a_server_that_stops_reading_blocks_no_longer_than_the_timeout(own_server, make) -> None:
    policy = make(own_server.url, image_px=0)
    good = policy.infer(observation(), None)
    own_server.signal(signal.SIGSTOP)
    try:
        # More than the buffers of a connection hold.
        large = np.zeros((2000, 2000, 3), dtype=np.uint8)
        for _ in range(3):
            begun_s = time.monotonic()
            with pytest.raises(InferenceError):
                policy.infer(observation(images={"front": large}), None)
            assert time.monotonic() - begun_s < TIMEOUT_S + SLACK_S
    finally:
        own_server.signal(signal.SIGCONT)
    assert np.array_equal(ask_until_answered(policy), good)


def test_something_else_on_the_port_is_no_policy_server(make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        policy = make(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.2)
        begun_s = time.monotonic()
        with pytest.raises(InferenceError, match=r"did not answer within timeout_s=0\.2"):
            policy.infer(observation(), None)
        assert time.monotonic() - begun_s < 0.2 + SLACK_S


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": {}}, "missing_image.*front"),
        ({"images": {"front": np.zeros((64, 64), dtype=np.uint8)}}, "wrong_image"),
        ({"images": {"front": np.zeros((64, 64, 3))}}, "wrong_image"),
        ({"state": np.full(20, np.nan)}, "not_finite"),
        ({"state": np.zeros(7)}, "wrong_length"),
    ],
)
def test_a_bad_observation_is_never_sent(make, changes: dict[str, object], reason: str) -> None:
    # Nobody listens there: asking would be another error.
    policy = make("ws://127.0.0.1:9")
    with pytest.raises(InvalidCommandError, match=reason):
        policy.infer(observation(**changes), None)


def test_joint_codecs_ask_for_joint_angles_first(make) -> None:
    policy = make("ws://127.0.0.1:9", action={"codec": "joint"})
    with pytest.raises(InvalidCommandError, match="missing_joints"):
        policy.infer(observation(), None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"horizon": 0}, "horizon"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"image": "camera.top"}}, "inputs.image"),
        ({"inputs": {"state": ["tcp.height"]}}, "tcp.height"),
        ({"backend": "pi0"}, "backend"),
        ({"control_period_s": 0.05}, "control_period_s"),
        ({"cameras": ["front", "left"]}, "cameras"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(make, changes, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make("ws://127.0.0.1:9", **changes)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1:8000", "ws://"])
def test_an_url_that_is_none_is_refused(make, url: str) -> None:
    with pytest.raises(ConfigError, match="url="):
        make(url)


def test_without_a_manifest_nothing_is_made() -> None:
    with pytest.raises(ConfigError, match="path is empty"):
        make_policy("openpi", PolicySettings(), ENVIRONMENT)
    with pytest.raises(ConfigError, match="cannot read"):
        make_policy("openpi", PolicySettings(path="/nowhere"), ENVIRONMENT)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_made(path: Path) -> None:
    period_s = json.loads(path.read_text(encoding="utf-8"))["control_period_s"]
    environment = PolicyEnvironment(control_period_s=period_s, cameras=("wrist", "front"))
    policy = make_policy("openpi", PolicySettings(path=str(path)), environment)
    assert set(policy.cameras) == {"wrist", "front"}


def ask_until_answered(policy) -> np.ndarray:
    deadline_s = time.monotonic() + 10.0
    while time.monotonic() < deadline_s:
        with contextlib.suppress(InferenceError):
            return policy.infer(observation(), None)
    raise AssertionError("the server did not come back")
