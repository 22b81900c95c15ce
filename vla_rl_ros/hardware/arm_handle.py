# SPDX-License-Identifier: Apache-2.0
"""The arm, its gripper and its loop as one handle that several nodes share.

libfranka serves one client, so the nodes of the arm process hold one handle between them: it
opens with the first that configures and closes with the last that cleans up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vla_rl_ros.hardware.arm_controller import ArmController
from vla_rl_ros.hardware.control_loop import ControlLoop


class ArmHandle:
    """Counts its users; opens and closes devices and threads with the first and the last."""

    def __init__(
        self,
        make_controller: Callable[[], ArmController],
        rate_hz: float,
    ) -> None:
        """Remember how to build; nothing is opened yet.

        Args:
            make_controller: Builds the controller around devices that are not open yet.
            rate_hz: Rate of the control loop.
        """
        self._make_controller = make_controller
        self._rate_hz = rate_hz
        self._lock = threading.Lock()
        self._num_users = 0
        self._loop: ControlLoop | None = None

    @property
    def loop(self) -> ControlLoop:
        """The running loop; valid between `acquire` and `release`."""
        assert self._loop is not None, "the handle is not acquired"
        return self._loop

    @property
    def controller(self) -> ArmController:
        """The controller in the loop; valid between `acquire` and `release`."""
        return self.loop.controller

    def acquire(self) -> None:
        """Use the handle; the first user opens it.

        Raises:
            DeviceError: A device does not open; nothing stays open then.
        """
        with self._lock:
            if self._num_users == 0:
                self._open()
            self._num_users += 1

    def release(self) -> None:
        """Stop using the handle; the last user closes it. Without effect when nobody uses it."""
        with self._lock:
            if self._num_users == 0:
                return
            self._num_users -= 1
            if self._num_users == 0:
                self._close()

    def _open(self) -> None:
        controller = self._make_controller()
        controller.arm.open()
        try:
            if controller.gripper is not None:
                controller.gripper.start()
        except BaseException:
            controller.arm.close()
            raise
        self._loop = ControlLoop(controller, self._rate_hz)
        self._loop.start()

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            loop.close()
            loop.controller.arm.close()
        finally:
            if loop.controller.gripper is not None:
                loop.controller.gripper.stop()
