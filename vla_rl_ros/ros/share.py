# SPDX-License-Identifier: Apache-2.0
"""The files that ship beside the code: config/, launch/, urdf/. Imports nothing of ROS.

They lie at the root of a source checkout, or in share/vla_rl_ros under the prefix that pip or
colcon installed to.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vla_rl_ros.core.episode import TaskConfig
from vla_rl_ros.core.errors import ConfigError

PACKAGE = "vla_rl_ros"
_MARK = Path("config") / "fastdds_shm.xml"

C = TypeVar("C")


def share_path(relative: str = "") -> Path:
    """Path of a shipped file or folder.

    Args:
        relative: Path below the share directory, e.g. ``config/tasks``.

    Raises:
        ConfigError: The files are not where the package was installed.
    """
    for root in _candidates():
        if (root / _MARK).is_file():
            return root / relative if relative else root
    raise ConfigError(
        f"{_MARK} was found neither beside the package nor in share/{PACKAGE}; install the "
        "package again (pip install -e . or colcon build)"
    )


def _candidates() -> list[Path]:
    here = Path(__file__).resolve()
    # parents: ros/, the package, and the root of a checkout or site-packages.
    roots = [here.parents[2]]
    roots += [parent / "share" / PACKAGE for parent in here.parents]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    roots += [Path(prefix) / "share" / PACKAGE for prefix in prefixes if prefix]
    return roots


def read_mapping(path: Path) -> dict[str, Any]:
    """Mapping at the top of a YAML file.

    Raises:
        ConfigError: The file is missing, is not YAML or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping, not {type(content).__name__}")
    return content


def read_config(path: Path, config_type: type[C]) -> C:
    """Frozen config from a YAML file whose keys are its fields.

    Raises:
        ConfigError: Unreadable, an unknown or missing key, or a value out of bounds.
    """
    content = read_mapping(path)
    assert dataclasses.is_dataclass(config_type)
    known = {field.name for field in dataclasses.fields(config_type)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise ConfigError(f"{path}: unknown key(s) {', '.join(unknown)}; known: {sorted(known)}")
    try:
        return config_type(**content)
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error


def known_tasks() -> tuple[str, ...]:
    """Names of the tasks in ``config/tasks``, sorted."""
    return tuple(sorted(path.stem for path in share_path("config/tasks").glob("*.yaml")))


def read_task(name: str) -> TaskConfig:
    """Config of a task.

    Raises:
        ConfigError: There is no such task, or its file is wrong.
    """
    if name not in known_tasks():
        raise ConfigError(f"there is no task '{name}'; known: {', '.join(known_tasks())}")
    return read_config(share_path("config/tasks") / f"{name}.yaml", TaskConfig)
