# SPDX-License-Identifier: Apache-2.0
"""The only entry point of a node process: signals, spin, stop, exit code.

rclpy's own signal handling kills the context before anything can be published, so both SIGINT and
SIGTERM are handled here and `stop` runs while publishers are alive.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.unborn_ports import remove_unborn_ports
from vla_rl_ros.ros.urgency import Urgency, hurry

# What the middleware may take to leave the graph, on a busy machine too.
_LEAVE_S = 1.5

Factory = Callable[[], "ManagedNode[Any] | Sequence[ManagedNode[Any]]"]


class _StopRequest:
    """Set by SIGINT or SIGTERM; a second signal interrupts a callback that does not come back."""

    def __init__(self) -> None:
        self.is_set = False
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        # Not raised at once: an exception in the middle of a lifecycle transition would leave a
        # node that can no longer be shut down.
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


def run(
    factory: Factory, args: list[str] | None = None, *, urgency: Urgency = Urgency.NONE
) -> int:
    """Run one or several nodes in this process until a signal or an error.

    Args:
        factory: Creates the node, or the nodes that share the process.
        args: Command line, `sys.argv` when None.
        urgency: Of its callbacks and its middleware.

    Returns:
        0 after a signal, 1 after an exception, 2 when the nodes could not be created. The process
        dies of SIGALRM when the nodes have stopped, but the middleware does not let go of them.
    """
    remove_unborn_ports()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    request = _StopRequest()
    nodes: list[ManagedNode[Any]] = []
    executor = SingleThreadedExecutor()
    code = 0
    try:
        made = factory()
        nodes.extend(made if isinstance(made, Sequence) else [made])
        for node in nodes:
            executor.add_node(node)
        hurry(urgency)
        while rclpy.ok() and not request.is_set:
            executor.spin_once(timeout_sec=0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.stderr.write("stopping\n")
    except VlaRlError as error:
        sys.stderr.write(f"{error}\n")
        code = 2 if not nodes else 1
    except Exception:  # noqa: BLE001 - last line of defence: stop the nodes, then report
        sys.stderr.write(f"a callback raised:\n{traceback.format_exc()}")
        code = 1
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        # A failure is told by the exit code, which a signal would take.
        _shut_down(nodes, executor, 0.0 if code else _LEAVE_S)
    return code


def _shut_down(
    nodes: list[ManagedNode[Any]], executor: SingleThreadedExecutor, leave_s: float
) -> None:
    for node in reversed(nodes):
        _trigger_shutdown(node)
        # Nothing is left of it but for a transition that a second signal interrupted.
        node.release()
    executor.shutdown()
    _end_in(leave_s)
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def _end_in(duration_s: float) -> None:
    """Have the kernel end this process after a time, 0 for never; what matters has been done.

    Fast DDS 3.2 may wait for ever in the removal of a node's services while other processes remove
    theirs (about one stop of thirty), and rclpy may hold the interpreter's lock meanwhile, so that
    no thread of Python's could end it. The log gets the place where it hung.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)
    signal.setitimer(signal.ITIMER_REAL, duration_s)


def _trigger_shutdown(node: ManagedNode[Any]) -> None:
    try:
        node.trigger_shutdown()
    except Exception:  # noqa: BLE001 - the other nodes must still be stopped
        sys.stderr.write(f"shutdown of {node.get_name()}:\n{traceback.format_exc()}")
