# SPDX-License-Identifier: Apache-2.0
"""The operator's page over HTTP: one page, its data as JSON, camera images, buttons.

Buttons move a robot, so a page of somebody else must not press them. A foreign site that a
browser on this machine shows can send requests here, but it cannot read the page and so does not
know the token that every button needs, and its requests carry its own ``Origin``. What else keeps
it out is in `loopback_http`. Knows no ROS.
"""

from __future__ import annotations

import hmac
import json
import secrets
from concurrent.futures import Future
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.tools.loopback_http import PageHandler, PageServer
from vla_rl_ros.tools.operator_presses import Presses
from vla_rl_ros.tools.page_image import encode_png

PAGE = "operator_page.html"
TOKEN_HEADER = "X-Operator-Token"
MAX_SIDE_PX = 320


class View(Protocol):
    """What the page shows and presses; `ros.operator_view.OperatorView` is one."""

    def snapshot(self) -> dict[str, Any]:
        """State of the cell as JSON values."""

    def image(self, camera: str) -> ImageArray | None:
        """Newest image of a camera. Raises KeyError for an unknown one."""

    def press(self, button: str) -> Future[tuple[bool, str]]:
        """Press a button. Raises KeyError for an unknown one."""


class OperatorServer(PageServer):
    """Serves one view.

    Attributes:
        presses: Those whose answer has not come yet.
        token: What a page must know to press a button.
        key: What a reader must know where others than this machine can connect; empty otherwise.
    """

    def __init__(self, view: View, host: str, port: int) -> None:
        """Bind the port; `serve_forever` answers.

        Args:
            view: What to show.
            host: Address to listen on. Beyond loopback a key is needed to see anything.
            port: Port, 0 for any free one.

        Raises:
            OSError: The address is not to be had.
        """
        super().__init__(host, port, _Handler)
        self.view = view
        self.presses = Presses()
        self.token = secrets.token_urlsafe(24)
        self.key = "" if self.is_local else secrets.token_urlsafe(24)
        self.page = files("vla_rl_ros.tools").joinpath(PAGE).read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Where to point a browser on this machine."""
        host, port = self.server_address[:2]
        query = f"/?key={self.key}" if self.key else "/"
        return f"http://{host!s}:{port}{query}"


class _Handler(PageHandler):
    """Answers one connection."""

    server: OperatorServer

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        """Page, state or image."""
        path = urlsplit(self.path).path
        if not self._may_read():
            return
        if path == "/":
            self.send_page(self.server.page.replace("{{token}}", self.server.token))
        elif path == "/state":
            state = {**self.server.view.snapshot(), "presses": self.server.presses.answered()}
            self._send_json(HTTPStatus.OK, state)
        elif path.startswith("/camera/"):
            self._send_image(path.removeprefix("/camera/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:  # noqa: N802 - named by http.server
        """Press a button; where its answer takes longer, the state brings it."""
        if not (self._may_read() and self._may_press()):
            return
        try:
            answer = self.server.view.press(urlsplit(self.path).path.removeprefix("/press/"))
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such button")
            return
        self._send_json(HTTPStatus.OK, self.server.presses.follow(answer))

    def _may_read(self) -> bool:
        if not self.server.knows_host(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "this server is not called that")
            return False
        if self.server.key:
            given = parse_qs(urlsplit(self.path).query).get("key", [""])[0]
            if not hmac.compare_digest(given.encode(), self.server.key.encode()):
                self._refuse(HTTPStatus.FORBIDDEN, "the address lacks its key")
                return False
        return True

    def _may_press(self) -> bool:
        origin, site = self.headers.get("Origin", ""), self.headers.get("Sec-Fetch-Site", "")
        is_own = origin == f"http://{self.headers.get('Host', '')}"
        if not is_own or site not in ("", "same-origin"):
            self._refuse(HTTPStatus.FORBIDDEN, "buttons are pressed from this server's own page")
            return False
        token = self.headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the page is of an earlier run: load it again")
            return False
        return True

    def _send_image(self, camera: str) -> None:
        try:
            image = self.server.view.image(camera)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such camera")
            return
        if image is None:
            self.send_body(HTTPStatus.NO_CONTENT, "image/png", b"")
        else:
            self.send_body(HTTPStatus.OK, "image/png", encode_png(shrunk(image)))

    def _send_json(self, status: HTTPStatus, value: object) -> None:
        self.send_body(status, "application/json", json.dumps(value).encode())

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._send_json(status, {"is_done": False, "sentence": sentence})


def shrunk(image: ImageArray) -> ImageArray:
    """Every n-th pixel, so that no side is longer than `MAX_SIDE_PX`."""
    step = max(1, -(-max(image.shape[:2]) // MAX_SIDE_PX))
    return np.ascontiguousarray(image[::step, ::step])
