# SPDX-License-Identifier: Apache-2.0
"""What a policy expects and means: the file ``policy.json`` beside its weights.

Read by every learned back end when it is made, written by the trainer. The dataclasses are the
only place where a key, its default and its bounds are said; what does not fit is refused with a
sentence that names the key.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_rl_ros.core.config import ParamInfo, check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.directory_kinds import kind_of
from vla_rl_ros.policies.protocol import PolicyEnvironment
from vla_rl_ros.policies.strict_json import from_json, to_json

MANIFEST_NAME = "policy.json"
MANIFEST_FORMAT = 1

CODECS = ("delta_measured", "delta_target", "relative", "absolute", "joint", "joint_delta")
JOINT_CODECS = frozenset({"joint", "joint_delta"})
_ROTVEC_DIM, _R6D_DIM, _JOINT_DIM = 7, 10, 8


def _fill_normalisation(section: Any, dim: int, where: str) -> None:  # noqa: ANN401
    """Replace empty mean and std by zeros and ones, and check lengths and signs."""
    for name, neutral in (("mean", 0.0), ("std", 1.0)):
        given = getattr(section, name)
        if not given:
            object.__setattr__(section, name, (neutral,) * dim)
        elif len(given) != dim:
            raise ConfigError(f"{where}.{name} has {len(given)} numbers for {dim} of {where}")
    if any(std <= 0.0 for std in section.std):
        raise ConfigError(f"{where}.std={list(section.std)} must be positive")


@dataclass(frozen=True, kw_only=True)
class StateSection:
    """The vector of proprioception the model was trained on."""

    channels: tuple[str, ...] = param((), doc="Channels in the model's order.")
    mean: tuple[float, ...] = param((), doc="Subtracted per channel; empty for zeros.")
    std: tuple[float, ...] = param((), doc="Divided by per channel; empty for ones.")

    def __post_init__(self) -> None:
        """Check bounds and that there is one mean and one scale per channel."""
        check_bounds(self)
        dim = len(self.channels)
        _fill_normalisation(self, dim, "state")


@dataclass(frozen=True, kw_only=True)
class ActionSection:
    """What one row of the model's answer means: model output * std + mean is physical."""

    codec: str = param(doc="What the numbers are.", choices=CODECS)
    frame: str = param("base", doc="Axes of increments and poses.", choices=("base", "tcp"))
    rotation: str = param(
        "auto",
        doc="Rotation vector, or two columns (r6d) or rows (r6d_rows) of the matrix; "
        "auto: a vector in rows of 7, columns in rows of 10.",
        choices=("auto", "rotvec", "r6d", "r6d_rows"),
    )
    gripper: str = param(
        "continuous",
        doc="Whether the opening is rounded to open or closed.",
        choices=("binary", "continuous"),
    )
    gripper_open: float = param(1.0, doc="Physical value of the gripper channel when open.")
    gripper_closed: float = param(0.0, doc="Physical value of the gripper channel when closed.")
    dim: int = param(0, doc="Numbers per row; 0 takes the length of mean.", low=0, high=10)
    mean: tuple[float, ...] = param((), doc="Added per number; empty for zeros.")
    std: tuple[float, ...] = param((), doc="Multiplied per number; empty for ones.")

    def __post_init__(self) -> None:
        """Check bounds and resolve `rotation` and `dim`."""
        check_bounds(self)
        if self.gripper_open == self.gripper_closed:
            raise ConfigError(
                f"action.gripper_open={self.gripper_open} must differ from action.gripper_closed"
            )
        if self.frame == "tcp" and (self.codec == "absolute" or self.codec in JOINT_CODECS):
            raise ConfigError(f"action.frame='tcp' has no meaning for '{self.codec}': use 'base'")
        self._resolve_dim()
        _fill_normalisation(self, self.dim, "action")

    def _resolve_dim(self) -> None:
        dim = self.dim or len(self.mean) or len(self.std)
        if self.codec in JOINT_CODECS:
            wanted, rotation = _JOINT_DIM, "rotvec"
        elif self.rotation == "auto":
            wanted = _R6D_DIM if dim == _R6D_DIM else _ROTVEC_DIM
            rotation = "r6d" if wanted == _R6D_DIM else "rotvec"
        else:
            rotation = self.rotation
            wanted = _ROTVEC_DIM if rotation == "rotvec" else _R6D_DIM
        if dim not in (0, wanted):
            raise ConfigError(
                f"action.mean has {dim} numbers, but codec '{self.codec}' with rotation "
                f"'{self.rotation}' has {wanted}"
            )
        object.__setattr__(self, "dim", wanted)
        object.__setattr__(self, "rotation", rotation)


@dataclass(frozen=True, kw_only=True)
class PrefixSection:
    """What the model can do with actions that are already promised."""

    max_locked: int = param(0, doc="Longest locked prefix it was trained for.", low=0, high=256)
    conditioning: tuple[str, ...] = param((), doc="Out of 'lock' and 'guide'.")

    def __post_init__(self) -> None:
        """Check bounds and names."""
        check_bounds(self)
        for name in self.conditioning:
            if name not in ("lock", "guide"):
                raise ConfigError(f"prefix.conditioning={name!r} is not one of lock, guide")
        if "lock" in self.conditioning and self.max_locked == 0:
            raise ConfigError("prefix.max_locked=0 contradicts prefix.conditioning 'lock'")


