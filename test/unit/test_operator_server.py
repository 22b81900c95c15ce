# SPDX-License-Identifier: Apache-2.0
"""The operator's page over plain HTTP: what it shows, what it presses, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from unit.operator_stub import StubView, serving

from vla_rl_ros.tools import loopback_http
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
    assert (status, json.loads(body)) == (200, view.state)
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
