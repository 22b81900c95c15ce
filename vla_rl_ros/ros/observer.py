# SPDX-License-Identifier: Apache-2.0
"""A passive window onto a running graph for command lines: episodes, diagnostics, service calls.

Owns its own ROS context and spins only while somebody waits, so a command line needs no thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.errors import InvalidCommandError, VlaRlError
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.joining import joined_context
from vla_rl_ros.ros.qos import EVENT, LATCHED

M = TypeVar("M")


class GraphTimeoutError(VlaRlError, TimeoutError):
    """The graph did not do in time what a command line waited for."""


class GraphObserver:
    """Watches a graph from outside.

    Attributes:
        node: For further publishers and subscriptions of the command line.
        diagnostics: Newest key-value pairs per node name (without leading slash).
        messages: Newest diagnostics sentence per node name.
        levels: Newest diagnostics level per node name.
        episode: Newest episode state, None before the first.
    """

    def __init__(self, name: str = "observer") -> None:
        """Join the graph under `name`."""
        self._context = joined_context()
        self.node = Node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.messages: dict[str, str] = {}
        self.levels: dict[str, int] = {}
        self.episode: EpisodeState | None = None
        self._on_episode: list[Callable[[EpisodeState], None]] = []
        # Deep enough for all nodes of a graph reporting in the same second.
        diagnostics_qos = QoSProfile(depth=50)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._note_diagnostics, diagnostics_qos
        )
        self.node.create_subscription(
            DiagnosticArray, "episode/state", self._note_episode, LATCHED
        )

    def __enter__(self) -> GraphObserver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph; idempotent."""
        if self._context.ok():
            self._executor.shutdown()
            self.node.destroy_node()
            rclpy.shutdown(context=self._context)

    def on_episode(self, callback: Callable[[EpisodeState], None]) -> Callable[[], None]:
        """Call `callback` whenever the episode state changes.

        Returns:
            A function that ends it.
        """
        self._on_episode.append(callback)
        return lambda: self._on_episode.remove(callback)

    def subscribe(self, kind: type[M], topic: str, callback: Callable[[M], None]) -> None:
        """Listen to one more topic, every message."""
        qos = QoSProfile(depth=500, reliability=EVENT.reliability)
        self.node.create_subscription(kind, topic, callback, qos)

    def spin(self, duration_s: float) -> None:
        """Handle messages for a while."""
        deadline_s = time.monotonic() + duration_s
        while (left_s := deadline_s - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=min(left_s, 0.05))

    def wait_until(
        self,
        predicate: Callable[[], bool],
        timeout_s: float,
        what: str | Callable[[], str],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Handle messages until `predicate` holds.

        Args:
            predicate: What to wait for.
            timeout_s: How long.
            what: Completes the sentence "waited N s for ...", or makes it when it is needed.
            check: Called in between; raises when waiting has become pointless.

        Raises:
            GraphTimeoutError: It did not happen in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not predicate():
            check()
            if time.monotonic() > deadline_s:
                said = what if isinstance(what, str) else what()
                raise GraphTimeoutError(f"waited {timeout_s:.0f} s for {said}")
            self._executor.spin_once(timeout_sec=0.05)

    def trigger(self, service: str, timeout_s: float = 10.0) -> str:
        """Call a std_srvs/Trigger service.

        Returns:
            Its message.

        Raises:
            GraphTimeoutError: No server, or no answer in time.
            VlaRlError: The server refused, with its reason.
        """
        response = self._call(Trigger, service, Trigger.Request(), timeout_s)
        if not response.success:
            raise VlaRlError(f"{service} refused: {response.message}")
        return str(response.message)

    def tell(self, service: str, is_so: bool, timeout_s: float = 10.0) -> str:
        """Call a std_srvs/SetBool service; returns and raises as `trigger`."""
        request = SetBool.Request(data=is_so)
        response = self._call(SetBool, service, request, timeout_s)
        if not response.success:
            raise VlaRlError(f"{service} refused: {response.message}")
        return str(response.message)

    def set_parameters(
        self,
        node: str,
        values: dict[str, float | int | str | list[float]],
        timeout_s: float = 10.0,
    ) -> None:
        """Set live parameters of a node.

        Raises:
            GraphTimeoutError: No such node, or no answer in time.
            VlaRlError: The node refused, with its reason.
        """
        request = SetParameters.Request(
            parameters=[Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        service = f"{node}/set_parameters"
        response = self._call(SetParameters, service, request, timeout_s)
        for name, result in zip(values, response.results, strict=True):
            if not result.successful:
                raise VlaRlError(f"{node} refused {name}: {result.reason}")

    def _call(self, kind: type, service: str, request: object, timeout_s: float) -> Any:  # noqa: ANN401
        client: Client[Any, Any] = self.node.create_client(kind, service)
        try:
            self.wait_until(client.service_is_ready, timeout_s, f"service {service}")
            future = client.call_async(request)
            self.wait_until(future.done, timeout_s, f"an answer of {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def number(self, node: str, key: str) -> float:
        """A diagnostics value as a number, NaN when it was never published."""
        try:
            return float(self.diagnostics.get(node, {}).get(key, "nan"))
        except ValueError:
            return float("nan")

    def _note_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.lstrip("/")
            self.diagnostics[name] = {pair.key: pair.value for pair in status.values}
            self.messages[name] = status.message
            level = status.level
            self.levels[name] = level[0] if isinstance(level, bytes) else int(level)

    def _note_episode(self, message: DiagnosticArray) -> None:
        try:
            state = decode_episode(message)
        except InvalidCommandError as error:
            self.node.get_logger().warning(f"episode/state: {error}")
            return
        if state != self.episode:
            self.episode = state
            for callback in tuple(self._on_episode):
                callback(state)
