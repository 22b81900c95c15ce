# SPDX-License-Identifier: Apache-2.0
"""A classifier that takes bright images for success, written with onnx alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_rl_ros.learning.classifier_model import (
    LOGIT,
    ClassifierManifest,
    write_manifest,
)
from vla_rl_ros.policies.cpu_model import MODEL_NAME, input_name

PX = 32
CAMERAS = ("wrist", "front")


def write_brightness_classifier(
    directory: Path, *, task: str = "lift", checks=None, cameras=CAMERAS
) -> Path:
    import onnx
    from onnx import TensorProto, helper

    shape = ["batch", PX, PX, 3]
    inputs = [
        helper.make_tensor_value_info(input_name(c), TensorProto.UINT8, shape) for c in cameras
    ]
    output = helper.make_tensor_value_info(LOGIT, TensorProto.FLOAT, ["batch"])
    nodes, means = [], []
    for camera in cameras:
        nodes.append(
            helper.make_node("Cast", [input_name(camera)], [f"{camera}.f"], to=TensorProto.FLOAT)
        )
        nodes.append(
            helper.make_node("ReduceMean", [f"{camera}.f"], [f"{camera}.m"], axes=[1, 2, 3],
                             keepdims=0)
        )  # fmt: skip
        means.append(f"{camera}.m")
    nodes.append(helper.make_node("Sum", means, ["sum"]))
    scale = 0.05 / len(cameras)
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("middle", TensorProto.FLOAT, [], [128.0 * 0.05]),
    ]
    nodes.append(helper.make_node("Mul", ["sum", "scale"], ["scaled"]))
    nodes.append(helper.make_node("Sub", ["scaled", "middle"], [LOGIT]))
    graph = helper.make_graph(nodes, "bright", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    directory.mkdir(parents=True)
    onnx.save(model, str(directory / MODEL_NAME))
    manifest = ClassifierManifest(
        name="bright", task=task, cameras=tuple(cameras), image_px=PX, checks=checks or {}
    )
    write_manifest(manifest, directory)
    return directory


def grey(shade: int, count: int = 1) -> dict[str, np.ndarray]:
    return {name: np.full((count, PX, PX, 3), shade, np.uint8) for name in CAMERAS}
