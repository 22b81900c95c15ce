# SPDX-License-Identifier: Apache-2.0
"""The one lifecycle base. Subclasses fill setup, start, stop, teardown and override nothing else.

rclpy swallows exceptions of transition callbacks; here each hook's exception is logged with its
traceback, shown in /diagnostics and turned into ERROR.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.diagnostics import Diagnostics, Level
from vla_rl_ros.ros.params import ParamStore
from vla_rl_ros.ros.urgency import unhurried

C = TypeVar("C")


class ManagedNode(LifecycleNode, Generic[C]):
    """A lifecycle node with a typed config, diagnostics and four hooks.

    `autostart` (parameter, default true) configures and activates the node without a manager; the
    bring-up sets it to false and the supervisor does both in order.
    """

    # Of the class: a node whose parameters are refused is destroyed half made.
    _is_running = False
    _is_set_up = False

    def __init__(
        self, name: str, config_type: type[C], overrides: dict[str, object] | None = None
    ) -> None:
        """Declare parameters.

        Args:
            name: Node name.
            config_type: Frozen dataclass of the node's parameters.
            overrides: Parameter values that win over files, for tests and hosts.

        Raises:
            ConfigError: A parameter is unknown, missing or inconsistent.
        """
        values = [Parameter(key, value=value) for key, value in (overrides or {}).items()]
        super().__init__(name, parameter_overrides=values)
        self.diag = Diagnostics(self)
        self.diag.set("lifecycle", "unconfigured")
        autostart = self._take_autostart()
        self._params = ParamStore(self, config_type, self.on_config)
        self._autostart_timer = self.create_timer(0.05, self._autostart) if autostart else None

    def _take_autostart(self) -> bool:
        value = bool(self.declare_parameter("autostart", True).value)
        self._parameter_overrides.pop("autostart", None)
        return value

    @property
    def config(self) -> C:
        """The current config; read it once per callback."""
        return self._params.value

    @property
    def is_running(self) -> bool:
        """Whether `start` succeeded and `stop` has not been called since."""
        return self._is_running

    def setup(self) -> None:
        """Open devices, load weights, create entities. Must not move or publish."""

    def start(self) -> None:
        """Create timers, accept work. Must not block longer than 100 ms."""

    def stop(self, reason: str) -> None:
        """Make safe and join workers while publishers are still alive; idempotent."""

    def teardown(self) -> None:
        """Close devices; must tolerate a half-built state."""

    def on_config(self, config: C) -> None:
        """React to an accepted live change. Raise ConfigError to refuse it."""

    def fault(self, reason: str) -> None:
        """Stop, show an ERROR in /diagnostics and deactivate."""
        self.get_logger().error(f"fault: {reason}")
        self._stop(reason)
        self.trigger_deactivate()
        self.diag.set("lifecycle", "inactive")
        self.diag.level(Level.ERROR, reason)
        self.diag.publish()

    def _autostart(self) -> None:
        if self._autostart_timer is not None:
            self.destroy_timer(self._autostart_timer)
            self._autostart_timer = None
        success = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() == success:
            self.trigger_activate()

    def release(self) -> None:
        """Stop and let go of threads and devices, whatever the state; idempotent."""
        self._stop("destroyed")
        self._teardown()

    def destroy_node(self) -> None:
        """Leave nothing behind, threads and devices included, whatever the state."""
        self.release()
        super().destroy_node()

    def _guard(self, label: str, hook: Callable[[], None]) -> bool:
        try:
            hook()
        except VlaRlError as error:
            self._report(label, str(error), str(error))
            return False
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it
            self._report(label, f"{type(error).__name__}: {error}", traceback.format_exc())
            return False
        return True

    def _show_lifecycle(self, state: str) -> None:
        # At once: whoever brought the node up must not wait for the next second.
        self.diag.set("lifecycle", state)
        self.diag.level(Level.OK, state)
        self.diag.publish()

    def _report(self, label: str, sentence: str, detail: str) -> None:
        self.get_logger().error(f"{label} failed: {detail}")
        self.diag.level(Level.ERROR, f"{label} failed: {sentence}")
        self.diag.publish()

    def _stop(self, reason: str) -> bool:
        if not self._is_running:
            return True
        self._is_running = False
        return self._guard("stop", lambda: self.stop(reason))

    def _teardown(self) -> bool:
        if not self._is_set_up:
            return True
        self._is_set_up = False
        return self._guard("teardown", self.teardown)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `setup`."""
        self._is_set_up = True
        # Models are loaded here, for seconds.
        with unhurried():
            is_set_up = self._guard("setup", self.setup)
        if is_set_up:
            self._show_lifecycle("inactive")
            return TransitionCallbackReturn.SUCCESS
        self._teardown()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate publishers, then run `start`."""
        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        self._is_running = True
        if self._guard("start", self.start):
            self._show_lifecycle("active")
            return TransitionCallbackReturn.SUCCESS
        self._stop("start failed")
        super().on_deactivate(state)
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `stop` while publishers are still alive."""
        is_clean = self._stop("deactivated")
        if is_clean:
            self._show_lifecycle("inactive")
        result = super().on_deactivate(state)
        return result if is_clean else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `teardown`."""
        is_clean = self._teardown()
        return TransitionCallbackReturn.SUCCESS if is_clean else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `stop` and `teardown`."""
        is_clean = self._stop("shutdown")
        is_clean = self._teardown() and is_clean
        return TransitionCallbackReturn.SUCCESS if is_clean else TransitionCallbackReturn.ERROR

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run `stop` and `teardown` after a failed transition."""
        self._stop("error")
        is_clean = self._teardown()
        return TransitionCallbackReturn.SUCCESS if is_clean else TransitionCallbackReturn.FAILURE
