# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the supervisor: to start and end episodes, to recover, to bring down.

Turns service calls into requests to the `EpisodeRunner`, and what it says into answers. Created by
the node `supervisor`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.core.human_ledger import Work
from vla_rl_ros.ros.episode_ports import Answer
from vla_rl_ros.ros.episode_runner import EpisodeRunner
from vla_rl_ros.ros.human_time import HumanTimeKeeper

R = TypeVar("R", Trigger.Response, SetBool.Response)


class SupervisorServices:
    """The supervisor's services; they last as long as its node."""

    def __init__(
        self, node: Node, running: Callable[[], EpisodeRunner], human: HumanTimeKeeper
    ) -> None:
        """Create the services.

        Args:
            node: The supervisor.
            running: Its runner; raises a `VlaRlError` while it has none.
            human: Counts what people work.
        """
        self._node, self._running, self._human = node, running, human
        node.create_service(Trigger, "~/start_episode", self._on_start)
        node.create_service(SetBool, "~/end_episode", self._on_end)
        node.create_service(Trigger, "~/reset_done", self._on_reset_done)
        node.create_service(SetBool, "~/labelling", self._on_labelling)
        # A service that awaits occupies its callback group, and the ticks must go on meanwhile.
        group = ReentrantCallbackGroup()
        for name, handler in (("recover", self._on_recover), ("bring_down", self._on_down)):
            node.create_service(Trigger, f"~/{name}", handler, callback_group=group)

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, lambda: self._running().ask_start())

    def _on_end(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return _answer(response, lambda: self._running().ask_end(is_success=request.data))

    def _on_reset_done(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return _answer(response, lambda: self._running().ask_reset_done())

    def _on_labelling(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._human.mark(Work.LABELLING, is_begun=request.data)
        response.success = True
        return response

    async def _on_recover(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return await self._later(response, lambda answer: self._running().ask_recover(answer))

    async def _on_down(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._later(response, lambda answer: self._running().ask_down(answer))

    async def _later(
        self, response: Trigger.Response, ask: Callable[[Answer], None]
    ) -> Trigger.Response:
        """Answer when the runner has carried a request out."""
        future: Future[tuple[bool, str]] = Future(executor=self._node.executor)
        try:
            ask(lambda is_done, sentence: future.set_result((is_done, sentence)))
        except VlaRlError as error:
            future.set_result((False, str(error)))
        response.success, response.message = await future or (False, "cancelled")
        return response


def _answer(response: R, ask: Callable[[], str]) -> R:
    """Answer at once with what was asked for, or with the reason why not."""
    try:
        response.message = ask()
        response.success = True
    except VlaRlError as error:
        response.message = str(error)
    return response
