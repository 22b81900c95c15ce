# SPDX-License-Identifier: Apache-2.0
"""Faults that can be caused in the running cell: reflexes, a lost link, a simulation that stalls.

Runs in the simulation thread between two steps. Called by `sim.scene_service`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.fci_server import FciServer
from vla_rl_ros.sim.fci_wire import FciError
from vla_rl_ros.sim.scene_args import num_steps, number, refuse_rest
from vla_rl_ros.sim.scene_channel import Args, Result

_MAX_STALL_S = 2.0
_MAX_DROP_S = 60.0


class SceneFaults:
    """Causes faults in one simulated control box."""

    def __init__(self, server: FciServer) -> None:
        """Bind to a running cell.

        Args:
            server: Its control box.
        """
        self._server = server

    def inject(self, args: Args) -> Result:
        """Cause a ``fault``, e.g. ``reflex``; an unknown one is answered with the known ones."""
        fault = args.pop("fault", None)
        faults: dict[str, Callable[[Args], Result]] = {
            "reflex": lambda rest: self._trip(rest, FciError.CARTESIAN_REFLEX),
            "joint_reflex": lambda rest: self._trip(rest, FciError.JOINT_REFLEX),
            "comm": lambda rest: self._trip(rest, FciError.COMMUNICATION_CONSTRAINTS_VIOLATION),
            "link_drop": self._drop_link,
            "gripper_abort": self._abort_gripper,
            "missed_packet_limit": self._limit_missed_packets,
            "stall": self._stall,
        }
        if not isinstance(fault, str) or fault not in faults:
            raise SceneError(f"unknown fault {fault!r}, known are: {', '.join(sorted(faults))}")
        return faults[fault](args)

    def _trip(self, args: Args, error: FciError) -> Result:
        refuse_rest(args)
        was_moving = self._server.current_motion_id != 0
        self._server.trip(error)
        return {"was_moving": was_moving}

    def _drop_link(self, args: Args) -> Result:
        duration_s = number(args, "duration_s", 2.0, 0.001, _MAX_DROP_S)
        refuse_rest(args)
        self._server.drop_link(num_steps(duration_s))
        return {"duration_s": duration_s}

    def _abort_gripper(self, args: Args) -> Result:
        refuse_rest(args)
        return {"was_moving": self._server.gripper.abort()}

    def _limit_missed_packets(self, args: Args) -> Result:
        packets = int(number(args, "packets", None, 0, 10_000))
        refuse_rest(args)
        self._server.watch.limit = packets
        return {"packets": packets}

    @staticmethod
    def _stall(args: Args) -> Result:
        duration_s = number(args, "duration_s", None, 0.0, _MAX_STALL_S)
        refuse_rest(args)
        time.sleep(duration_s)
        return {"duration_s": duration_s}
