# SPDX-License-Identifier: Apache-2.0
"""Dataclasses from JSON and back: nothing unknown, nothing guessed, every mistake by its key."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from vla_rl_ros.core.config import field_hints
from vla_rl_ros.core.errors import ConfigError

_SectionT = TypeVar("_SectionT")


def to_json(section: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """Inverse of `from_json`: only types that a JSON writer knows."""
    values = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = to_json(value)
        values[field.name] = dict(value) if isinstance(value, Mapping) else value
    return values


def from_json(section_type: type[_SectionT], values: object, where: str = "") -> _SectionT:
    """Make a dataclass, nested ones included, of parsed JSON.

    Args:
        section_type: A dataclass whose fields are declared with `core.config.param`.
        values: What the JSON parser returned.
        where: Prefix of the key in messages, ending in a dot.

    Raises:
        ConfigError: Names the key that is unknown, missing or of a wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where.rstrip('.') or 'the manifest'} must be an object of keys")
    hints = field_hints(section_type)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        known = ", ".join(hints)
        raise ConfigError(f"key '{where}{unknown[0]}' is unknown; known: {known}")
    required = [
        f.name
        for f in dataclasses.fields(section_type)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    for name in required:
        if name not in values:
            raise ConfigError(f"key '{where}{name}' is missing")
    return section_type(
        **{name: _parse(hints[name], value, where + name) for name, value in values.items()}
    )


def _parse(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, f"{where}.")
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}={value!r} must be a list")
        element = get_args(hint)[0]
        return tuple(_parse(element, v, f"{where}[{i}]") for i, v in enumerate(value))
    if get_origin(hint) is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be an object of keys")
        frozen = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        return types.MappingProxyType(frozen)
    return _parse_scalar(hint, value, where)


def _parse_scalar(hint: type, value: object, where: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}={value!r} must be of type {hint.__name__}")
    return value
