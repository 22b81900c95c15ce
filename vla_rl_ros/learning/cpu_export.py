# SPDX-License-Identifier: Apache-2.0
"""Writes a small network as the ONNX file that `policies.cpu_model` runs.

Called by `classifier_training` and `eyes_training`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from vla_rl_ros.policies.cpu_model import input_name

_OPSET = 17


def export_cpu(
    net: nn.Module, file: Path, cameras: Sequence[str], image_px: int, output: str
) -> None:
    """Export a network; the file is whole or the old one.

    Args:
        net: Takes uint8 images (n, px, px, 3), one tensor per camera; is left in eval mode.
        file: To write.
        cameras: In the order of its inputs.
        image_px: Side of the images.
        output: Name of what it answers.
    """
    example = tuple(torch.zeros(2, image_px, image_px, 3, dtype=torch.uint8) for _ in cameras)
    names = [input_name(camera) for camera in cameras]
    part = file.with_suffix(".part")
    with warnings.catch_warnings(), torch.no_grad():
        # As in `policies.pi0.onnx_graph`: the exporter that traces is the quick one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            example,
            str(part),
            dynamo=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in (*names, output)},
        )
    part.replace(file)
