# SPDX-License-Identifier: Apache-2.0
"""The operator's page over plain HTTP: what it shows, what it presses, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from unit.operator_stub import StubView, serving

from vla_rl_ros.tools import loopback_http
from vla_rl_ros.tools.operator_presses import KEPT_S, TIMEOUT_S, Presses
from vla_rl_ros.tools.operator_server import (
    MAX_SIDE_PX,
    TOKEN_HEADER,
    OperatorServer,
    shrunk,
)


@pytest.fixture
def view() -> StubView:
    return StubView()


@pytest.fixture
def server(view: StubView) -> Iterator[OperatorServer]:
    with serving(view) as server:
        yield server


def ask(
    server: OperatorServer, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), port, timeout=5.0)
    try:
        given = {"Host": f"{host}:{port}", **(headers or {})}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def own(server: OperatorServer, **changes: str) -> dict[str, str]:
    """Headers that the page itself would send."""
    headers = {"Origin": f"http://127.0.0.1:{server.server_address[1]}"}
    return {**headers, TOKEN_HEADER: server.token, "Sec-Fetch-Site": "same-origin", **changes}


def test_the_page_carries_its_token_and_loads_nothing_from_elsewhere(
    server: OperatorServer,
) -> None:
    status, body, headers = ask(server, "GET", "/")
    page = body.decode()
    assert status == 200
    assert f'content="{server.token}"' in page
    assert "{{" not in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


def test_the_state_and_images_are_served(server: OperatorServer, view: StubView) -> None:
    status, body, _ = ask(server, "GET", "/state")
    assert (status, json.loads(body)) == (200, {**view.state, "presses": {}})
    status, body, headers = ask(server, "GET", "/camera/wrist")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    assert ask(server, "GET", "/camera/front")[0] == 204
    assert ask(server, "GET", "/camera/roof")[0] == 404
    assert ask(server, "GET", "/etc/passwd")[0] == 404


def test_buttons_are_pressed_and_the_answer_is_told(
    server: OperatorServer, view: StubView
) -> None:
    for button in ("start", "success", "failure", "stop", "recover", "reset_done"):
        status, body, _ = ask(server, "POST", f"/press/{button}", own(server))
        assert (status, json.loads(body)) == (200, {"is_done": True, "sentence": "as you wish"})
    view.answer = (False, "the cell is idle")
    body = ask(server, "POST", "/press/stop", own(server))[1]
    assert json.loads(body) == {"is_done": False, "sentence": "the cell is idle"}
    assert view.pressed == ["start", "success", "failure", "stop", "recover", "reset_done", "stop"]
    assert ask(server, "POST", "/press/self_destruct", own(server))[0] == 404


def state(server: OperatorServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(server, "GET", "/state")[1])
    return found


def test_a_press_that_takes_its_time_holds_no_connection(
    server: OperatorServer, view: StubView
) -> None:
    view.slow = {"recover"}
    body = ask(server, "POST", "/press/recover", own(server))[1]
    name = json.loads(body)["press"]
    assert state(server)["presses"] == {}
    view.answer_slow()
    assert state(server)["presses"] == {name: {"is_done": True, "sentence": "as you wish"}}


def test_answers_that_nobody_waits_for_are_forgotten_and_silence_is_told() -> None:
    now_s = 10.0
    presses = Presses(lambda: now_s)
    quick, slow, never = Future(), Future(), Future()
    quick.set_result((False, "the cell is idle"))
    assert presses.follow(quick) == {"is_done": False, "sentence": "the cell is idle"}
    told, lost = presses.follow(slow)["press"], presses.follow(never)["press"]
    slow.set_result((True, "recovered"))
    assert list(presses.answered()) == [told]
    now_s += TIMEOUT_S + 1.0
    assert presses.answered()[lost] == {"is_done": False, "sentence": "no answer within 30 s"}
    now_s += KEPT_S
    assert presses.answered() == {}


def test_one_clients_looks_and_presses_do_not_delay_the_stop_of_another(
    server: OperatorServer, view: StubView
) -> None:
    view.slow = {"start", "recover"}
    view.may_look.clear()
    errors: list[BaseException] = []

    def other(method: str, path: str) -> None:
        try:
            ask(server, method, path, own(server))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    others = [
        threading.Thread(target=other, args=pair)
        for pair in [("GET", "/camera/wrist"), ("POST", "/press/recover")] * 20
    ]
    for thread in others:
        thread.start()
    begin_s = time.monotonic()
    body = ask(server, "POST", "/press/stop", own(server))[1]
    assert json.loads(body)["is_done"]
    assert time.monotonic() - begin_s < 1.0
    assert "stop" in view.pressed
    view.may_look.set()
    for thread in others:
        thread.join(10.0)
    assert errors == []
    assert view.pressed.count("recover") == 20


def test_connections_that_come_at_once_are_all_taken(view: StubView) -> None:
    # Nobody accepts yet: what does not fit into the queue is tried again a second later.
    server = OperatorServer(view, "127.0.0.1", 0)
    with ExitStack() as stack:
        stack.callback(server.server_close)
        for _ in range(60):
            address = server.server_address[:2]
            stack.enter_context(socket.create_connection(address, timeout=0.8))


@pytest.mark.parametrize(
    "change",
    [
        {TOKEN_HEADER: ""},
        {TOKEN_HEADER: "wrong"},
        {TOKEN_HEADER: "\u00e9"},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8765"},
        {"Host": ""},
        {"Host": "127.0.0.1"},
        {"Host": "[::1"},
    ],
)
def test_nobody_else_presses(
    server: OperatorServer, view: StubView, change: dict[str, str]
) -> None:
    status, body, _ = ask(server, "POST", "/press/start", own(server, **change))
    assert status == 403
    assert json.loads(body)["sentence"]
    assert view.pressed == []


def test_nothing_is_pressed_by_reading(server: OperatorServer, view: StubView) -> None:
    assert ask(server, "GET", "/press/start", own(server))[0] == 404
    assert view.pressed == []


def test_a_name_that_was_pointed_here_reads_nothing(server: OperatorServer) -> None:
    port = server.server_address[1]
    for path in ("/", "/state", "/camera/wrist"):
        status, body, _ = ask(server, "GET", path, {"Host": f"rebound.example:{port}"})
        assert status == 403
        assert server.token.encode() not in body
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert ask(server, "GET", "/state", {"Host": f"{name}:{port}"})[0] == 200


def test_beyond_loopback_a_key_is_needed_even_to_look(
    view: StubView, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if others could connect; a test opens no port to them.
    monkeypatch.setattr(loopback_http, "is_loopback_host", lambda _: False)
    with serving(view) as server:
        assert not server.is_local
        host = {"Host": f"192.0.2.7:{server.server_address[1]}"}
        origin = own(server, Origin=f"http://{host['Host']}", **host)
        assert ask(server, "GET", "/", host)[0] == 403
        assert ask(server, "GET", "/state?key=guess", host)[0] == 403
        assert ask(server, "POST", "/press/stop", origin)[0] == 403
        assert ask(server, "GET", f"/?key={server.key}", host)[0] == 200
        assert ask(server, "POST", f"/press/stop?key={server.key}", origin)[0] == 200
        assert f"key={server.key}" in server.url
        named = {"Host": f"robot.example:{server.server_address[1]}"}
        assert ask(server, "GET", f"/?key={server.key}", named)[0] == 403
    assert view.pressed == ["stop"]


def test_every_run_has_its_own_token(view: StubView) -> None:
    with serving(view) as one, serving(view) as two:
        assert one.token != two.token
        assert one.key == ""


def test_large_images_are_thinned() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    assert max(shrunk(np.zeros((480, 848, 3), np.uint8)).shape) <= MAX_SIDE_PX
    assert shrunk(image).shape == image.shape
