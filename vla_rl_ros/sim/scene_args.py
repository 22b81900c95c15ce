# SPDX-License-Identifier: Apache-2.0
"""Arguments of an operation of the scene channel: taken out one by one, checked, none left over.

They come from outside: a mistake is answered with a `SceneError` and changes nothing. Called by
`sim.scene_service` and `sim.scene_faults`.
"""

from __future__ import annotations

import math

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.scene_channel import Args

_STEPS_PER_S = 1000


def number(args: Args, name: str, default: float | None, low: float, high: float) -> float:
    """Take a number out of the arguments.

    Args:
        args: Arguments of a request; the number is removed from them.
        name: Key, with its unit.
        default: Value if it is absent, None where it is required.
        low: Smallest allowed value.
        high: Largest allowed value.

    Raises:
        SceneError: If it is absent, not a number or out of range.
    """
    value = args.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SceneError(f"'{name}' must be a number, not {value!r}")
    if not low <= value <= high:
        raise SceneError(f"'{name}' = {value} is outside [{low}, {high}]")
    return float(value)


def refuse_rest(args: Args) -> None:
    """Refuse what nobody has taken out of the arguments.

    Args:
        args: What is left of them.

    Raises:
        SceneError: If anything is; names it.
    """
    if args:
        raise SceneError(f"unknown arguments: {', '.join(sorted(args))}")


def num_steps(duration_s: float) -> int:
    """Steps of the simulation that a duration takes, rounded up."""
    return math.ceil(duration_s * _STEPS_PER_S)
