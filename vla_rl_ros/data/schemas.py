# SPDX-License-Identifier: Apache-2.0
"""Message definitions with all nested types, as MCAP wants them (encoding ``ros2msg``).

Taken from the installed interface packages, which is what really runs; on a machine without any,
from the definitions that `rosbags` ships.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from vla_rl_ros.core.errors import BagError

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_PRIMITIVES = {"bool", "byte", "char", "float32", "float64", "string", "wstring", *_INTEGERS}
_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*")
_SEPARATOR = "=" * 80


def message_schema(type_name: str) -> str:
    """Definition of a message followed by those of all types it contains.

    Args:
        type_name: ROS type, ``package/msg/Name``.

    Raises:
        BagError: The type is known neither to an installed package nor to `rosbags`.
    """
    text = _from_packages(type_name)
    return text if text is not None else _from_rosbags(type_name)


def nested_types(type_name: str, definition: str) -> list[str]:
    """Types of the fields of one definition, in order, without primitives and repetitions.

    Args:
        type_name: The message the definition belongs to; unqualified fields are of its package.
        definition: Text of one .msg file.
    """
    package = type_name.split("/")[0]
    found: dict[str, None] = {}
    for line in definition.splitlines():
        match = _FIELD.match(line.split("#", 1)[0])
        if match is None or match[1] in _PRIMITIVES:
            continue
        owner, _, name = match[1].rpartition("/")
        found[f"{owner.split('/')[0] or package}/msg/{name}"] = None
    return list(found)


def has_header(schema: str) -> bool:
    """Whether a message starts with a std_msgs/Header, so that its stamp stands first."""
    for line in schema.splitlines():
        field = line.split("#", 1)[0].split()
        if field:
            return field[0] in ("std_msgs/Header", "std_msgs/msg/Header")
    return False


def _from_packages(type_name: str) -> str | None:
    parts: dict[str, str] = {}
    pending = [type_name]
    while pending:
        current = pending.pop(0)
        if current in parts:
            continue
        text = _read_definition(current)
        if text is None:
            return None
        parts[current] = text
        pending.extend(nested_types(current, text))
    main = parts.pop(type_name)
    blocks = [main]
    for name, text in parts.items():
        package, _, short = name.split("/")
        blocks.append(f"{_SEPARATOR}\nMSG: {package}/{short}\n{text}")
    return "\n".join(blocks)


def _read_definition(type_name: str) -> str | None:
    package, _, name = type_name.split("/")
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in (*prefixes, sys.prefix):
        path = Path(prefix, "share", package, "msg", f"{name}.msg")
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _from_rosbags(type_name: str) -> str:
    from rosbags.typesys import Stores, get_typestore  # takes 0.3 s, rarely needed

    store = get_typestore(Stores.ROS2_HUMBLE)
    if type_name not in store.types:
        raise BagError(f"no definition of {type_name}: its interface package is not installed")
    return str(store.generate_msgdef(type_name, ros_version=2)[0])
