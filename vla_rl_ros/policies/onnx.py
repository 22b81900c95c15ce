# SPDX-License-Identifier: Apache-2.0
"""The `onnx` back end: a PI0 exported by `vla-rl-ros export onnx`, without torch.

The file holds the whole inference; ``policy.json`` and ``tokenizer.json`` lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.policies.pi0.translation import (
    Float32Array,
    ModelInputs,
    ModelShape,
    Plan,
    Translation,
)

if TYPE_CHECKING:
    from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings

GRAPH_INPUTS = (
    "images",
    "tokens",
    "token_mask",
    "state",
    "noise",
    "prefix_actions",
    "num_locked",
)
GRAPH_OUTPUT, FEATURE_OUTPUT = "actions", "features"
STEPS_KEY = "vla_rl_ros.denoise_steps"
VOCABULARY_KEY = "vla_rl_ros.vocabulary_size"
TOWER_KEY = "vla_rl_ros.tower_hash"

_CPU, _CUDA, _TENSORRT = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
_PROVIDERS = {
    "auto": (_CUDA, _CPU),
    "cpu": (_CPU,),
    "cuda": (_CUDA, _CPU),
    "tensorrt": (_TENSORRT, _CUDA, _CPU),
}


class OnnxSampler:
    """Runs an exported PI0; guidance needs gradients, which an exported graph does not have.

    Attributes:
        features: Of the images of the last call, (F,); zeros before the first.
        tower_hash: Of what made them; empty for a file without features.
    """

    def __init__(self, file: Path, device: str, num_threads: int) -> None:
        """Load the graph.

        Args:
            file: Written by the exporter.
            device: ``auto`` (CUDA where it works, else CPU), ``cpu``, ``cuda`` or ``tensorrt``.
            num_threads: On a CPU.

        Raises:
            ConfigError: The file is damaged or not ours, or the device is not there.
        """
        self._session = _open_session(file, device, num_threads)
        sizes = {entry.name: entry.shape for entry in self._session.get_inputs()}
        notes = self._session.get_modelmeta().custom_metadata_map
        if set(sizes) != set(GRAPH_INPUTS) or not {STEPS_KEY, VOCABULARY_KEY} <= set(notes):
            raise ConfigError(
                f"{file} has inputs {', '.join(sizes)}: not made by this version's "
                "'vla-rl-ros export onnx'"
            )
        # Files of older versions have no features.
        self.tower_hash: str = notes.get(TOWER_KEY, "")
        outputs = {entry.name: entry.shape for entry in self._session.get_outputs()}
        self._outputs = [GRAPH_OUTPUT, *([FEATURE_OUTPUT] if self.tower_hash else [])]
        num_features = outputs[FEATURE_OUTPUT][0] if self.tower_hash else 0
        self.features: Float32Array = np.zeros(num_features, dtype=np.float32)
        self.num_steps = int(notes[STEPS_KEY])
        self.num_cameras = int(sizes["images"][1])
        self._num_tokens = int(sizes["tokens"][1])
        self._shape = ModelShape(
            horizon=sizes["noise"][1],
            action_dim=sizes["noise"][2],
            state_dim=sizes["state"][1],
            image_px=sizes["images"][-1],
            vocabulary_size=int(notes[VOCABULARY_KEY]),
        )

    @property
    def shape(self) -> ModelShape:
        """Sizes of inputs and outputs."""
        return self._shape

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """Locks only."""
        return frozenset({Conditioning.NONE, Conditioning.LOCK})

    def __call__(
        self, inputs: ModelInputs, noise: Float32Array, plan: Plan | None
    ) -> Float32Array:
        """Turn noise into normalised actions.

        Raises:
            InvalidCommandError: The instruction is longer than the graph was made for.
        """
        num_words = inputs.tokens.shape[1]
        if num_words > self._num_tokens:
            raise InvalidCommandError(
                "instruction",
                f"{num_words} tokens, the file was exported for {self._num_tokens}: export it "
                f"again with --max-tokens {num_words}",
            )
        tokens, mask = np.zeros((2, 1, self._num_tokens), dtype=np.int64)
        tokens[:, :num_words], mask[:, :num_words] = inputs.tokens, 1
        feed = {
            "images": inputs.pixels,
            "tokens": tokens,
            "token_mask": mask,
            "state": inputs.state,
            "prefix_actions": np.zeros_like(noise[:1]) if plan is None else plan.actions,
            "num_locked": np.array([0 if plan is None else plan.num_locked], dtype=np.int64),
        }
        answers = [
            self._session.run(self._outputs, {**feed, "noise": start[None]}) for start in noise
        ]
        if self.tower_hash:
            self.features = answers[-1][1]
        return np.concatenate([actions for actions, *_ in answers])


def make(settings: PolicySettings, environment: PolicyEnvironment) -> CheckpointPolicy:
    """Entry point of the back end.

    Raises:
        ConfigError: Files, settings or the cell do not fit; names field and fix.
    """
    file = Path(settings.path).expanduser()
    if file.is_dir() and len(found := sorted(file.glob("*.onnx"))) == 1:
        file = found[0]
    if not file.is_file():
        raise ConfigError(
            f"settings.path='{settings.path}' is not a file; 'vla-rl-ros export onnx' makes one"
        )
    manifest = read_manifest(file.parent)
    manifest.check_fits("onnx", environment)
    sampler = OnnxSampler(file, settings.device, settings.num_threads)
    if settings.denoise_steps not in (0, sampler.num_steps):
        raise ConfigError(
            f"settings.denoise_steps={settings.denoise_steps}: {file} was exported with "
            f"{sampler.num_steps}; use 0, or export it again with --denoise-steps"
        )
    if settings.dtype == "bfloat16":
        raise ConfigError(f"settings.dtype='bfloat16': {file} computes in float32; use auto")
    if sampler.num_cameras != len(manifest.cameras):
        raise ConfigError(
            f"policy.json: cameras has {len(manifest.cameras)} names, {file} takes "
            f"{sampler.num_cameras} images: the two files belong to different checkpoints"
        )
    translation = Translation(manifest, sampler.shape, file.parent)
    return CheckpointPolicy(manifest, translation, sampler, settings.seed)


def _open_session(file: Path, device: str, num_threads: int) -> Any:  # noqa: ANN401 - untyped
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"policy='onnx' needs the Python package '{error.name}': pip install onnxruntime, or "
            "onnxruntime-gpu for CUDA and TensorRT"
        ) from error

    offered = set(onnxruntime.get_available_providers())
    wanted = [name for name in _PROVIDERS[device] if name in offered]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # Threads that wait for the next operator must not take the core the control loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
    except Exception as error:
        raise ConfigError(f"{file} cannot be loaded: {error}") from error
    first = _PROVIDERS[device][0]
    if device != "auto" and first not in session.get_providers():
        raise ConfigError(
            f"settings.device='{device}': onnxruntime runs it on "
            f"{', '.join(session.get_providers())} only; install onnxruntime-gpu in place of "
            "onnxruntime and the CUDA libraries it asks for, or use auto"
        )
    return session
