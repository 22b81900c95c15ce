# SPDX-License-Identifier: Apache-2.0
"""What franky and libfranka raise -> faults of ours and sentences that name the fix."""

from __future__ import annotations

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.protocols import ArmFault

REFLEX = "reflex"
LINK_LOST = "link_lost"
REFUSED = "command_refused"


def fault_of(error: BaseException) -> ArmFault:
    """Classify an exception that ended a motion or a read.

    A dead link shows as NetworkException once and afterwards as a bare RuntimeError, which is no
    franky exception at all.
    """
    name, text = type(error).__name__, str(error)
    if name == "NetworkException" or "Net Exception" in text:
        return ArmFault(kind=LINK_LOST, detail=text)
    if name == "ControlException" or '"Reflex"' in text:
        return ArmFault(kind=REFLEX, detail=text)
    return ArmFault(kind=REFUSED, detail=f"{name}: {text}")


def connect_error(error: BaseException, address: str) -> DeviceError:
    """Say why a connection failed and what to do about it."""
    advice = {
        "NetworkException": (
            f"no control box answers at {address}: is the robot on, is FCI activated in Desk, "
            "is the address right? In simulation, is the sim_fci process up?"
        ),
        "IncompatibleVersionException": (
            "libfranka inside the installed franky does not speak this robot's protocol: install "
            "the franky-control wheel built for the robot's server version"
        ),
        "RealtimeException": (
            "realtime is 'enforce' but the kernel or the user has no real-time rights: boot a "
            "PREEMPT_RT kernel with rtprio limits, or set realtime to 'ignore' for simulation"
        ),
        "NoAnswerError": (
            f"the control box at {address} accepts the connection and then says nothing: it "
            "serves one client only, so stop the other one"
        ),
    }.get(type(error).__name__, f"cannot open the arm at {address}")
    return DeviceError(f"{advice} ({error})")


def import_error(error: ImportError) -> DeviceError:
    """Say how to install franky."""
    return DeviceError(f"franky cannot be imported ({error}): pip install franky-control")
