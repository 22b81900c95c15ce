# SPDX-License-Identifier: Apache-2.0
"""Requests to the simulated scene: executed where the simulation steps, whatever comes in."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.scene_channel import MAX_LINE_BYTES, SceneClient, SceneServer, parse_request


class Stepper:
    """A simulation loop that only answers requests, in a thread of its own."""

    def __init__(self, path) -> None:
        self.thread_of_handler: list[int] = []
        self.server = SceneServer(
            path,
            {
                "echo": self.echo,
                "late": lambda args: lambda: {"thread": threading.get_ident()},
                "refuse": self.refuse,
                "break": lambda args: {"value": 1 / 0},
            },
        )
        self.path = path
        self._is_done = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def echo(self, args):
        self.thread_of_handler.append(threading.get_ident())
        return args

    @staticmethod
    def refuse(args):
        raise SceneError(f"no {sorted(args)}")

    def run(self) -> None:
        while not self._is_done.wait(0.001):
            self.server.run_pending()

    def close(self) -> None:
        self._is_done.set()
        self.thread.join()
        self.server.close()


@pytest.fixture
def stepper(tmp_path):
    loop = Stepper(tmp_path / "scene.sock")
    yield loop
    loop.close()


@pytest.fixture
def client(stepper):
    with SceneClient(stepper.path) as scene:
        yield scene


def exchange(path, payload: bytes) -> dict:
    with socket.socket(socket.AF_UNIX) as raw, raw.makefile("rb") as lines:
        raw.settimeout(5.0)
        raw.connect(str(path))
        raw.sendall(payload)
        return json.loads(lines.readline())


def test_requests_run_in_the_simulation_thread(stepper, client):
    assert client.request("echo", a=1, b=[2.5, "x"]) == {"a": 1, "b": [2.5, "x"]}
    assert stepper.thread_of_handler == [stepper.thread.ident]


def test_what_a_handler_puts_off_runs_elsewhere(stepper, client):
    assert client.request("late")["thread"] != stepper.thread.ident


def test_a_refusal_arrives_as_the_sentence(client):
    with pytest.raises(SceneError, match=r"no \['x'\]"):
        client.request("refuse", x=1)


def test_unknown_operations_are_answered_with_the_known_ones(client):
    with pytest.raises(SceneError, match="unknown operation 'fly', known are: break, echo"):
        client.request("fly")


def test_a_broken_handler_answers_and_the_loop_goes_on(client):
    with pytest.raises(SceneError, match="ZeroDivisionError"):
        client.request("break")
    assert client.request("echo", alive=True) == {"alive": True}


MALFORMED = [
    b"\n",
    b"nonsense\n",
    b"[]\n",
    b"null\n",
    b'{"op": 1}\n',
    b'{"op": "echo", "args": []}\n',
    b'{"op": "echo", "args": {"x": NaN}}\n',
    b'{"op": "echo", "args": {"x": -Infinity}}\n',
    b'{"op": "echo", "extra": {}}\n',
    b"\xff\xfe\n",
    b"[" * 20_000 + b"\n",
    b"x" * (MAX_LINE_BYTES + 10) + b"\n",
]


@pytest.mark.parametrize("line", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_lines_are_answered_with_an_error(stepper, line):
    answer = exchange(stepper.path, line)
    assert answer["ok"] is False
    assert answer["error"]
    assert exchange(stepper.path, b'{"op": "echo", "args": {"x": 1}}\n')["result"] == {"x": 1}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_scene_error(line):
    try:
        operation, args = parse_request(line)
    except SceneError:
        return
    assert isinstance(operation, str)
    assert isinstance(args, dict)


def test_several_clients_at_once(stepper):
    def ask(index: int, answers: list) -> None:
        with SceneClient(stepper.path) as scene:
            answers += [scene.request("echo", index=index)["index"] for _ in range(20)]

    answers: list[int] = []
    threads = [threading.Thread(target=ask, args=(i, answers)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(list(range(4)) * 20)


def test_a_client_reconnects_after_the_scene_was_restarted(tmp_path):
    path = tmp_path / "scene.sock"
    first = Stepper(path)
    with SceneClient(path, timeout_s=2.0) as scene:
        scene.request("echo")
        first.close()
        with pytest.raises(SceneError, match="no answer"):
            scene.request("echo")
        second = Stepper(path)
        assert scene.request("echo", back=1) == {"back": 1}
        second.close()


def test_no_scene_is_a_sentence(tmp_path):
    with pytest.raises(SceneError, match="no answer from the scene"):
        SceneClient(tmp_path / "none.sock").request("ping")


def test_closing_removes_the_socket(tmp_path):
    path = tmp_path / "scene.sock"
    loop = Stepper(path)
    assert path.exists()
    loop.close()
    assert not path.exists()


def test_a_path_too_long_for_a_socket_is_a_sentence(tmp_path):
    with pytest.raises(SceneError, match="use a short path"):
        SceneServer(tmp_path / ("x" * 120), {})
