# SPDX-License-Identifier: Apache-2.0
"""Service clients that cost the executor nothing while no request is under way.

A supervisor has some thirty clients and uses them once per episode; in the wait set they would
cost more than everything else it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from vla_rl_ros.ros.gated_group import GatedCallbackGroup


class GatedClient:
    """A client whose answers are waited for only between `call_async` and `release`."""

    def __init__(
        self, node: Node, kind: type, name: str, on_answer: Callable[[], None] | None = None
    ) -> None:
        """Create the client.

        Args:
            node: Owns it.
            kind: Service type.
            name: Service name.
            on_answer: Called by the executor after an answer, so that nobody has to poll fast.
        """
        self._node = node
        self._on_answer = on_answer
        self._group = GatedCallbackGroup()
        self._num_pending = 0
        self._client: Any = node.create_client(kind, name, callback_group=self._group)
        self.srv_name: str = self._client.srv_name

    def service_is_ready(self) -> bool:
        """Whether a server is there."""
        return bool(self._client.service_is_ready())

    def call_async(self, request: object) -> Future[Any]:
        """Send a request; call `release` with the future in the end."""
        self._group.is_open = True
        future: Future[Any] = self._client.call_async(request)
        self._num_pending += 1
        on_answer = self._on_answer
        if on_answer is not None:
            future.add_done_callback(lambda _: on_answer())
        return future

    def release(self, future: Future[Any]) -> None:
        """Stop waiting for an answer, whether it came or not."""
        self._num_pending -= 1
        self._group.is_open = self._num_pending > 0
        self._client.remove_pending_request(future)

    def destroy(self) -> None:
        """Destroy the client."""
        self._node.destroy_client(self._client)
