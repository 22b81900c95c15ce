# SPDX-License-Identifier: Apache-2.0
"""Expands urdf/fr3_cell.urdf.xacro into the text that robot_state_publisher and rviz read.

Called by the launch files. The arm itself comes from a package that ships its description: the ROS
package franka_description where it is installed, else the wheel of the simulated arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.share import share_path

_ROS_PACKAGE = "franka_description"
_ROS_FILE = Path("robots/fr3/fr3.urdf.xacro")
_WHEEL = "franky_sim"
_WHEEL_FILE = Path("assets/fr3.urdf")


def arm_file() -> Path:
    """Description of the arm to build the cell around.

    Raises:
        ConfigError: No installed package ships one.
    """
    for candidate in (_from_ros(), _from_wheel()):
        if candidate is not None and candidate.is_file():
            return candidate
    raise ConfigError(
        f"no description of the arm: install the ROS package {_ROS_PACKAGE}, or the wheel of the "
        "simulated arm (pip install 'vla_rl_ros[sim]')"
    )


def robot_description(mappings: Mapping[str, str] | None = None) -> str:
    """URDF of the arm with hand and cameras.

    Args:
        mappings: xacro arguments that differ from their defaults, e.g. a calibrated
            ``camera_front_xyz`` in metres ("1.1 0.02 0.6") and ``camera_front_rpy`` in radians.

    Raises:
        ConfigError: xacro or the description of the arm is not installed.
    """
    try:
        import xacro
    except ImportError as error:
        raise ConfigError("xacro is not installed (pip install xacro)") from error
    arm = arm_file()
    document = xacro.process_file(
        str(share_path("urdf/fr3_cell.urdf.xacro")),
        mappings={"arm_file": str(arm), **(mappings or {})},
    )
    # The wheel names its meshes relative to itself, which rviz cannot resolve.
    return str(document.toprettyxml(indent="  ")).replace(
        'filename="meshes/', f'filename="{arm.parent.resolve().as_uri()}/meshes/'
    )


def _from_ros() -> Path | None:
    try:
        from ament_index_python.packages import get_package_share_directory
    except ImportError:
        return None
    try:
        return Path(get_package_share_directory(_ROS_PACKAGE)) / _ROS_FILE
    except (LookupError, OSError):  # not installed, or no ROS was sourced
        return None


def _from_wheel() -> Path | None:
    # Only looked up: importing the package would load the physics engine.
    spec = find_spec(_WHEEL)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / _WHEEL_FILE
