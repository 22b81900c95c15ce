# SPDX-License-Identifier: Apache-2.0
"""What made a recording: commit, version, Python, ROS. Never a host, a user or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import vla_rl_ros

_GIT_TIMEOUT_S = 5.0
_DISTROS = ("humble", "jazzy", "kilted", "lyrical", "rolling")


def provenance() -> dict[str, str]:
    """Where the running code comes from, for the bag's metadata record of that name.

    Returns:
        ``git_hash`` (40 digits, ``-dirty`` appended for uncommitted changes, ``unknown`` outside
        a checkout), ``package_version``, ``python``, ``machine`` and ``ros_distro``.
    """
    return {
        "git_hash": git_hash(Path(vla_rl_ros.__file__).parent),
        "package_version": vla_rl_ros.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "ros_distro": _ros_distro(),
    }


def git_hash(package_directory: Path) -> str:
    """Commit of the checkout that holds `package_directory`.

    A repository that merely happens to enclose the installation (a home directory under git) is
    not taken for ours: its root has to hold our package.xml.

    Args:
        package_directory: Folder of the running package, or of an environment in the checkout.
    """
    top = _git(package_directory, "rev-parse", "--show-toplevel")
    manifest = Path(top, "package.xml") if top else None
    if manifest is None or not manifest.is_file():
        return "unknown"
    if "<name>vla_rl_ros</name>" not in manifest.read_text(encoding="utf-8"):
        return "unknown"
    commit = _git(package_directory, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return "unknown"
    is_dirty = bool(_git(Path(top), "status", "--porcelain", "--untracked-files=no"))
    return f"{commit}-dirty" if is_dirty else commit


def _git(directory: Path, *arguments: str) -> str:
    # A container often runs as another user than the checkout's owner; reading is harmless.
    command = ["git", "-c", "safe.directory=*", "-C", str(directory), *arguments]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _ros_distro() -> str:
    sourced = os.environ.get("ROS_DISTRO")
    if sourced:
        return sourced
    for distro in _DISTROS:
        with suppress(PackageNotFoundError):
            return f"{distro} (wheels {version(f'ros-{distro}-rclpy')})"
    return "unknown"
