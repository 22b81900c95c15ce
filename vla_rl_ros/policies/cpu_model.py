# SPDX-License-Identifier: Apache-2.0
"""A small ONNX file beside a manifest, run on a CPU without torch.

Shared by what looks at camera images beside the policy: the success classifier and trained eyes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.policies.directory_kinds import kind_of
from vla_rl_ros.policies.pi0.images import fit, shrink
from vla_rl_ros.policies.strict_json import from_json, to_json

MODEL_NAME = "model.onnx"

_ManifestT = TypeVar("_ManifestT")


def read_json_manifest(kind: type[_ManifestT], path: Path, writer: str) -> _ManifestT:
    """Read a manifest.

    Args:
        kind: Dataclass of its fields.
        path: Of the file.
        writer: Command that writes it.

    Raises:
        ConfigError: Missing or damaged; names the key.
    """
    try:
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        found = kind_of(path.parent) if isinstance(error, FileNotFoundError) else ""
        wanted = f"{path.parent} is {found}; wanted is" if found else "give"
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): {wanted} the directory that '{writer}' "
            "wrote"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def write_json_manifest(manifest: _ManifestT, path: Path) -> _ManifestT:
    """Write a manifest for the weights that lie beside it.

    Args:
        manifest: With a field `model_hash`.
        path: Of the file; it is whole or the old one.

    Returns:
        The manifest with the hash of the weights filled in.
    """
    model_hash = file_hash(path.parent / MODEL_NAME)
    manifest = dataclasses.replace(manifest, model_hash=model_hash)  # type: ignore[type-var]
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(to_json(manifest), indent=2) + "\n", encoding="utf-8")
    part.replace(path)
    return manifest


def file_hash(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error


def check_weights(file: Path, wanted_hash: str) -> None:
    """Refuse weights other than those a manifest was written for.

    Args:
        file: The weights.
        wanted_hash: What the manifest says of them.

    Raises:
        ConfigError: Missing, damaged or of another manifest.
    """
    if file_hash(file) != wanted_hash:
        raise ConfigError(f"{file} is not the file that the manifest beside it was written for")


def open_model(file: Path, wanted_hash: str, cameras: Sequence[str], num_threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open the weights that a manifest was written for.

    Args:
        file: With one input of images per camera.
        wanted_hash: What the manifest says of the file.
        cameras: In the order of the inputs.
        num_threads: Of the inference.

    Raises:
        ConfigError: Missing, damaged, of another manifest, or with other inputs; or onnxruntime is
            not installed.
    """
    check_weights(file, wanted_hash)
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{file} needs the Python package '{error.name}': pip install onnxruntime"
        ) from error

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


def resize_of(sizes: Iterable[tuple[int, ...]], image_px: int) -> str:
    """How images of these heights and widths become the network's.

    Returns:
        ``area`` where all are square and a multiple of `image_px`, else ``pad``.
    """
    fits = all(height == width and height % image_px == 0 for height, width in sizes)
    return "area" if fits else "pad"


def sized(image: ImageArray, image_px: int, resize: str, name: str) -> ImageArray:
    """An image in the size of the network, uint8 of shape (px, px, 3).

    Args:
        image: RGB, uint8, (h, w, 3).
        image_px: Side of the network's square images.
        resize: ``area`` or ``pad``.
        name: Of the camera, for the sentence.

    Raises:
        InvalidCommandError: ``image_size``, where ``area`` is wanted and the image cannot be
            reduced by a whole factor.
    """
    return shrink(image, image_px, name) if resize == "area" else fit(image, image_px)
