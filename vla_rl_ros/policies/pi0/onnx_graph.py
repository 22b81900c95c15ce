# SPDX-License-Identifier: Apache-2.0
"""Writes `graph.ChunkGraph` as an ONNX file. Called by `tools.export`; needs torch and onnx.

Names of inputs and metadata are those `policies.onnx` looks for.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from vla_rl_ros.policies.onnx import (
    FEATURE_OUTPUT,
    GRAPH_INPUTS,
    GRAPH_OUTPUT,
    STEPS_KEY,
    TOWER_KEY,
    VOCABULARY_KEY,
)
from vla_rl_ros.policies.pi0.graph import ChunkGraph, example_inputs
from vla_rl_ros.policies.pi0.translation import ModelShape


def export_graph(
    graph: ChunkGraph,
    shape: ModelShape,
    file: Path,
    *,
    num_cameras: int,
    num_tokens: int,
    opset: int,
    tower_hash: str,
) -> None:
    """Write the graph; weights beyond 2 GiB go to files of their own beside it.

    Args:
        graph: Around a float32 model on a CPU.
        shape: Sizes of the model.
        file: To write; its directory exists.
        num_cameras: Images per observation.
        num_tokens: Longest instruction.
        opset: Version of the ONNX operators.
        tower_hash: Of what makes the image features.
    """
    import onnx

    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter is called deprecated, but takes a tenth of the time of the other and
        # keeps a small model in one file. Its warnings name branches on shapes, which are fixed.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            example_inputs(shape, num_cameras, num_tokens),
            str(file),
            dynamo=False,
            opset_version=opset,
            input_names=list(GRAPH_INPUTS),
            output_names=[GRAPH_OUTPUT, FEATURE_OUTPUT],
        )
    written = onnx.load(str(file), load_external_data=False)
    notes = {
        STEPS_KEY: str(graph.num_steps),
        VOCABULARY_KEY: str(shape.vocabulary_size),
        TOWER_KEY: tower_hash,
    }
    onnx.helper.set_model_props(written, notes)
    onnx.save(written, str(file))
