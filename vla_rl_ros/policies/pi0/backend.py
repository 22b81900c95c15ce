# SPDX-License-Identifier: Apache-2.0
"""The `pi0` back end on torch. Imported by `policies.pi0.make` only, because torch is heavy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.guidance import guidance_gain, prefix_weights
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.manifest import PolicyManifest, read_manifest
from vla_rl_ros.policies.pi0.denoise import Flow, Guide, Lock, denoise, denoise_guided
from vla_rl_ros.policies.pi0.graph import ChunkGraph, example_inputs, recorded
from vla_rl_ros.policies.pi0.loading import (
    choose_device,
    choose_dtype,
    is_clean_lock,
    load_model,
    model_shape,
)
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.policies.pi0.translation import (
    Float32Array,
    ModelInputs,
    ModelShape,
    Plan,
    Translation,
)
from vla_rl_ros.policies.pi0.vision import FEATURES_PER_CAMERA, tower_hash
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "pi0_nano"
"""What an empty path means."""


class TorchSampler:
    """Runs a PI0 on torch, with every conditioning.

    Attributes:
        graph: The network as one graph.
        features: Of the images of the last call, (F,); zeros before the first.
        tower_hash: Of what made them.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers' class is untyped
        *,
        num_cameras: int,
        num_steps: int,
        is_clean_lock: bool,
        is_jacobian: bool,
        guidance_limit: float,
        tower_hash: str,
    ) -> None:
        """Fix how to denoise.

        Args:
            model: A loaded `PI0ForConditionalGeneration`.
            num_cameras: Images per observation.
            num_steps: Euler steps.
            is_clean_lock: See `denoise.Lock`.
            is_jacobian: See `denoise.Guide`.
            guidance_limit: Largest guidance weight, beta in the paper.
            tower_hash: See `vision.tower_hash`.
        """
        self.tower_hash = tower_hash
        self.features: Float32Array = np.zeros(num_cameras * FEATURES_PER_CAMERA, np.float32)
        self._flow = Flow(model)
        self._shape = model_shape(model)
        self._num_steps = num_steps
        self._is_clean_lock = is_clean_lock
        self._is_jacobian = is_jacobian
        self._gain = partial(guidance_gain, beta=guidance_limit)
        self.graph = ChunkGraph(model, num_steps=num_steps, is_clean_lock=is_clean_lock)
        self._run: Callable[..., tuple[Tensor, Tensor]] = self.graph
        if self._flow.device.type == "cpu":
            self._run = recorded(self.graph, example_inputs(self._shape, num_cameras, 1))

    @property
    def shape(self) -> ModelShape:
        """Sizes of inputs and outputs."""
        return self._shape

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """All: weights without training for it are locked by inpainting."""
        return frozenset(Conditioning)

    def __call__(
        self, inputs: ModelInputs, noise: Float32Array, plan: Plan | None
    ) -> Float32Array:
        """Turn noise into normalised actions; `features` are those of the images from now on."""
        tokens, start = self._tensor(inputs.tokens), self._tensor(noise)
        observed = (
            self._tensor(inputs.pixels),
            tokens,
            torch.ones_like(tokens),
            self._tensor(inputs.state),
        )
        with torch.no_grad():
            if plan is not None and plan.conditioning is Conditioning.GUIDE:
                context = self._flow.observe(*observed)
                features = self.graph.reduce(context.seen)
                guide = self._guide(plan)
                actions = denoise_guided(self._flow, context, start, self._num_steps, guide)
            elif len(noise) > 1:
                context = self._flow.observe(*observed)
                features = self.graph.reduce(context.seen)
                lock = None if plan is None else self._lock(plan)
                actions = denoise(self._flow, context, start, self._num_steps, lock)
            else:
                promised = start if plan is None else self._tensor(plan.actions)
                num_locked = 0 if plan is None else plan.num_locked
                count = torch.tensor([num_locked], device=self._flow.device)
                actions, features = self._run(*observed, start, promised, count)
        self.features = features.cpu().numpy()
        answer: Float32Array = actions.cpu().numpy()
        return answer

    def _lock(self, plan: Plan) -> Lock:
        rows = torch.arange(self._shape.horizon, device=self._flow.device)
        return Lock(
            self._tensor(plan.actions), (rows < plan.num_locked)[None], self._is_clean_lock
        )

    def _guide(self, plan: Plan) -> Guide:
        horizon = self._shape.horizon
        weights = np.zeros((1, horizon, self._shape.action_dim), dtype=np.float32)
        # The plan is what the running chunk has left: H - s rows after s executed ones.
        soft = prefix_weights(horizon, plan.num_locked, horizon - plan.num_rows)
        weights[0, :, : plan.num_used] = soft[:, None]
        return Guide(
            self._tensor(plan.actions), self._tensor(weights), self._gain, self._is_jacobian
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self._flow.device)


def make_sampler(
    directory: Path, manifest: PolicyManifest, settings: PolicySettings | None = None
) -> TorchSampler:
    """Load the weights of a checkpoint.

    Args:
        directory: Holds ``config.json`` and the weights.
        manifest: Says how many steps, and what promises it was trained with.
        settings: Of the cell; None for exact arithmetic on a CPU.

    Raises:
        ConfigError: See `loading`.
    """
    if not manifest.cameras:
        raise ConfigError("policy.json: cameras is empty, a PI0 needs at least one")
    settings = settings or PolicySettings(device="cpu", dtype="float32")
    device = choose_device(settings.device)
    model = load_model(directory, device, choose_dtype(settings.dtype, device))
    return TorchSampler(
        model,
        num_cameras=len(manifest.cameras),
        num_steps=settings.denoise_steps or manifest.denoise_steps,
        is_clean_lock=is_clean_lock(model, manifest),
        is_jacobian=settings.guidance == "jacobian",
        guidance_limit=settings.guidance_limit,
        tower_hash=tower_hash(model, manifest),
    )


def make_policy(settings: PolicySettings, environment: PolicyEnvironment) -> CheckpointPolicy:
    """Load a checkpoint as a policy.

    Raises:
        ConfigError: Anything about it, the settings or the cell does not fit.
    """
    directory = Path(settings.path).expanduser() if settings.path else SHIPPED
    if not directory.is_dir():
        raise ConfigError(f"settings.path='{directory}' is not a directory with a checkpoint")
    manifest = read_manifest(directory)
    manifest.check_fits("pi0", environment)
    torch.set_num_threads(settings.num_threads)
    sampler = make_sampler(directory, manifest, settings)
    translation = Translation(manifest, sampler.shape, directory)
    return CheckpointPolicy(manifest, translation, sampler, settings.seed)
