# SPDX-License-Identifier: Apache-2.0
"""Configuration as frozen dataclasses whose fields carry doc, unit and bounds.

The dataclass is the only place where a default lives. `ros/params.py` declares it as ROS
parameters, `tools` print it as documentation, and tests construct it without ROS.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Any, get_type_hints

from vla_rl_ros.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ParamInfo:
    """What a field of a config means.

    Attributes:
        doc: One sentence for `ros2 param describe` and the docs.
        unit: SI unit, empty for dimensionless.
        low: Smallest allowed value (of each element for tuples), None for unbounded.
        high: Largest allowed value (of each element for tuples), None for unbounded.
        is_live: Whether the value may change while the node runs.
        choices: Allowed strings, empty for any.
    """

    doc: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    is_live: bool = False
    choices: tuple[str, ...] = ()


def param(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    live: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a config field; without `default` the value is required.

    Returns:
        A dataclass field carrying a `ParamInfo` in its metadata.
    """
    info = ParamInfo(doc=doc, unit=unit, low=low, high=high, is_live=live, choices=choices)
    return field(default=default, metadata={"param": info})


def info_of(config_field: dataclasses.Field[Any]) -> ParamInfo:
    """Return the `ParamInfo` of a config field.

    Raises:
        ConfigError: If the field was not declared with `param`.
    """
    info = config_field.metadata.get("param")
    if not isinstance(info, ParamInfo):
        raise ConfigError(f"field '{config_field.name}' is not declared with param()")
    return info


def check_bounds(config: Any) -> None:
    """Check every field of a config against its bounds and choices; call in `__post_init__`.

    Raises:
        ConfigError: Names the class, the field, the value and the allowed range.
    """
    owner = type(config).__name__
    for config_field in dataclasses.fields(config):
        info, value = info_of(config_field), getattr(config, config_field.name)
        where = f"{owner}.{config_field.name}"
        if info.choices and value not in info.choices:
            raise ConfigError(f"{where}={value!r} is not one of {', '.join(info.choices)}")
        for element in value if isinstance(value, tuple) else (value,):
            if isinstance(element, bool) or not isinstance(element, (int, float)):
                continue
            if not math.isfinite(element):
                raise ConfigError(f"{where}={value!r} is not finite")
            if (info.low is not None and element < info.low) or (
                info.high is not None and element > info.high
            ):
                unit = f" {info.unit}" if info.unit else ""
                raise ConfigError(f"{where}={value!r} is outside [{info.low}, {info.high}]{unit}")


def field_hints(config_type: type[Any]) -> dict[str, Any]:
    """Return the resolved type of each field, in declaration order."""
    hints = get_type_hints(config_type)
    return {f.name: hints[f.name] for f in dataclasses.fields(config_type)}
