# SPDX-License-Identifier: Apache-2.0
"""The graph for `ros2 launch`, from the same description as `vla-rl-ros up`.

Imported by the files in launch/ only; `launch` and `launch_ros` are there where ROS is installed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from vla_rl_ros.core.reset_plan import ResetMode
from vla_rl_ros.core.types import BASE_FRAME, Mode
from vla_rl_ros.ros.graph_options import (
    OPERATOR_DEVICES,
    OPERATOR_MODES,
    SIM_ADDRESS,
    Backend,
    GraphOptions,
)
from vla_rl_ros.ros.processes import (
    ProcessSpec,
    build_graph,
    graph_environment,
)
from vla_rl_ros.ros.share import PACKAGE, known_tasks, share_path
from vla_rl_ros.sim.variants import VARIANTS
from vla_rl_ros.tools.graph import write_parameters

RESPAWN_DELAY_S = 1.0
SWITCHES = ("true", "false")
_MODES = ("", *(mode.value for mode in Mode))
_RESETS = tuple(mode.value for mode in ResetMode)
_OPERATORS = ("", *OPERATOR_DEVICES)
_OPERATOR_MODES = ("", *OPERATOR_MODES)
_COMMON = (
    ("site", "", "YAML file with this cell's node parameters", None),
    ("task", "lift", "what to do", known_tasks()),
    ("policy", "", "policy back end; empty takes the default of the cell", None),
    ("checkpoint", "", "weights of the policy; empty takes those it brings along", None),
    ("eyes", "", "what makes a residual's image features; empty: the policy's own tower", None),
    ("mode", "", "how chunks are executed; empty takes prefix_lock", _MODES),
    ("residual", "", "weights of a residual: policy.safetensors, or the directory of a run", None),
    ("classifier", "", "directories of success classifiers, separated by blanks", None),
    ("operator", "", "what the operator has in his hand; empty for nothing", _OPERATORS),
    ("operator_mode", "", "what he is there for; empty takes assist", _OPERATOR_MODES),
    ("learner", "", "directory of a learner's run; empty for no learner on this host", None),
    ("preset", "", "settings of the learner; empty takes pld", None),
    ("learner_settings", "", "changes of them, e.g. learner.xi=0.3, separated by blanks", None),
    ("episodes", "0", "episodes to run without being asked", None),
    ("seed", "0", "seed of the first reset", None),
    ("reset", ResetMode.SCRIPTED.value, "who resets the scene", _RESETS),
    ("out", "out", "where bags and parameter files go", None),
    ("record", "true", "record every episode", SWITCHES),
    ("rviz", "false", "open rviz with the cell's view", SWITCHES),
    (
        "robot_state_publisher",
        "false",
        "publish the robot's frames; needs robot_state_publisher and joint_state_publisher",
        SWITCHES,
    ),
    ("world_frame", "", f"parent frame of {BASE_FRAME}; empty publishes none", None),
)
_SIM = (
    ("robot_ip", SIM_ADDRESS, "loopback address of the simulated control box", None),
    ("variant", "default", "difficulty of the scene", tuple(VARIANTS)),
    ("image_px", "128", "width and height of simulated images", None),
    ("rate", "real", "pace of the simulated arm", ("real", "free")),
)
_REAL = (("robot_ip", None, "address of the control box", None),)


def describe(backend: Backend) -> LaunchDescription:
    """The launch description of the simulated or the real cell."""
    rows = (*(_SIM if backend is Backend.SIM else _REAL), *_COMMON)
    arguments = []
    for name, default, description, choices in rows:
        extra: dict[str, Any] = {} if default is None else {"default_value": default}
        if choices is not None:
            extra["choices"] = list(choices)
        arguments.append(DeclareLaunchArgument(name, description=description, **extra))
    names = tuple(name for name, *_ in rows)
    return LaunchDescription([*arguments, OpaqueFunction(function=partial(_act, backend, names))])


def _act(backend: Backend, names: tuple[str, ...], context: LaunchContext) -> list[Any]:
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    options = _options(backend, values)
    run_dir = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}."))
    atexit.register(shutil.rmtree, run_dir, ignore_errors=True)
    # What the graph needs by itself, with the values that this shell gives it.
    own = graph_environment(run_dir, {"ROS_DISTRO": os.environ.get("ROS_DISTRO", "")})
    environment = graph_environment(run_dir)
    environment = {name: environment[name] for name in own if name != "ROS_DISTRO"}
    folder = options.out.resolve() / "parameters"
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *(SetEnvironmentVariable(name, value) for name, value in environment.items()),
        *(process_action(spec, folder) for spec in build_graph(options)),
        *_views(values),
    ]


def _options(backend: Backend, values: dict[str, str]) -> GraphOptions:
    return GraphOptions(
        backend=backend,
        robot_ip=values["robot_ip"],
        tasks=(values["task"],),
        episodes=int(values["episodes"]),
        seed=int(values["seed"]),
        reset=values["reset"],
        policy=values["policy"],
        checkpoint=values["checkpoint"],
        eyes=values["eyes"],
        mode=values["mode"],
        residual=values["residual"],
        classifiers=tuple(values["classifier"].split()),
        operator=values["operator"],
        operator_mode=values["operator_mode"],
        learner=Path(values["learner"]).expanduser() if values["learner"] else None,
        preset=values["preset"],
        learner_settings=values["learner_settings"],
        variant=values.get("variant", "default"),
        image_px=int(values.get("image_px", "128")),
        rate=values.get("rate", "real"),
        record=values["record"] == "true",
        out=Path(values["out"]).expanduser(),
        site=Path(values["site"]).expanduser() if values["site"] else None,
    )


def process_action(spec: ProcessSpec, folder: Path) -> Any:  # noqa: ANN401 - launch has no types
    """Launch action of one process.

    Args:
        spec: The process.
        folder: Where its parameter file is written.
    """
    common: dict[str, Any] = {"output": "both", "respawn": spec.respawn}
    if spec.respawn:
        common["respawn_delay"] = RESPAWN_DELAY_S
    if spec.critical:
        common["on_exit"] = Shutdown(reason=f"{spec.name} ended, and nothing works without it")
    if spec.save_s:
        common["sigkill_timeout"] = str(spec.save_s)
    if spec.nice:
        common["prefix"] = f"nice -n {spec.nice}"
    if not spec.is_ros:
        command = [sys.executable, "-m", spec.module, *spec.arguments]
        return ExecuteProcess(cmd=command, name=spec.name, **common)
    if spec.node_name:
        # Only where an executable serves several nodes: it would rename both nodes of `arm`.
        common["name"] = spec.node_name
    # A file keyed by node name: a dictionary would reach every node of the process.
    path = write_parameters(spec, folder)
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        parameters=[str(path)],
        remappings=list(spec.remappings),
        **common,
    )


def _views(values: dict[str, str]) -> list[Any]:
    """What shows the robot; executables that a bare machine does not have."""
    actions = []
    if values["robot_state_publisher"] == "true":
        from vla_rl_ros.tools.urdf import robot_description

        # The arm reports seven joints; this adds the fingers, which the robot's model wants too.
        sources = {"source_list": ["arm/joint_state"], "rate": 50}
        description = {"robot_description": robot_description()}
        actions += [
            Node(
                package="joint_state_publisher",
                executable="joint_state_publisher",
                parameters=[sources, description],
            ),
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                parameters=[description],
            ),
        ]
    if values["world_frame"]:
        frames = ["--frame-id", values["world_frame"], "--child-frame-id", BASE_FRAME]
        actions.append(
            Node(package="tf2_ros", executable="static_transform_publisher", arguments=frames)
        )
    if values["rviz"] == "true":
        view = str(share_path("config/rviz/cell.rviz"))
        actions.append(Node(package="rviz2", executable="rviz2", arguments=["-d", view]))
    return actions
