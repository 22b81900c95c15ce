# SPDX-License-Identifier: Apache-2.0
"""Declares a frozen config dataclass as ROS parameters and keeps it current.

Missing, unknown and inconsistent values fail at start with a sentence that names the field; live
fields are replaced as a whole or refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_origin

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vla_rl_ros.core.config import ParamInfo, field_hints, info_of
from vla_rl_ros.core.errors import ConfigError

C = TypeVar("C")

_ROS_OWN = ("use_sim_time", "start_type_description_service")
_TYPES = {
    float: Parameter.Type.DOUBLE,
    int: Parameter.Type.INTEGER,
    bool: Parameter.Type.BOOL,
    str: Parameter.Type.STRING,
}


class ParamStore(Generic[C]):
    """The node's current config; replaced as a whole, never mutated."""

    def __init__(self, node: Node, config_type: type[C], on_change: Callable[[C], None]) -> None:
        """Declare every field of `config_type` on `node`.

        Args:
            node: Node that owns the parameters.
            config_type: Frozen dataclass whose fields are declared with `core.config.param`.
                Fields that are themselves such dataclasses become dotted names.
            on_change: Called with the new config after a live change was accepted.

        Raises:
            ConfigError: A parameter is unknown, missing, of the wrong type or inconsistent.
        """
        self._config_type = config_type
        self._on_change = on_change
        if node.get_parameter("use_sim_time").value:
            raise ConfigError(
                f"{node.get_name()}: use_sim_time is not supported, devices stamp with wall time"
            )
        fields = list(_flatten(config_type))
        _refuse_unknown(node, {name for name, _, _ in fields})
        self._live = {name for name, config_field, _ in fields if info_of(config_field).is_live}
        self._values: dict[str, Any] = {}
        for name, config_field, hint in fields:
            self._values[name] = _declare(node, name, config_field, hint)
        self.value: C = _build(config_type, self._values)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._values}
        if not changes:
            return SetParametersResult(successful=True)
        frozen = sorted(set(changes) - self._live)
        if frozen:
            reason = f"{', '.join(frozen)} can only be set at start"
            return SetParametersResult(successful=False, reason=reason)
        values = {**self._values, **changes}
        try:
            config = _build(self._config_type, values)
            self._on_change(config)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values, self.value = values, config
        return SetParametersResult(successful=True)


def _flatten(config_type: Any, prefix: str = "") -> Any:
    hints = field_hints(config_type)
    for config_field in dataclasses.fields(config_type):
        hint = hints[config_field.name]
        if dataclasses.is_dataclass(hint):
            yield from _flatten(hint, f"{prefix}{config_field.name}.")
        else:
            yield f"{prefix}{config_field.name}", config_field, hint


def _refuse_unknown(node: Node, known: set[str]) -> None:
    # The override table is the only place where a misspelt YAML key is still visible.
    overrides = node._parameter_overrides
    unknown = sorted(
        name
        for name in overrides
        if name not in known and name not in _ROS_OWN and not name.startswith("qos_overrides.")
    )
    if unknown:
        raise ConfigError(
            f"{node.get_name()}: unknown parameter(s) {', '.join(unknown)}; "
            f"known: {', '.join(sorted(known))}"
        )


def _declare(node: Node, name: str, config_field: dataclasses.Field[Any], hint: Any) -> Any:
    info = info_of(config_field)
    descriptor = _descriptor(info, hint)
    if config_field.default is dataclasses.MISSING:
        value: Any = node.declare_parameter(name, _TYPES[hint], descriptor).value
        if value is None:
            raise ConfigError(
                f"{node.get_name()}: required parameter '{name}' is not set ({info.doc})"
            )
        return value
    default = config_field.default
    try:
        return node.declare_parameter(
            name, list(default) if isinstance(default, tuple) else default, descriptor
        ).value
    except Exception as error:
        raise ConfigError(f"{node.get_name()}: parameter '{name}': {error}") from error


def _descriptor(info: ParamInfo, hint: Any) -> ParameterDescriptor:
    text = f"{info.doc} [{info.unit}]" if info.unit else info.doc
    if info.choices:
        text = f"{text} One of: {', '.join(info.choices)}."
    descriptor = ParameterDescriptor(description=text, read_only=False)
    if info.low is not None and info.high is not None:
        if hint is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(info.low), to_value=float(info.high))
            ]
        elif hint is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(info.low), to_value=int(info.high), step=1)
            ]
    return descriptor


def _build(config_type: Any, values: dict[str, Any], prefix: str = "") -> Any:
    arguments: dict[str, Any] = {}
    for name, hint in field_hints(config_type).items():
        full = f"{prefix}{name}"
        if dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, values, f"{full}.")
        else:
            # Array parameters come back as array.array or list, depending on the distribution.
            is_array = get_origin(hint) is tuple
            arguments[name] = tuple(values[full]) if is_array else values[full]
    return config_type(**arguments)
