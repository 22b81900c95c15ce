# SPDX-License-Identifier: Apache-2.0
"""The simulated scene on the graph: true object poses, success, resets, how well time is kept.

Talks to the simulator's side door only, never through the robot's protocol. Nothing published here
reaches a learned policy: `sim/objects` is for the scripted one, `sim/success` for evaluation.
Objects and success come from the mapped state of the simulator, which costs it nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from rclpy.timer import Timer
from std_srvs.srv import Trigger

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, DeviceError, SceneError, VlaRlError
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS, encode_objects
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.worker import Worker

if TYPE_CHECKING:
    from vla_rl_ros.sim.truth import SceneTruth

Job = Callable[[], None]
SERVICE_TIMEOUT_S = 4.0
STALE_AFTER_S = 0.5


@dataclass(frozen=True, kw_only=True)
class SimCellConfig:
    """Which episode the next reset arranges, and how often the truth is published."""

    task: str = param("lift", doc="Task of the next reset.", live=True)
    seed: int = param(0, doc="Seed of the next reset.", low=0, high=2**31 - 1, live=True)
    variant: str = param("default", doc="Named variant the simulator was started with.")
    objects_rate_hz: float = param(
        50.0, doc="Rate of sim/objects.", unit="Hz", low=1.0, high=100.0
    )
    success_rate_hz: float = param(
        10.0, doc="Rate of sim/success.", unit="Hz", low=1.0, high=100.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


class SimCellNode(ManagedNode[SimCellConfig]):
    """Publishes the simulator's truth and carries out resets."""

    _objects: Sender
    _success: Sender
    _truth: SceneTruth

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("sim_cell", SimCellConfig, overrides)
        self._endpoints = Endpoints(self)
        self._beats: list[Timer] = []
        self._health_timer: Timer | None = None
        self._has_truth = False
        self._worker: Worker[Job] | None = None
        self._is_stale = False
        # A service that awaits occupies its callback group, and publishing must go on meanwhile.
        group = ReentrantCallbackGroup()
        for name, handler in (
            ("prepare", self._on_prepare),
            ("reset", self._on_reset),
            ("check", self._on_check),
        ):
            self.create_service(Trigger, f"~/{name}", handler, callback_group=group)

    def on_config(self, config: SimCellConfig) -> None:
        """Refuse a task that the scene does not have."""
        from vla_rl_ros.sim.tasks import task_by_name

        task_by_name(config.task)

    def setup(self) -> None:
        """Find the simulator. Raises SceneError or DeviceError when it does not run."""
        # Brings MuJoCo, which starting with --help or on a real cell must not need.
        from vla_rl_ros.sim.truth import SceneTruth

        run_dir = os.environ.get(RUN_DIR_VARIABLE, "")
        if not run_dir:
            raise ConfigError(f"{RUN_DIR_VARIABLE} is not set; the launcher sets it")
        config = self.config
        self._truth = SceneTruth(Path(run_dir), config.variant, config.task)
        self._has_truth = True
        self._objects = self._endpoints.publisher("sim/objects")
        self._success = self._endpoints.publisher("sim/success")
        # One thread for whatever waits for the simulation thread.
        self._worker = Worker(lambda job: job(), self._on_worker_error, "scene")
        self._health_timer = self.create_timer(1.0, self._ask_health)

    def start(self) -> None:
        """Begin to publish."""
        config = self.config
        self._beats = [
            self.create_timer(1.0 / config.objects_rate_hz, self._publish_objects),
            self.create_timer(1.0 / config.success_rate_hz, self._publish_success),
        ]

    def stop(self, reason: str) -> None:
        """Stop publishing."""
        while self._beats:
            self.destroy_timer(self._beats.pop())

    def teardown(self) -> None:
        """Leave the simulator."""
        if self._health_timer is not None:
            self.destroy_timer(self._health_timer)
            self._health_timer = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._has_truth:
            self._has_truth = False
            self._truth.close()
        self._endpoints.destroy()

    def _publish_objects(self) -> None:
        moment = self._truth.look()
        age_s = float("inf")
        if moment is not None:
            age_s = (self.get_clock().now().nanoseconds - moment.stamp_ns) * 1e-9
        is_stale = age_s > STALE_AFTER_S
        if is_stale != self._is_stale:
            self._is_stale = is_stale
            if is_stale:
                self.diag.level(Level.ERROR, f"the simulation has not stepped for {age_s:.1f} s")
            else:
                self.diag.level(Level.OK, "active")
        if moment is not None and not is_stale:
            self._objects.publish(encode_objects(moment.objects, moment.stamp_ns))

    def _publish_success(self) -> None:
        moment = self._truth.latest
        if moment is None or self._is_stale:
            return
        decided = float(moment.is_success)
        channels = dict.fromkeys(SUCCESS_CHANNELS, decided)
        self._success.publish(encode_channels(channels, moment.stamp_ns))

    async def _on_prepare(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Answer where the arm has to start for the next reset, as JSON."""
        config = self.config
        return await self._answer(response, lambda: self._truth.start(config.task, config.seed))

    async def _on_reset(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Arrange the scene for task and seed."""
        config = self.config
        return await self._answer(response, lambda: self._truth.reset(config.task, config.seed))

    async def _on_check(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Judge the task from now on and answer, as JSON, why it cannot begin; touch nothing."""
        config = self.config
        return await self._answer(response, lambda: self._truth.check(config.task))

    async def _answer(
        self, response: Trigger.Response, ask: Callable[[], dict[str, Any]]
    ) -> Trigger.Response:
        """Have the worker ask the scene, and put what it says into the response."""
        if self._worker is None:
            response.message = "sim_cell is not configured"
            return response
        future: Future[tuple[bool, str]] = Future(executor=self.executor)
        # A callback, even an empty one, makes `set_result` wake the executor from its wait.
        future.add_done_callback(lambda _: None)

        def job() -> None:
            try:
                future.set_result((True, json.dumps(ask())))
            except VlaRlError as error:
                future.set_result((False, str(error)))

        if not self._worker.submit(job):
            self.diag.count("requests_dropped")
        timer = self.create_timer(SERVICE_TIMEOUT_S, lambda: self._give_up(future))
        try:
            response.success, response.message = await future or (False, "cancelled")
        finally:
            self.destroy_timer(timer)
        return response

    @staticmethod
    def _give_up(future: Future[tuple[bool, str]]) -> None:
        if not future.done():
            future.set_result((False, "the scene did not answer"))

    def _ask_health(self) -> None:
        if self._worker is not None and self._worker.is_idle:
            self._worker.submit(self._show_health)

    def _show_health(self) -> None:
        for key, value in self._truth.health().items():
            self.diag.set(key, value)

    def _on_worker_error(self, error: Exception) -> None:
        self.diag.count("scene_errors")
        if not isinstance(error, (SceneError, DeviceError)):
            self.get_logger().error(f"scene worker: {error!r}")


def main() -> int:
    """Run the node."""
    return run(SimCellNode)


if __name__ == "__main__":
    raise SystemExit(main())
