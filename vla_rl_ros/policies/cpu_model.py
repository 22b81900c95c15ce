# SPDX-License-Identifier: Apache-2.0
"""A small ONNX file beside a manifest, run on a CPU without torch.

Shared by what looks at camera images beside the policy: the success classifier and trained eyes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.policies.pi0.images import fit, shrink


def file_hash(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error


def open_model(file: Path, wanted_hash: str, cameras: Sequence[str], num_threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open the weights that a manifest was written for.

    Args:
        file: With one input of images per camera.
        wanted_hash: What the manifest says of the file.
        cameras: In the order of the inputs.
        num_threads: Of the inference.

    Raises:
        ConfigError: Missing, damaged, of another manifest, or with other inputs.
    """
    if file_hash(file) != wanted_hash:
        raise ConfigError(f"{file} is not the file that the manifest beside it was written for")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    # A thread that waits for work by spinning would take a core from the arm.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ConfigError(f"{file} cannot be loaded: {error}") from error
    wanted = [input_name(camera) for camera in cameras]
    found = [entry.name for entry in session.get_inputs()]
    if found != wanted:
        raise ConfigError(f"{file} has inputs {', '.join(found)}, not {', '.join(wanted)}")
    return session


def input_name(camera: str) -> str:
    """Name of a camera's input of the network."""
    return f"image.{camera}"


def sized(image: ImageArray, image_px: int, resize: str) -> ImageArray:
    """An image in the size of the network, uint8 of shape (px, px, 3).

    Args:
        image: RGB, uint8, (h, w, 3).
        image_px: Side of the network's square images.
        resize: ``area`` or ``pad``.

    Raises:
        InvalidCommandError: ``image_size``, where ``area`` is wanted and the image cannot be
            reduced by a whole factor.
    """
    return shrink(image, image_px) if resize == "area" else fit(image, image_px)
