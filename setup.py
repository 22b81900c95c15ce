# SPDX-License-Identifier: Apache-2.0
"""Package for ament_python (`colcon build`) and for pip; package.xml owns the version."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

NAME = "vla_rl_ros"
MANIFEST = ElementTree.parse("package.xml").getroot()

# One executable per process of the graph; two nodes share the process `arm`.
PROCESSES = [
    "arm",
    "camera",
    "vla_inference",
    "residual_actor",
    "intervention",
    "supervisor",
    "recorder",
    "sim_cell",
    "learner",
    "success_classifier",
]

CORE = [
    "franky-control",
    "mcap",
    "mcap-ros2-support",
    "numpy",
    "psutil",
    "pyyaml",
    "rosbags",
    "scipy",
    "tqdm",
    "zstandard",
]
TEST = ["hypothesis", "pytest<9", "pytest-timeout", "pytest-xdist"]
EXTRAS = {
    "sim": ["franky-sim", "gymnasium", "matplotlib", "mujoco", "pillow"],
    "hardware": ["pillow", "pyrealsense2", "pyspacemouse>=2.1"],
    # Policies in process: pi0 (torch), and exported ones (onnxruntime).
    "learning": ["onnx", "onnxruntime", "safetensors", "tokenizers", "torch>=2.9", "transformers"],
    # Policies behind an openpi server.
    "remote": ["msgpack", "websockets>=15"],
    # Peers of `bench learner`.
    "bench": ["sbx-rl", "stable-baselines3"],
    # LeRobot policies in process; it pins an older torch, so give it an environment of its own.
    "lerobot": ["lerobot>=0.4.4"],
    # ROS itself for machines without a ROS install; the three wheels select one distribution.
    "ros": [
        "ros-kilted-common-interfaces",
        "ros-kilted-rclpy",
        "ros-kilted-rmw-fastrtps-cpp",
        "xacro",
    ],
    "test": TEST,
    "dev": [
        *TEST,
        "colcon-common-extensions",
        "import-linter",
        "mypy",
        "pre-commit",
        "pytest-rerunfailures",
        "ruff",
        "types-PyYAML",
    ],
}


def installed_tree(folder: str) -> list[tuple[str, list[str]]]:
    """List the files of a folder for share/, one row per directory."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    rows: dict[str, list[str]] = {}
    for path in files:
        if "__pycache__" not in path.parts:
            rows.setdefault(f"share/{NAME}/{path.parent}", []).append(str(path))
    return list(rows.items())


setup(
    name=NAME,
    version=MANIFEST.findtext("version"),
    description=" ".join((MANIFEST.findtext("description") or "").split()),
    maintainer=MANIFEST.findtext("maintainer"),
    maintainer_email=MANIFEST.find("maintainer").attrib["email"],
    license=MANIFEST.findtext("license"),
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        NAME: ["py.typed", "policies/checkpoints/*/*", "tools/*.html", "sim/hid/*.c"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        # pip puts console scripts into bin/, where `ros2 run` and `ros2 launch` do not look.
        (f"lib/{NAME}", [f"scripts/libexec/{process}" for process in PROCESSES]),
        *(row for folder in ("launch", "config", "urdf") for row in installed_tree(folder)),
    ],
    entry_points={
        "console_scripts": [
            "vla-rl-ros = vla_rl_ros.tools.cli:main",
            *(f"{process} = vla_rl_ros.ros.nodes.{process}:main" for process in PROCESSES),
        ],
    },
    python_requires=">=3.10",
    install_requires=CORE,
    extras_require=EXTRAS,
    # colcon chooses pytest by this one or, as newer setuptools drop it, by the extra `test`.
    tests_require=["pytest"],
    zip_safe=False,
)
