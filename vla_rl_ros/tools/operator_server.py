# SPDX-License-Identifier: Apache-2.0
"""The operator's page over HTTP: one page, its data as JSON, camera images, buttons.

Buttons move a robot, so a page of somebody else must not press them. A foreign site that a
browser on this machine shows can send requests here, but it cannot read the page and so does not
know the token that every button needs; its requests carry its own ``Origin``; and a name that was
made to point here (DNS rebinding) is refused by the ``Host`` it brings. Knows no ROS.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import sys
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.tools.page_image import encode_png

PAGE = "operator_page.html"
TOKEN_HEADER = "X-Operator-Token"
ANSWER_TIMEOUT_S = 30.0
MAX_SIDE_PX = 320
_SOCKET_TIMEOUT_S = 15.0


class View(Protocol):
    """What the page shows and presses; `ros.operator_view.OperatorView` is one."""

    def snapshot(self) -> dict[str, Any]:
        """State of the cell as JSON values."""

    def image(self, camera: str) -> ImageArray | None:
        """Newest image of a camera. Raises KeyError for an unknown one."""

    def press(self, button: str) -> Future[tuple[bool, str]]:
        """Press a button. Raises KeyError for an unknown one."""


class OperatorServer(ThreadingHTTPServer):
    """Serves one view.

    Attributes:
        token: What a page must know to press a button.
        key: What a reader must know where others than this machine can connect; empty otherwise.
    """

    daemon_threads = True

    def __init__(self, view: View, host: str, port: int) -> None:
        """Bind the port; `serve_forever` answers.

        Args:
            view: What to show.
            host: Address to listen on. Beyond loopback a key is needed to see anything.
            port: Port, 0 for any free one.

        Raises:
            OSError: The address is not to be had.
        """
        super().__init__((host, port), _Handler)
        self.view = view
        self.token = secrets.token_urlsafe(24)
        self.is_local = is_loopback_host(host)
        self.key = "" if self.is_local else secrets.token_urlsafe(24)
        self.page = files("vla_rl_ros.tools").joinpath(PAGE).read_text(encoding="utf-8")

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Pass over a browser that went away; show everything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where to point a browser on this machine."""
        host, port = self.server_address[:2]
        query = f"/?key={self.key}" if self.key else "/"
        return f"http://{host!s}:{port}{query}"

    def knows_host(self, host: str) -> bool:
        """Whether a request may name this server so in its ``Host`` header."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.server_address[1]:
            return False
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            # A name, and whoever owns it may point it anywhere.
            return False
        return address.is_loopback or not self.is_local


def is_loopback_host(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: OperatorServer
    # A connection per request: none outlives the server, no unread body is taken for a request.
    protocol_version = "HTTP/1.0"
    server_version = "operator"
    sys_version = ""
    timeout = _SOCKET_TIMEOUT_S

    def do_GET(self) -> None:
        """Page, state or image."""
        path = urlsplit(self.path).path
        if not self._may_read():
            return
        if path == "/":
            self._send_page()
        elif path == "/state":
            self._send_json(HTTPStatus.OK, self.server.view.snapshot())
        elif path.startswith("/camera/"):
            self._send_image(path.removeprefix("/camera/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Press a button."""
        if not (self._may_read() and self._may_press()):
            return
        try:
            answer = self.server.view.press(urlsplit(self.path).path.removeprefix("/press/"))
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such button")
            return
        try:
            is_done, sentence = answer.result(ANSWER_TIMEOUT_S)
        except FutureTimeoutError:
            is_done, sentence = False, f"no answer within {ANSWER_TIMEOUT_S:g} s"
        self._send_json(HTTPStatus.OK, {"is_done": is_done, "sentence": sentence})

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

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = self.server.page.replace("{{nonce}}", nonce).replace("{{token}}", self.server.token)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy}
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), headers)

    def _send_image(self, camera: str) -> None:
        try:
            image = self.server.view.image(camera)
        except KeyError:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such camera")
            return
        if image is None:
            self._send(HTTPStatus.NO_CONTENT, "image/png", b"")
        else:
            self._send(HTTPStatus.OK, "image/png", encode_png(shrunk(image)))

    def _send_json(self, status: HTTPStatus, value: object) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self._send_json(status, {"is_done": False, "sentence": sentence})

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page asks ten times per second."""


def shrunk(image: ImageArray) -> ImageArray:
    """Every n-th pixel, so that no side is longer than `MAX_SIDE_PX`."""
    step = max(1, -(-max(image.shape[:2]) // MAX_SIDE_PX))
    return np.ascontiguousarray(image[::step, ::step])
