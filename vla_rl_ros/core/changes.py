# SPDX-License-Identifier: Apache-2.0
"""Changes of settings as text, ``OWNER.FIELD=VALUE``; for command lines and parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from vla_rl_ros.core.config import field_hints
from vla_rl_ros.core.errors import ConfigError

Config = TypeVar("Config")


def check_changes(changes: Sequence[str], owners: Sequence[str]) -> None:
    """Refuse changes of another form, or of nobody.

    Raises:
        ConfigError: Names the change.
    """
    for change in changes:
        owner, _, rest = change.partition(".")
        if owner not in owners or "=" not in rest:
            raise ConfigError(f"{change}: not of the form {'|'.join(owners)}.FIELD=VALUE")


def changed(config: Config, owner: str, changes: Sequence[str]) -> Config:
    """Apply the changes of one owner to a config; those of others are left to them.

    Args:
        config: A config dataclass.
        owner: Its name in the changes.
        changes: Each of the form ``OWNER.FIELD=VALUE``.

    Raises:
        ConfigError: Unknown field, or a value of another type.
    """
    hints = field_hints(type(config))
    values: dict[str, Any] = {}
    for change in changes:
        path, _, text = change.partition("=")
        theirs, _, name = path.partition(".")
        if theirs != owner:
            continue
        if name not in hints:
            raise ConfigError(f"{change}: {owner} has {', '.join(sorted(hints))}")
        values[name] = _value(change, text, hints[name])
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def _value(change: str, text: str, kind: Any) -> Any:  # noqa: ANN401 - any type of a field
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        element = get_args(kind)[0]
        return tuple(element(part) for part in text.split(",") if part)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{change}: '{text}' is no {kind}") from error
