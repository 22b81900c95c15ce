# SPDX-License-Identifier: Apache-2.0
"""Asks every node of the graph for its parameters without ever waiting.

A node that is dead or busy costs its own entry, nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.task import Future
from rclpy.timer import Timer

from vla_rl_ros.ros.gated_group import GatedCallbackGroup

MISSING_KEY = "_missing"
_POLL_PERIOD_S = 0.05
AnyClient: TypeAlias = "Client[Any, Any]"


class ParameterDump:
    """One fetch at a time; runs in the executor of the node."""

    def __init__(self, node: Node) -> None:
        """Prepare; clients are made when their node is first seen.

        Args:
            node: Node whose executor does the work.
        """
        self._node = node
        self._group = GatedCallbackGroup()
        self._clients: dict[str, tuple[AnyClient, AnyClient]] = {}
        self._timer: Timer | None = None
        self._fetch = 0
        self._unasked: set[str] = set()
        self._values: dict[str, str] = {}
        self._missing: set[str] = set()
        self._deadline_s = 0.0
        self._on_done: Callable[[dict[str, str]], None] = _ignore

    def fetch(self, deadline_s: float, on_done: Callable[[dict[str, str]], None]) -> None:
        """Ask all nodes that are there now; a fetch still under way ends with what it has.

        Args:
            deadline_s: Time after which nodes that have not answered are given up.
            on_done: Called once with a JSON object of parameters by full node name, and under
                ``_missing`` the JSON list of nodes that did not answer.
        """
        if self._timer is not None:
            self._finish()
        self._fetch += 1
        names = self._node.get_node_names_and_namespaces()
        self._missing = {
            f"{namespace.rstrip('/')}/{name}"
            for name, namespace in names
            if not name.startswith("_")
        }
        self._unasked = set(self._missing)
        self._values = {}
        self._on_done = on_done
        self._deadline_s = time.monotonic() + deadline_s
        self._group.is_open = True
        self._timer = self._node.create_timer(_POLL_PERIOD_S, self._ask)

    def close(self) -> None:
        """Give up a fetch under way and destroy all clients; idempotent."""
        if self._timer is not None:
            self._on_done = _ignore
            self._finish()
        for pair in self._clients.values():
            for client in pair:
                self._node.destroy_client(client)
        self._clients = {}

    def _ask(self) -> None:
        for name in sorted(self._unasked):
            lister, getter = self._clients_of(name)
            if lister.service_is_ready() and getter.service_is_ready():
                self._unasked.remove(name)
                future = lister.call_async(ListParameters.Request())
                future.add_done_callback(partial(self._on_names, self._fetch, name))
        if not self._missing or time.monotonic() > self._deadline_s:
            self._finish()

    def _clients_of(self, name: str) -> tuple[AnyClient, AnyClient]:
        if name not in self._clients:
            make = partial(self._node.create_client, callback_group=self._group)
            self._clients[name] = (
                make(ListParameters, f"{name}/list_parameters"),
                make(GetParameters, f"{name}/get_parameters"),
            )
        return self._clients[name]

    def _on_names(self, fetch: int, name: str, future: Future[Any]) -> None:
        answer = self._answer(fetch, future)
        if answer is None:
            return
        names = list(answer.result.names)
        asked = self._clients[name][1].call_async(GetParameters.Request(names=names))
        asked.add_done_callback(partial(self._on_values, fetch, name, names))

    def _on_values(self, fetch: int, name: str, names: list[str], future: Future[Any]) -> None:
        answer = self._answer(fetch, future)
        if answer is None:
            return
        values = [parameter_value_to_python(value) for value in answer.values]
        table = dict(zip(names, values, strict=False))
        self._values[name] = json.dumps(table, sort_keys=True, default=_jsonable)
        self._missing.discard(name)
        if not self._missing:
            self._finish()

    def _answer(self, fetch: int, future: Future[Any]) -> Any:  # noqa: ANN401 - either service
        """The response, None when it failed or came after its fetch was over."""
        is_late = fetch != self._fetch or self._timer is None
        return None if is_late or future.exception() is not None else future.result()

    def _finish(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        self._group.is_open = False
        self._on_done({**self._values, MISSING_KEY: json.dumps(sorted(self._missing))})


def _jsonable(value: Any) -> Any:  # noqa: ANN401 - arrays and bytes of any parameter type
    return list(value)


def _ignore(_values: dict[str, str]) -> None:
    """Nobody waits for the result any more."""
