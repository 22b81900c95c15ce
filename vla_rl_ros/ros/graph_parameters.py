# SPDX-License-Identifier: Apache-2.0
"""Parameters of every node of a graph, from options, site file and overrides. Knows no ROS.

Used by `ros/processes.py` only. Layers, later ones win: what the options say, the site file, which
devices are driven, overrides of tests and benches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.goal_eyes import are_goal_eyes, read_manifest
from vla_rl_ros.policies.protocol import SHIPPED_EYES, absolute_eyes
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.graph_checks import check_options
from vla_rl_ros.ros.graph_options import Backend, GraphOptions, Parameters, ParamValue

# Bring-up order of the managed nodes; the gate is last up and first down.
MANAGED_NODES = (
    "proprio_driver",
    "impedance_controller",
    *(f"camera_{name}" for name in CAMERAS),
    "sim_cell",
    "recorder",
    "success_classifier",
    "vla_inference",
    "residual_actor",
    "intervention",
)
SHARED: dict[str, tuple[str, ...]] = {
    # Both check targets; two different boxes would be no second check.
    "limits.": ("intervention", "impedance_controller"),
    "control_period_s": (
        "vla_inference",
        "residual_actor",
        "intervention",
        "learner",
        "supervisor",
    ),
    "anchor": ("vla_inference", "intervention"),
}
"""Parameters, or groups of them, that mean one thing in several nodes."""


def layered_parameters(
    options: GraphOptions, site: Parameters, nodes: set[str]
) -> dict[str, dict[str, ParamValue]]:
    """Parameters by node.

    Args:
        options: What the user chose.
        site: Parameters of the site file, by node.
        nodes: Nodes that run.

    Raises:
        ConfigError: The site contradicts itself, or nodes would refuse the options.
    """
    layers = [
        _base_parameters(options, nodes),
        share_parameters(site),
        _pinned_parameters(options),
        share_parameters(options.overrides),
    ]
    merged = {node: _merged(layers, node) for node in nodes}
    check_options(options, merged)
    if options.backend is Backend.REAL:
        _refuse_simulated_weights(merged.get("vla_inference", {}))
    return merged


def _refuse_simulated_weights(vla: Mapping[str, ParamValue]) -> None:
    if vla.get("policy") == "pi0" and not vla.get("settings.path"):
        raise ConfigError(
            "the weights that pi0 brings along know the simulated cell only: "
            "name your own with --checkpoint or settings.path"
        )
    eyes = str(vla.get("settings.eyes", ""))
    if eyes == SHIPPED_EYES:
        raise ConfigError(
            f"--eyes or settings.eyes='{SHIPPED_EYES}' means a tower that has seen the simulated "
            "cell only: name a checkpoint that was trained on real images"
        )
    directory = Path(eyes).expanduser()
    if eyes and are_goal_eyes(directory) and read_manifest(directory).source == "simulator":
        raise ConfigError(
            f"--eyes or settings.eyes='{eyes}' learned from the simulated cell: train eyes on "
            "recordings of the arm"
        )


def share_parameters(given: Parameters) -> Parameters:
    """Give every node of `SHARED` what is set for one of them.

    Args:
        given: Parameters by node.

    Raises:
        ConfigError: One parameter is set differently for two nodes that share it.
    """
    shared: dict[str, dict[str, ParamValue]] = {node: dict(own) for node, own in given.items()}
    for group, nodes in SHARED.items():
        values: dict[str, ParamValue] = {}
        for node in nodes:
            for name, value in given.get(node, {}).items():
                is_member = name.startswith(group) if group.endswith(".") else name == group
                if is_member and values.setdefault(name, value) != value:
                    raise ConfigError(f"{name} differs between {' and '.join(nodes)}")
        if values:
            for node in nodes:
                shared[node] = {**shared.get(node, {}), **values}
    return shared


def _pinned_parameters(options: GraphOptions) -> Parameters:
    """What the command line decides and no site file may change: the arm, a chosen policy."""
    vla = _given(
        {
            "policy": options.policy,
            "settings.path": options.checkpoint,
            "settings.eyes": absolute_eyes(options.eyes),
            "mode": options.mode,
        }
    )
    weights = str(Path(options.residual).expanduser().resolve()) if options.residual else ""
    actor = _given({"residual": weights})
    learner = _given({"preset": options.preset, "settings": options.learner_settings})
    gate = _given({"device": options.operator, "mode": options.operator_mode})
    if options.operator_mode == "shadow":
        # The policy goes on while the human drives.
        vla, actor = {**vla, "shadow": True}, {**actor, "shadow": True}
    learning: Parameters = {"residual_actor": actor, "learner": learner, "intervention": gate}
    arm: dict[str, ParamValue] = {"driver": _arm_driver(options), "robot_ip": options.robot_ip}
    if options.backend is Backend.REAL:
        return {"proprio_driver": arm, "vla_inference": vla, **learning}
    cameras = {f"camera_{camera}": _camera_parameters(camera, options) for camera in CAMERAS}
    proprio: dict[str, ParamValue] = {**arm, "realtime": "auto"}
    return {"proprio_driver": proprio, "vla_inference": vla, **learning, **cameras}


def _given(values: Mapping[str, str]) -> dict[str, ParamValue]:
    """Those that are not empty."""
    return {name: value for name, value in values.items() if value}


def _arm_driver(options: GraphOptions) -> str:
    return "fake" if options.backend is Backend.FAKE else "franka"


def _merged(layers: list[Parameters], node: str) -> dict[str, ParamValue]:
    merged: dict[str, ParamValue] = {}
    for layer in layers:
        merged.update(layer.get(node, {}))
    return merged


def _base_parameters(options: GraphOptions, nodes: set[str]) -> Parameters:
    parameters: dict[str, dict[str, ParamValue]] = {node: {} for node in nodes}
    for node in nodes & set(MANAGED_NODES):
        parameters[node]["autostart"] = False
    is_sim = options.backend is Backend.SIM
    values: dict[str, dict[str, ParamValue]] = {
        "sim_cell": {"task": options.tasks[0], "seed": options.seed, "variant": options.variant},
        "recorder": {"directory": str(options.out / "bags")},
        # It explores only where somebody learns from it.
        "residual_actor": {"explore": options.learner is not None},
        "learner": {"directory": str((options.learner or Path()).resolve())},
        "success_classifier": {
            "classifiers": [str(Path(path).expanduser().resolve()) for path in options.classifiers]
        },
        "vla_inference": {
            # The shipped weights know the simulated cell and nothing else.
            "policy": "pi0" if is_sim else "still",
            "task": options.tasks[0],
        },
        "supervisor": {
            "managed_nodes": [node for node in MANAGED_NODES if node in nodes],
            "tasks": list(options.tasks),
            "task": options.tasks[0],
            "seed": options.seed,
            "autorun_episodes": options.episodes,
            "episodes_per_task": options.episodes_per_task,
            "outcome_source": _judge(options),
            "reset": options.reset,
            "pair_help": "scripted" if is_sim else "human",
        },
    }
    for camera in CAMERAS:
        values[f"camera_{camera}"] = _camera_parameters(camera, options)
    for node in nodes:
        parameters[node].update(values.get(node, {}))
    return parameters


def _judge(options: GraphOptions) -> str:
    """Who says that the task is done."""
    if options.classifiers:
        return "classifier"
    return "ground_truth" if options.backend is Backend.SIM else "operator"


def _camera_parameters(camera: str, options: GraphOptions) -> dict[str, ParamValue]:
    if options.backend is Backend.REAL:
        return {"camera": camera, "driver": "realsense"}
    driver = "sim" if options.backend is Backend.SIM else "fake"
    size: dict[str, ParamValue] = {"width_px": options.image_px, "height_px": options.image_px}
    return {"camera": camera, "driver": driver, **size}
