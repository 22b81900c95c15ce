# SPDX-License-Identifier: Apache-2.0
"""`arm/controller_state` as named channels: mode, target age, saturation, limits, clips.

``mode.<mode>``, ``saturated.<axis>``, ``limited.<limit>`` and ``held`` are flags, ``target.age_s``
is -1 before the first target, ``clip_plus.<axis>_m``, ``clip_minus.<axis>_m`` and
``clip.<axis>_rad`` are the clips in force.
"""

from __future__ import annotations

import math

from sensor_msgs.msg import JointState

from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.hardware.control_types import ControlMode, LoopSnapshot
from vla_rl_ros.ros.channels import encode_channels

AXES = ("x", "y", "z", "rx", "ry", "rz")
LIMITS = ("box", "step", "tilt")


def encode_controller_state(
    snapshot: LoopSnapshot, settings: ImpedanceSettings, stamp_ns: int
) -> JointState:
    """Pack the end of one cycle.

    Args:
        snapshot: The cycle.
        settings: Spring in force.
        stamp_ns: Time of the message.
    """
    channels = {f"mode.{mode.value}": float(mode is snapshot.mode) for mode in ControlMode}
    age_s = snapshot.target_age_s
    channels["target.age_s"] = age_s if math.isfinite(age_s) else -1.0
    channels["held"] = float(snapshot.is_held)
    command = snapshot.command
    saturated = command.is_saturated if command is not None else (False,) * len(AXES)
    for axis, is_saturated in zip(AXES, saturated, strict=True):
        channels[f"saturated.{axis}"] = float(is_saturated)
    for limit in LIMITS:
        channels[f"limited.{limit}"] = float(limit in snapshot.limited)
    for index, axis in enumerate(AXES[:3]):
        channels[f"clip_plus.{axis}_m"] = settings.clip_plus_m[index]
        channels[f"clip_minus.{axis}_m"] = settings.clip_minus_m[index]
        channels[f"clip.r{axis}_rad"] = settings.clip_rad[index]
    return encode_channels(channels, stamp_ns)
