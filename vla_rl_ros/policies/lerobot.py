# SPDX-License-Identifier: Apache-2.0
"""A policy of LeRobot from a local directory, in this process.

The directory is what LeRobot saves (``config.json``, ``model.safetensors``, the two processors)
with a ``policy.json`` beside it. LeRobot normalises by its own processors, so the numbers of the
manifest's `action` are physical. Policies with a history of observations are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.errors import ConfigError, InferenceError, InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import STATE_CHANNELS, STATE_DIM
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.action_codec import ActionCodec
from vla_rl_ros.policies.lerobot_directory import (
    TASK,
    check_features,
    check_shapes,
    check_weights,
    conditionings_of,
    load,
)
from vla_rl_ros.policies.manifest import PolicyManifest, read_manifest
from vla_rl_ros.policies.model_inputs import InputValue, ModelInputs
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings

if TYPE_CHECKING:
    from torch import Tensor

_ACTION = "action"
_BLANK_PX = 64


class LerobotPolicy:
    """Asks a `PreTrainedPolicy` for chunks."""

    def __init__(
        self,
        manifest: PolicyManifest,
        model: Any,  # noqa: ANN401 - lerobot is optional and untyped
        processors: tuple[Callable[[Any], Any], Callable[[Any], Any]],
        seed: int,
    ) -> None:
        """Check by one inference that model, processors and manifest belong together.

        Args:
            manifest: What its numbers mean.
            model: LeRobot's policy, on its device.
            processors: LeRobot's pre- and postprocessor.
            seed: Of the noise; policies with the same seed answer alike.

        Raises:
            ConfigError: They do not; names the field.
        """
        self._manifest, self._model, self._seed = manifest, model, seed
        self._preprocess, self._postprocess = processors
        self._inputs, self._codec = ModelInputs(manifest), ActionCodec(manifest.action)
        check_features(manifest, model.config)
        self._conditionings = conditionings_of(manifest, model.config)
        self._num_asked = 0
        self._horizon = manifest.horizon
        self._horizon = self._warm_up()

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras it looks at."""
        return self._manifest.cameras

    @property
    def needs_objects(self) -> bool:
        """It sees what a robot sees."""
        return False

    @property
    def anchor(self) -> Anchor:
        """As its action codec says."""
        return self._codec.anchor

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """Guidance where LeRobot's real-time chunking is enabled in ``config.json``."""
        return self._conditionings

    @property
    def max_locked(self) -> int:
        """Guidance has no limit of its own."""
        return self._horizon if Conditioning.GUIDE in self._conditionings else 0

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Predict a chunk.

        Raises:
            InvalidCommandError: The observation lacks something or is malformed.
            InferenceError: The model failed or answers what is no chunk.
        """
        self._codec.check(observation)
        rows = self._rows(observation, prefix)[: self._horizon]
        try:
            return self._codec.decode(rows, observation, prefix)
        except InvalidCommandError as error:
            raise InferenceError(f"the policy's actions are unusable: {error}") from error

    def reset(self) -> None:
        """Clear LeRobot's queues; the noise goes on, or all episodes would begin alike."""
        self._model.reset()

    def _rows(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Physical rows of the model, shape (rows, dim)."""
        import torch

        batch = {key: _tensor(value) for key, value in self._inputs.read(observation).items()}
        batch.setdefault(TASK, observation.instruction)
        is_guided = (
            prefix is not None
            and prefix.conditioning is Conditioning.GUIDE
            and Conditioning.GUIDE in self._conditionings
        )
        if prefix is not None and is_guided:
            promised = self._codec.encode(prefix.actions[: self._horizon], observation)
            batch[_ACTION] = torch.from_numpy(promised.astype(np.float32))
        try:
            # The model's own noise, and everybody else's left as it was.
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(self._seed + self._num_asked)
                self._num_asked += 1
                answer = self._predict(batch, prefix if is_guided else None)
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InferenceError(f"the policy failed: {type(error).__name__}: {error}") from error
        rows = answer.detach().to("cpu", torch.float64).numpy()
        if rows.ndim != 2 or rows.shape[1] != self._codec.dim or len(rows) < self._horizon:
            raise InferenceError(
                f"the policy's actions have shape {rows.shape}; policy.json says rows of "
                f"{self._codec.dim}, at least {max(self._horizon, 1)}"
            )
        return rows

    def _predict(self, batch: dict[str, Any], prefix: Prefix | None) -> Tensor:
        batch = self._preprocess(batch)
        # Promised actions went through the processor to be normalised like those of training.
        promised = batch.pop(_ACTION, None)
        options: dict[str, Any] = {}
        if prefix is not None:
            options = {
                "inference_delay": prefix.num_locked,
                "prev_chunk_left_over": promised,
                "execution_horizon": len(promised),
            }
        chunk = self._model.predict_action_chunk(batch, **options)
        answer: Tensor = self._postprocess(chunk[0])
        return answer

    def _warm_up(self) -> int:
        """Ask with blank inputs and return the number of rows of the answer."""
        state = np.zeros(STATE_DIM)
        state[STATE_CHANNELS.index("tcp.qw")] = 1.0
        blank = PolicyObservation(
            stamp_ns=0,
            images={name: self._blank_image(name) for name in self._manifest.cameras},
            state=state,
            instruction="",
            task="",
            joint_rad=np.zeros(7),
        )
        try:
            check_shapes(self._inputs.read(blank), self._model.config)
            rows = self._rows(blank, None)
        except (InferenceError, InvalidCommandError) as error:
            raise ConfigError(f"{error} (on a blank observation, when it was made)") from error
        self.reset()
        return self._horizon or len(rows)

    def _blank_image(self, camera: str) -> np.ndarray:
        side = self._manifest.image_px or _BLANK_PX
        height, width = side, side
        for key, source in self._manifest.inputs.items():
            if source == f"camera.{camera}" and not self._manifest.image_px:
                _, height, width = self._model.config.input_features[key].shape
        return np.zeros((height, width, 3), dtype=np.uint8)


def make(settings: PolicySettings, environment: PolicyEnvironment) -> LerobotPolicy:
    """Entry point of the back end.

    Raises:
        ConfigError: LeRobot is missing, or the directory does not fit the cell.
    """
    directory = Path(settings.path)
    if not settings.path or not directory.is_dir():
        raise ConfigError(f"path='{settings.path}' is no directory saved by LeRobot")
    manifest = read_manifest(directory)
    manifest.check_fits("lerobot", environment)
    check_weights(directory)
    try:
        model, processors = load(directory, settings)
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"policy='lerobot' needs LeRobot: pip install lerobot (missing: {error.name})"
        ) from error
    except Exception as error:
        # LeRobot's parsers and models raise whatever the libraries below them raise.
        raise ConfigError(
            f"path='{directory}' cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return LerobotPolicy(manifest, model, processors, settings.seed)


def _tensor(value: InputValue) -> Any:  # noqa: ANN401 - a tensor or a text
    """As LeRobot's own robots hand it over: images (1, 3, h, w) in [0, 1], vectors (1, n)."""
    import torch

    if isinstance(value, str):
        return value
    if value.dtype == np.uint8:
        channels_first = np.ascontiguousarray(value.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(channels_first / np.float32(255.0))[None]
    return torch.from_numpy(value.astype(np.float32))[None]
