# SPDX-License-Identifier: Apache-2.0
"""What the operator's buttons ask of the rest of the graph; the gate itself only drives."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.teleop import Presses
from vla_rl_ros.ros.diagnostics import Diagnostics
from vla_rl_ros.ros.gated_client import GatedClient

_RESTING = (Phase.IDLE, Phase.ENDED)
_TIMEOUT_S = 2.0


class OperatorButtons:
    """Turns presses into requests, and forgets them when nobody answers.

    Attributes:
        stopped_epoch: Epoch in which the operator pressed stop, None if he never has. The gate is
            silent in it, whether the arm's driver hears of the press or not.
    """

    def __init__(self, node: Node, diag: Diagnostics) -> None:
        """Create the clients.

        Args:
            node: The gate.
            diag: Its diagnostics.
        """
        self._node, self._diag = node, diag
        self._end = GatedClient(node, SetBool, "supervisor/end_episode")
        self._start = GatedClient(node, Trigger, "supervisor/start_episode")
        self._reset_done = GatedClient(node, Trigger, "supervisor/reset_done")
        self._hold = GatedClient(node, Trigger, "impedance_controller/hold")
        self._pending: list[tuple[GatedClient, Any, float]] = []
        self.stopped_epoch: int | None = None

    def follow(self, presses: Presses, episode: EpisodeState, now_s: float) -> None:
        """Carry out what was pressed since the last call, and look after answers.

        In an episode success and failure end it. Outside, the same button as success says that
        the scene is ready: it ends a reset by hand, or starts the next episode.

        Args:
            presses: Of the device; the gripper's are left alone.
            episode: As the supervisor told it last.
            now_s: Steady time.
        """
        self._sweep(now_s)
        for name in ("success", "failure", "stop", "mark"):
            count = presses.take(name)
            if count:
                self._diag.count(f"pressed.{name}", count)
                self._press(name, episode, now_s)

    def _press(self, name: str, episode: EpisodeState, now_s: float) -> None:
        phase = episode.phase
        if name == "stop":
            self.stopped_epoch = episode.epoch
            self._ask(self._hold, Trigger.Request(), now_s)
        elif name == "mark":
            self._node.get_logger().info("the operator marked this moment")
        elif phase is Phase.RUNNING:
            self._ask(self._end, SetBool.Request(data=name == "success"), now_s)
        elif name == "success" and phase is Phase.RESETTING:
            self._ask(self._reset_done, Trigger.Request(), now_s)
        elif name == "success" and phase in _RESTING:
            self._ask(self._start, Trigger.Request(), now_s)

    def _ask(self, client: GatedClient, request: object, now_s: float) -> None:
        if not client.service_is_ready():
            self._diag.count("unheard")
            self._node.get_logger().warning(f"{client.srv_name} is not there: nobody heard that")
            return
        self._pending.append((client, client.call_async(request), now_s))

    def _sweep(self, now_s: float) -> None:
        waiting = []
        for client, future, asked_s in self._pending:
            if not future.done() and now_s - asked_s < _TIMEOUT_S:
                waiting.append((client, future, asked_s))
                continue
            client.release(future)
            answer = future.result() if future.done() else None
            if answer is None or not answer.success:
                sentence = "no answer" if answer is None else answer.message
                self._diag.count("refused")
                self._node.get_logger().warning(f"{client.srv_name}: {sentence}")
        self._pending = waiting

    def destroy(self) -> None:
        """Destroy the clients."""
        for client, future, _ in self._pending:
            client.release(future)
        self._pending = []
        for client in (self._end, self._start, self._reset_done, self._hold):
            client.destroy()
