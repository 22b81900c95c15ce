# SPDX-License-Identifier: Apache-2.0
"""What pages of ours have in common: headers that keep other sites out, and time limits.

A foreign site that a browser on this machine shows can send requests here. A name that was made
to point here (DNS rebinding) is refused by the ``Host`` it brings, and no page may hold ours in a
frame. Called by the operator's page and by the page of `vla-rl-ros label`.
"""

from __future__ import annotations

import ipaddress
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_SOCKET_TIMEOUT_S = 15.0


class PageServer(ThreadingHTTPServer):
    """Serves one page.

    Attributes:
        is_local: Whether only this machine can connect.
    """

    daemon_threads = True
    # Beyond the default of five, connections that come at once are dropped, and tried again by the
    # other side a second later; one of them may be a STOP.
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: type[PageHandler]) -> None:
        """Bind the port; `serve_forever` answers.

        Args:
            host: Address to listen on.
            port: Port, 0 for any free one.
            handler: Answers one connection.

        Raises:
            OSError: The address is not to be had.
        """
        super().__init__((host, port), handler)
        self.is_local = is_loopback_host(host)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Pass over a browser that went away; show everything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

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


class PageHandler(BaseHTTPRequestHandler):
    """Answers one connection."""

    # A connection per request: none outlives the server, no unread body is taken for a request.
    protocol_version = "HTTP/1.0"
    server_version = "page"
    sys_version = ""
    timeout = _SOCKET_TIMEOUT_S

    def send_page(self, page: str) -> None:
        """Send HTML whose scripts and styles carry ``nonce="{{nonce}}"``; no others run."""
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        self.send_body(
            HTTPStatus.OK,
            "text/html; charset=utf-8",
            page.replace("{{nonce}}", nonce).encode(),
            {"Content-Security-Policy": policy},
        )

    def send_body(
        self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        """Send a whole answer with the headers that every one has."""
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
