# SPDX-License-Identifier: Apache-2.0
"""The Franka Hand through franky. Its own TCP link, independent of the arm's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import GripperState
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.hardware.franka_errors import connect_error, import_error

if TYPE_CHECKING:
    import franky

# An unknown object is held at whatever width it has: any width counts as grasped.
GRASP_WIDTH_M = 0.0
GRASP_EPSILON_INNER_M = 0.01
GRASP_EPSILON_OUTER_M = 0.08
EMPTY_WIDTH_M = 0.002
UNHOMED_WIDTH_M = 0.01
ABORT_LIMIT_S = 1.0


class FrankaGripper:
    """Implements `protocols.Gripper`."""

    def __init__(self, config: FrankaConfig) -> None:
        """Remember the config; `open` connects."""
        self._config = config
        self._gripper: Any = None
        self._pending: Any = None

    def open(self) -> None:
        """Connect; the fingers stay where they are."""
        if self._gripper is not None:
            return
        try:
            import franky
        except ImportError as error:
            raise import_error(error) from error
        try:
            self._gripper = franky.Gripper(self._config.robot_ip)
        except Exception as error:
            raise connect_error(error, self._config.robot_ip) from error

    def close(self) -> None:
        """Abort what runs and disconnect."""
        if self._gripper is None:
            return
        try:
            self.stop()
        finally:
            if self._pending is not None:
                # libfranka crashes when a gripper dies under a command that still runs.
                _keep_until_done(self._gripper, self._pending)
            self._pending = self._gripper = None

    def state(self) -> GripperState:
        """Next state packet of the hand; waits for it."""
        raw = self._packet()
        return GripperState(
            stamp_ns=time.time_ns(),
            width_m=raw.width,
            is_moving=self._pending is not None,
            # The tolerances of `start_grasp` call closed fingers a grasp.
            is_grasped=bool(raw.is_grasped) and raw.width > EMPTY_WIDTH_M,
        )

    def needs_homing(self) -> bool:
        """Whether the hand does not know its width yet; waits for a state packet."""
        return bool(self._packet().max_width < UNHOMED_WIDTH_M)

    def start_homing(self) -> None:
        """Begin to home the fingers; a command still running must be stopped first."""
        self._start(lambda hand: hand.homing_async())

    def start_move(self, width_m: float) -> None:
        """Begin a move; a command still running must be stopped first."""
        self._start(lambda hand: hand.move_async(width_m, self._config.gripper_speed_m_per_s))

    def start_grasp(self) -> None:
        """Begin to close with force; a command still running must be stopped first."""
        config = self._config
        self._start(
            lambda hand: hand.grasp_async(
                GRASP_WIDTH_M,
                config.gripper_speed_m_per_s,
                config.gripper_force_n,
                epsilon_inner=GRASP_EPSILON_INNER_M,
                epsilon_outer=GRASP_EPSILON_OUTER_M,
            )
        )

    def poll(self) -> bool:
        """Whether the command has ended; a command that did not reach its goal is no error."""
        if self._pending is None:
            return True
        if not self._pending.wait(0.0):
            return False
        pending, self._pending = self._pending, None
        try:
            pending.get()
        except Exception as error:
            raise DeviceError(f"the gripper refused or aborted a command: {error}") from error
        return True

    def stop(self) -> None:
        """Abort the running command."""
        if self._pending is None:
            return
        try:
            self._connected().stop()
            # The aborted command still answers; until then the next one would block.
            is_done = self._pending.wait(ABORT_LIMIT_S)
        except Exception as error:
            raise DeviceError(f"the gripper cannot be stopped: {error}") from error
        if not is_done:
            raise DeviceError("the gripper does not answer an aborted command")
        self._pending = None

    def _start(self, command: Callable[[franky.Gripper], franky.BoolFuture]) -> None:
        if self._pending is not None:
            raise DeviceError("a gripper command is still running: stop it first")
        try:
            self._pending = command(self._connected())
        except DeviceError:
            raise
        except Exception as error:
            raise DeviceError(f"the gripper refused a command: {error}") from error

    def _packet(self) -> franky.GripperState:
        try:
            return self._connected().state
        except DeviceError:
            raise
        except Exception as error:
            raise DeviceError(f"the gripper's state cannot be read: {error}") from error

    def _connected(self) -> franky.Gripper:
        if self._gripper is None:
            raise DeviceError("the gripper is not connected")
        return self._gripper


def _keep_until_done(gripper: franky.Gripper, pending: franky.BoolFuture) -> None:
    def wait(_: franky.Gripper) -> None:
        pending.wait()

    threading.Thread(target=wait, args=(gripper,), name="gripper-leftover", daemon=True).start()
