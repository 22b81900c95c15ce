# SPDX-License-Identifier: Apache-2.0
"""Whether nodes will take the options of a graph, told before a process is started.

They say the same, in the same words, but only when everything runs, and are then asked for two
minutes. Reads what is small; knows no ROS.
"""

from __future__ import annotations

from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.actor_bytes import read_actor
from vla_rl_ros.learning.classifier_model import read_manifest as read_classifier
from vla_rl_ros.policies.eyes_directory import check_eyes
from vla_rl_ros.policies.manifest import read_manifest as read_policy
from vla_rl_ros.ros.graph_options import GraphOptions, Parameters
from vla_rl_ros.ros.learner_config import LearnerNodeConfig

_LOCAL = ("lerobot", "onnx", "openpi", "pi0")
"""Policies whose checkpoint is a path; one that somebody adds may have names of its own."""


def check_options(options: GraphOptions, parameters: Parameters) -> None:
    """Refuse weights that are not there or of another kind, and settings that no learner has.

    Args:
        options: What was chosen.
        parameters: By node, of what was chosen and of the site file.

    Raises:
        ConfigError: Names file or setting.
    """
    check_eyes(options.eyes, "--eyes")
    if options.residual:
        read_actor(Path(options.residual).expanduser())
    for directory in options.classifiers:
        read_classifier(Path(directory).expanduser())
    if options.learner is not None:
        if options.learner.is_file():
            raise ConfigError(
                f"--learner {options.learner} is a file: give the directory of a run"
            )
        given = parameters.get("learner", {})
        LearnerNodeConfig(
            preset=str(given.get("preset", LearnerNodeConfig.preset)),
            settings=str(given.get("settings", "")),
        )
    policy = parameters.get("vla_inference", {}).get("policy", "")
    if options.checkpoint and policy in _LOCAL:
        path = Path(options.checkpoint).expanduser()
        if not path.exists():
            raise ConfigError(f"--checkpoint {path}: there is no such file or directory")
        if policy == "pi0":
            read_policy(path)