def _keys(doc: str) -> Any:  # noqa: ANN401 - what dataclasses.field() returns
    """Declare a field that holds free keys, none by default."""
    return dataclasses.field(default_factory=dict, metadata={"param": ParamInfo(doc=doc)})


_NO_STATE, _NO_PREFIX = StateSection(), PrefixSection()

InputSource = str | tuple[str, ...]
"""``camera.<name>``, ``instruction``, ``state`` (normalised), or a list of state channels."""


@dataclass(frozen=True, kw_only=True)
class PolicyManifest:
    """Everything a back end has to know about its weights."""

    format: int = param(MANIFEST_FORMAT, doc="Version of this format.", low=1, high=1)
    backend: str = param(doc="Back end that reads it.")
    control_period_s: float = param(
        doc="Time between two rows of an answer.", unit="s", low=0.01, high=1.0
    )
    horizon: int = param(0, doc="Rows of an answer; 0 where the weights say it.", low=0, high=256)
    cameras: tuple[str, ...] = param((), doc="Cameras of the cell in the model's order.")
    image_px: int = param(0, doc="Side of the square images, 0 as they are.", low=0, high=1024)
    image_resize: str = param(
        "pad",
        doc="How images get there: mean over whole boxes, or bilinear with black borders.",
        choices=("area", "pad"),
    )
    # RUF009 does not know that param() is dataclasses.field().
    state: StateSection = param(_NO_STATE, doc="Proprioception.")  # noqa: RUF009
    action: ActionSection = param(doc="Meaning of the answer.")  # noqa: RUF009
    prefix: PrefixSection = param(_NO_PREFIX, doc="Promised actions.")  # noqa: RUF009
    inputs: Mapping[str, InputSource] = _keys(
        "Name in the model's observation to its source (openpi, lerobot)."
    )
    prompt: str = param(
        "raw",
        doc="Instruction as it is, or with the image tokens and the line end of PI0.",
        choices=("raw", "pi0"),
    )
    denoise_steps: int = param(5, doc="Euler steps of the flow.", low=1, high=100)
    training: Mapping[str, object] = _keys("Free text: command, seed, scores.")

    def __post_init__(self) -> None:
        """Check bounds and that inputs and cameras agree."""
        check_bounds(self)
        for key, source in self.inputs.items():
            _check_source(key, source, self)

    def check_fits(self, backend: str, environment: PolicyEnvironment) -> None:
        """Refuse a cell these weights were not trained for.

        Raises:
            ConfigError: Other back end, control period, or cameras the cell lacks.
        """
        if self.backend != backend:
            raise ConfigError(f"backend='{self.backend}' is not '{backend}': set policy to it")
        cell_s = environment.control_period_s
        if not math.isclose(self.control_period_s, cell_s, rel_tol=1e-6):
            raise ConfigError(
                f"control_period_s={self.control_period_s} of the policy is not the cell's "
                f"{cell_s}: set control_period_s of the graph, or train for this one"
            )
        missing = sorted(set(self.cameras) - set(environment.cameras))
        if missing:
            raise ConfigError(f"cameras: the cell lacks {', '.join(missing)}")


def read_manifest(path: Path) -> PolicyManifest:
    """Read the manifest of a checkpoint.

    Args:
        path: Directory with a ``policy.json``, or that file itself.

    Raises:
        ConfigError: Missing, not JSON, or a key that does not fit; names file and key.
    """
    file = path / MANIFEST_NAME if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        kind = kind_of(path) if isinstance(error, FileNotFoundError) else ""
        found = f"{path} is {kind}" if kind else "every policy needs one"
        raise ConfigError(f"cannot read {file}: {error.strerror}; {found}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    try:
        return parse_manifest(values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def write_manifest(manifest: PolicyManifest, path: Path) -> None:
    """Write ``policy.json`` into the directory `path`, or the file `path` itself (``.json``)."""
    file = path if path.suffix == ".json" else path / MANIFEST_NAME
    file.write_text(json.dumps(to_json(manifest), indent=2) + "\n", encoding="utf-8")


def parse_manifest(values: object) -> PolicyManifest:
    """Make a manifest from parsed JSON.

    Raises:
        ConfigError: Names the key.
    """
    if isinstance(values, dict) and values.get("format") != MANIFEST_FORMAT:
        raise ConfigError(
            f"format={values.get('format')!r} is not {MANIFEST_FORMAT}, the one this version reads"
        )
    return from_json(PolicyManifest, values)


def _check_source(key: str, source: object, manifest: PolicyManifest) -> None:
    if isinstance(source, tuple) and all(isinstance(name, str) for name in source):
        return
    if not isinstance(source, str):
        raise ConfigError(f"inputs.{key}={source!r} must be a source or a list of channels")
    if source in ("instruction", "state"):
        return
    camera = source.removeprefix("camera.")
    if camera == source or camera not in manifest.cameras:
        raise ConfigError(
            f"inputs.{key}={source!r} is none of instruction, state, a list of channels, "
            f"{', '.join('camera.' + name for name in manifest.cameras)}"
        )
