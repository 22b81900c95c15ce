# SPDX-License-Identifier: Apache-2.0
"""What a reset can do to the cell: arm home with an offset, gripper, simulated scene; or nothing.

Used by `episode_start` only. The gate is silent meanwhile, because the phase is not RUNNING.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from vla_rl_ros.core.episode import TaskConfig
from vla_rl_ros.hardware.target_follower import TARGETS_ARRIVE
from vla_rl_ros.ros.gated_client import GatedClient
from vla_rl_ros.ros.steps import Clock, StepError, Steps, call, pause, trigger

CONTROLLER = "impedance_controller"
SIM_CELL = "sim_cell"
CALL_TIMEOUT_S = 5.0
RECOVER_TIMEOUT_S = 25.0
"""A new connection, error recovery, backing off and the gripper, one after the other."""
SILENCE_TIMEOUT_S = 2.0
RETRY_PAUSE_S = 0.1


class CellReset:
    """Clients of everything that takes part in a reset."""

    def __init__(
        self, node: Node, *, has_simulator: bool, clock: Clock, wake: Callable[[], None]
    ) -> None:
        """Create the clients.

        Args:
            node: Owns the clients.
            has_simulator: Whether `sim_cell` decides the start and arranges the scene.
            clock: Monotonic time.
            wake: Called when a service has answered and the steps can go on.
        """
        self._clock = clock

        def client(kind: type, name: str) -> GatedClient:
            return GatedClient(node, kind, name, wake)

        self._home = client(Trigger, f"{CONTROLLER}/home")
        self._recover = client(Trigger, f"{CONTROLLER}/recover")
        self._rearm = client(Trigger, f"{CONTROLLER}/rearm")
        owners = (CONTROLLER, SIM_CELL) if has_simulator else (CONTROLLER,)
        self._set = {n: client(SetParameters, f"{n}/set_parameters") for n in owners}
        steps = ("prepare", "reset", "check") if has_simulator else ()
        self._scene = {step: client(Trigger, f"{SIM_CELL}/{step}") for step in steps}

    @property
    def has_simulator(self) -> bool:
        """Whether the scene is simulated."""
        return bool(self._scene)

    def home(self, name: str, task: TaskConfig, seed: int, home_timeout_s: float) -> Steps[None]:
        """Bring arm and gripper to where a task starts.

        Args:
            name: Task name.
            task: Its config.
            seed: Seed of the start.
            home_timeout_s: For the arm to reach it.

        Raises:
            StepError: Names the service that refused or did not answer.
        """
        start: dict[str, list[float] | float]
        if self._scene:
            yield from self._set_parameters(SIM_CELL, {"task": name, "seed": seed})
            answer = yield from self._trigger(self._scene["prepare"], CALL_TIMEOUT_S)
            start = {"home_offset_m": _start_offset(answer)}
        else:
            bound_m = task.reset_offset_max_m
            offset_m = np.random.default_rng(seed).uniform(-bound_m, bound_m, 3)
            start = {"home_offset_m": offset_m.tolist()}
        start["home_gripper_width_m"] = task.home_gripper_width_m
        yield from self._set_parameters(CONTROLLER, start)
        yield from self._go_home(home_timeout_s)

    def arrange(self) -> Steps[None]:
        """Draw a simulated scene for the task and seed that `home` was told; a real one stays.

        Raises:
            StepError: As `home`.
        """
        if self._scene:
            yield from self._trigger(self._scene["reset"], CALL_TIMEOUT_S)

    def scene_problem(self, name: str) -> Steps[str]:
        """Why a task cannot begin in the simulated scene as it is, empty when it can.

        The simulator judges this task from now on and touches nothing.

        Raises:
            StepError: As `home`.
        """
        yield from self._set_parameters(SIM_CELL, {"task": name})
        answer = yield from self._trigger(self._scene["check"], CALL_TIMEOUT_S)
        try:
            return str(json.loads(answer)["problem"])
        except (ValueError, KeyError, TypeError) as error:
            raise StepError(f"{SIM_CELL}/check answered nonsense: {answer!r}") from error

    def recover_arm(self) -> Steps[str]:
        """Clear the arm's fault and end a hold, for an operator; returns what the controller says.

        Raises:
            StepError: The controller refused or did not answer.
        """
        return (yield from self._trigger(self._recover, RECOVER_TIMEOUT_S))

    def rearm(self) -> Steps[None]:
        """Let a stopped arm accept targets again, where it is.

        Raises:
            StepError: The arm is held, has a fault or does not rest; or as `home`.
        """
        yield from self._trigger(self._rearm, RECOVER_TIMEOUT_S)

    def _go_home(self, timeout_s: float) -> Steps[None]:
        # The gate falls silent when it hears that the episode is over, and the last target may
        # have come just before: an episode that follows a quick recovery has to wait for that.
        until_s = self._clock() + SILENCE_TIMEOUT_S
        while True:
            try:
                yield from self._trigger(self._home, timeout_s)
            except StepError as error:  # noqa: PERF203 - asking again is the point
                if TARGETS_ARRIVE not in str(error) or self._clock() >= until_s:
                    raise
                yield from pause(RETRY_PAUSE_S, self._clock)
            else:
                return

    def _trigger(self, client: GatedClient, timeout_s: float) -> Steps[str]:
        return trigger(client, Trigger.Request(), timeout_s, self._clock)

    def _set_parameters(self, node: str, values: dict[str, Any]) -> Steps[None]:
        parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        request = SetParameters.Request(parameters=parameters)
        response = yield from call(self._set[node], request, CALL_TIMEOUT_S, self._clock)
        for name, result in zip(values, response.results, strict=True):
            if not result.successful:
                raise StepError(f"{node} refused {name}={values[name]!r}: {result.reason}")


def _start_offset(answer: str) -> list[float]:
    """Offset of the start from the arm's home position, base axes, as `prepare` answered."""
    try:
        offset_m = [float(value) for value in json.loads(answer)["start_offset_m"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{SIM_CELL}/prepare answered nonsense: {answer!r}") from error
    if len(offset_m) != 3 or not np.isfinite(offset_m).all():
        raise StepError(f"{SIM_CELL}/prepare answered nonsense: {answer!r}")
    return offset_m
