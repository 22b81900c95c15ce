# SPDX-License-Identifier: Apache-2.0
"""The processes of the graph as data: both launchers build from it, so they cannot drift.

Imports nothing of ROS. `tools/runner.py` starts the processes without a ROS install, the files in
launch/ hand them to `ros2 launch`.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph import CAMERAS, TOPICS
from vla_rl_ros.ros.graph_options import (
    Backend,
    GraphOptions,
    Parameters,
    ParamValue,
    read_site,
)
from vla_rl_ros.ros.graph_parameters import MANAGED_NODES, layered_parameters
from vla_rl_ros.ros.share import share_path

RUN_DIR_VARIABLE = "VLA_RL_RUN_DIR"
# Their Fast DDS knows the profile's variable by its old name only; later ones complain about it.
OLD_FAST_DDS = ("humble", "iron", "jazzy")
KNOWN_NODES = {*MANAGED_NODES, *(topic.publisher for topic in TOPICS)}
# Between the arm's own loop (-10) and everybody else: actions are late after 100 ms.
COMMAND_NICE = -5
# Of what an image passes on its way to an action, between those and the rest.
CHAIN_NICE = -4
# What it misses is missing from the bag for ever, and three seconds without a turn end an episode.
# It works in short bursts, and the way to the arm goes before it all the same.
RECORDER_NICE = 0
# Gradient steps take what is left.
LEARNER_NICE = 15
# On a machine that others keep busy too, its way out took it up to 9 s.
LEARNER_SAVE_S = 20.0
# It stands for the robot, which does not wait for anybody; a process that starts again needs a
# whole core for a second.
SIMULATOR_NICE = -10


class StopStage(enum.IntEnum):
    """Processes of one stage stop together, stages one after the other."""

    SUPERVISOR = 0
    """First, or it would bring up again what the launcher stops."""
    GATE = 1
    REST = 2
    ARM = 3
    SIMULATOR = 4
    """After the arm: libfranka would wait a second for a dead peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process of the graph.

    Attributes:
        name: Process name; also the name of its log.
        module: Python module that is run with ``python -m``.
        executable: Name for ``ros2 run``; empty for a process without ROS.
        nodes: Names of the ROS nodes in it.
        node_name: Name given by remapping where the executable serves several; empty otherwise.
        parameters: Parameters by node name.
        arguments: Further command line of a process without ROS.
        remappings: Topic remappings, (from, to).
        respawn: Whether it may be started again after it died.
        critical: Whether its death ends the whole graph; neither means that it may just end.
        stop_stage: When it is stopped.
        save_s: How much longer than others it may take to stop before it is killed.
        ready_path: File in the run directory whose appearance says that it serves; empty for none.
        nice: Niceness added; what may lag gives way to what may not. Negative where permitted.
        echo: Whether what it logs is also shown to the operator.
    """

    name: str
    module: str
    executable: str = ""
    nodes: tuple[str, ...] = ()
    node_name: str = ""
    parameters: Parameters = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    respawn: bool = False
    critical: bool = False
    stop_stage: StopStage = StopStage.REST
    save_s: float = 0.0
    ready_path: str = ""
    nice: int = 0
    echo: bool = False

    @property
    def is_ros(self) -> bool:
        """Whether ROS nodes live in it."""
        return bool(self.nodes)


def build_graph(options: GraphOptions) -> list[ProcessSpec]:
    """The processes in the order in which they are started.

    Raises:
        ConfigError: The site file or an override names a node that does not run.
    """
    specs = [spec for spec in _all_processes(options) if spec.name not in options.exclude]
    nodes = {node for spec in specs for node in spec.nodes}
    site = {} if options.site is None else read_site(options.site)
    # A site file may speak of nodes that this run leaves out, but not of unknown ones: a
    # misspelt name would silently drop, say, the workspace box.
    _refuse_nodes(f"{options.site} sets unknown nodes", set(site) - KNOWN_NODES)
    _refuse_nodes("overrides for nodes that do not run", set(options.overrides) - nodes)
    parameters = layered_parameters(options, site, nodes)
    return [
        replace(
            spec,
            parameters={node: parameters[node] for node in spec.nodes},
            remappings=options.remappings.get(spec.name, ()),
        )
        for spec in specs
    ]


def _refuse_nodes(complaint: str, names: set[str]) -> None:
    if names:
        raise ConfigError(f"{complaint}: {', '.join(sorted(names))}")


def _all_processes(options: GraphOptions) -> list[ProcessSpec]:
    nodes = "vla_rl_ros.ros.nodes"
    is_sim = options.backend is Backend.SIM
    arm = ProcessSpec(
        name="arm",
        module=f"{nodes}.arm",
        executable="arm",
        nodes=("proprio_driver", "impedance_controller"),
        critical=True,
        stop_stage=StopStage.ARM,
    )
    cameras = [
        ProcessSpec(
            name=f"camera_{camera}",
            module=f"{nodes}.camera",
            executable="camera",
            nodes=(f"camera_{camera}",),
            node_name=f"camera_{camera}",
            respawn=True,
            nice=CHAIN_NICE,
        )
        for camera in CAMERAS
    ]
    plain = {
        name: ProcessSpec(
            name=name, module=f"{nodes}.{name}", executable=name, nodes=(name,), respawn=True
        )
        for name in (
            "sim_cell",
            "recorder",
            "success_classifier",
            "vla_inference",
            "residual_actor",
            "supervisor",
        )
    }
    gate = ProcessSpec(
        name="intervention",
        module=f"{nodes}.intervention",
        executable="intervention",
        nodes=("intervention",),
        # Without it the arm comes to rest by itself; a new one starts closed.
        respawn=True,
        stop_stage=StopStage.GATE,
        nice=COMMAND_NICE,
    )
    return [
        *([_simulator(options)] if is_sim else []),
        arm,
        *cameras,
        *([replace(plain["sim_cell"], nice=5)] if is_sim else []),
        *([replace(plain["recorder"], nice=RECORDER_NICE)] if options.record else []),
        *([plain["success_classifier"]] if options.classifiers else []),
        replace(plain["vla_inference"], nice=CHAIN_NICE),
        replace(plain["residual_actor"], nice=COMMAND_NICE),
        gate,
        replace(plain["supervisor"], stop_stage=StopStage.SUPERVISOR, echo=True),
        *([_learner(nodes)] if options.learner is not None else []),
        *([_VIEWER] if is_sim and options.window else []),
    ]


def _learner(nodes: str) -> ProcessSpec:
    # Nobody brings it up or waits for it: it may as well run on another host, or die.
    return ProcessSpec(
        name="learner",
        module=f"{nodes}.learner",
        executable="learner",
        nodes=("learner",),
        respawn=True,
        # First, because it needs the longest: it saves, at the lowest priority.
        stop_stage=StopStage.SUPERVISOR,
        save_s=LEARNER_SAVE_S,
        nice=LEARNER_NICE,
        echo=True,
    )


_VIEWER = ProcessSpec(name="viewer", module="vla_rl_ros.sim.viewer", nice=10)


def _simulator(options: GraphOptions) -> ProcessSpec:
    return ProcessSpec(
        name="sim_fci",
        module="vla_rl_ros.sim.cell_process",
        arguments=(
            *("--host", options.robot_ip),
            *("--variant", options.variant),
            *(("--free",) if options.rate == "free" else ()),
        ),
        critical=True,
        stop_stage=StopStage.SIMULATOR,
        ready_path="scene.sock",
        nice=SIMULATOR_NICE,
    )


def graph_environment(run_dir: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of every process of a graph.

    Args:
        run_dir: Directory in which the simulator, the cameras and `sim_cell` meet.
        base: Environment to extend, `os.environ` when None.
    """
    environment = dict(os.environ if base is None else base)
    profile = str(share_path("config/fastdds_shm.xml"))
    environment.update(
        {
            "FASTDDS_DEFAULT_PROFILES_FILE": profile,
            RUN_DIR_VARIABLE: str(run_dir),
            "PYTHONUNBUFFERED": "1",
        }
    )
    if environment.get("ROS_DISTRO") in OLD_FAST_DDS:
        environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
    if environment.get("ROS_DISTRO") == "humble":
        # Humble does not know ROS_AUTOMATIC_DISCOVERY_RANGE.
        environment.setdefault("ROS_LOCALHOST_ONLY", "1")
    # One thread per library: the numerical work is small, the cores are few.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        environment.setdefault(name, "1")
    environment.setdefault("MUJOCO_GL", "egl")
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return environment


def parameter_file(spec: ProcessSpec) -> dict[str, dict[str, dict[str, ParamValue]]]:
    """Content of the ROS parameter file of a process, keyed by node name."""
    return {node: {"ros__parameters": dict(spec.parameters[node])} for node in spec.nodes}


def ros_arguments(spec: ProcessSpec, parameter_path: Path) -> list[str]:
    """Command line after the executable of a ROS process."""
    arguments = ["--ros-args", "--params-file", str(parameter_path)]
    if spec.node_name:
        arguments += ["-r", f"__node:={spec.node_name}"]
    for source, target in spec.remappings:
        arguments += ["-r", f"{source}:={target}"]
    return arguments
