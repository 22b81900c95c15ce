# SPDX-License-Identifier: Apache-2.0
"""Whether the weights that a graph is to run with are there, told before a process is started.

Their nodes say the same, in the same words, but only when everything runs, and are then asked for
two minutes. Reads what is small; knows no ROS.
"""

from __future__ import annotations

from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.actor_bytes import read_actor
from vla_rl_ros.learning.classifier_model import read_manifest as read_classifier
from vla_rl_ros.policies.eyes_directory import check_eyes
from vla_rl_ros.policies.manifest import read_manifest as read_policy
from vla_rl_ros.ros.graph_options import GraphOptions

_LOCAL = ("lerobot", "onnx", "openpi", "pi0")
"""Policies whose checkpoint is a path; one that somebody adds may have names of its own."""


def check_weights(options: GraphOptions, policy: str) -> None:
    """Refuse weights that are not there, or are of another kind.

    Args:
        options: What was chosen.
        policy: The policy that will run; a site file may have chosen it.

    Raises:
        ConfigError: Names them.
    """
    check_eyes(options.eyes, "--eyes")
    if options.residual:
        read_actor(Path(options.residual).expanduser())
    for directory in options.classifiers:
        read_classifier(Path(directory).expanduser())
    if options.learner is not None and options.learner.is_file():
        raise ConfigError(f"--learner {options.learner} is a file: give the directory of a run")
    if options.checkpoint and policy in _LOCAL:
        path = Path(options.checkpoint).expanduser()
        if not path.exists():
            raise ConfigError(f"--checkpoint {path}: there is no such file or directory")
        if policy == "pi0":
            read_policy(path)
