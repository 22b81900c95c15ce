# SPDX-License-Identifier: Apache-2.0
"""A `ChunkPolicy` around any way of running a PI0. Made by the `pi0` and `onnx` back ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.manifest import PolicyManifest
from vla_rl_ros.policies.pi0.noise import TickNoise
from vla_rl_ros.policies.pi0.translation import (
    Float32Array,
    ModelInputs,
    ModelShape,
    Plan,
    Translation,
)
from vla_rl_ros.policies.protocol import PolicyObservation


class Sampler(Protocol):
    """Runs the network."""

    @property
    def shape(self) -> ModelShape:
        """Sizes of inputs and outputs."""

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """What it can do with a plan."""

    @property
    def features(self) -> Float32Array:
        """Of the images of the last call, (F,); F is 0 where it offers none."""

    @property
    def tower_hash(self) -> str:
        """Of what made the features; empty where there are none."""

    def __call__(
        self, inputs: ModelInputs, noise: Float32Array, plan: Plan | None
    ) -> Float32Array:
        """Turn noise into normalised actions, both (samples, H, action_dim)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Answers to one observation and what they came from.

    Attributes:
        actions: SI, (samples, H, 7).
        noise: Where the denoising began, (samples, H, action_dim); the same noise, observation
            and prefix give the same actions.
    """

    actions: FloatArray
    noise: Float32Array


class CheckpointPolicy:
    """A PI0 with its manifest, codecs and a stream of noise."""

    def __init__(
        self, manifest: PolicyManifest, translation: Translation, sampler: Sampler, seed: int
    ) -> None:
        """Put the parts together and run each kind of inference once, so that the first is fast.

        Args:
            manifest: What the weights were trained for.
            translation: Of this checkpoint.
            sampler: Runs its network.
            seed: Of the noise; policies with the same seed answer alike.
        """
        self._manifest = manifest
        self._translation = translation
        self._sampler = sampler
        self._noise = self._noise_of(seed)
        self._warm_up()
        self._features = np.zeros_like(sampler.features)

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._sampler.shape.horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras in the order of training."""
        return self._manifest.cameras

    @property
    def needs_objects(self) -> bool:
        """It sees images."""
        return False

    @property
    def anchor(self) -> Anchor:
        """As its action codec says."""
        return self._translation.anchor

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """What the network can do with a prefix."""
        return self._sampler.conditionings

    @property
    def max_locked(self) -> int:
        """What it was trained for; without such training nothing distinguishes a length."""
        return self._manifest.prefix.max_locked or self.horizon

    @property
    def feature_dim(self) -> int:
        """Width of the image features; 0 for a file that was exported without them."""
        return len(self._features)

    @property
    def tower_hash(self) -> str:
        """Of the vision tower and the reduction."""
        return self._sampler.tower_hash

    def features(self) -> Float32Array:
        """Features of the images of the last answer, (F,)."""
        return self._features

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Predict a chunk from the noise of its ticks, see `noise`.

        Raises:
            InvalidCommandError: The observation lacks something, or the answer is not finite.
        """
        noise = self._noise.rows(observation.stamp_ns)[None]
        chunk: FloatArray = self.sample(observation, prefix, noise=noise).actions[0]
        return chunk

    def sample(
        self,
        observation: PolicyObservation,
        prefix: Prefix | None = None,
        *,
        noise: Float32Array | None = None,
        num_samples: int = 1,
    ) -> Sample:
        """Predict chunks from given or fresh noise; images are encoded once for all of them.

        Args:
            observation: What is seen.
            prefix: What is promised.
            noise: (samples, H, action_dim); None draws it.
            num_samples: How many to draw.

        Raises:
            InvalidCommandError: The observation lacks something, noise of a wrong shape, a
                conditioning the network does not know, or an answer that is not finite.
        """
        shape = self._sampler.shape
        if noise is None:
            noise = self._noise.draw(num_samples)
        elif noise.shape[1:] != (shape.horizon, shape.action_dim):
            raise InvalidCommandError(
                "wrong_length",
                f"noise {noise.shape}, not (samples, {shape.horizon}, {shape.action_dim})",
            )
        plan = self._translation.plan(observation, prefix)
        if plan is not None and plan.conditioning not in self.conditionings:
            raise InvalidCommandError(
                "conditioning", f"'{plan.conditioning.value}' is not offered"
            )
        rows = self._sampler(self._translation.inputs(observation), noise, plan)
        self._features = self._sampler.features
        return Sample(actions=self._translation.actions(rows, observation, prefix), noise=noise)

    def reset(self) -> None:
        """Forget the noise of the ticks."""
        self._noise.forget()

    def reseed(self, seed: int) -> None:
        """Begin the noise of a seed, so that an episode can be played again."""
        self._noise = self._noise_of(seed)

    def _noise_of(self, seed: int) -> TickNoise:
        shape = self._sampler.shape
        return TickNoise(seed, self._manifest.control_period_s, shape.horizon, shape.action_dim)

    def _warm_up(self) -> None:
        shape, inputs = self._sampler.shape, self._translation.blank_inputs()
        noise = np.zeros((1, shape.horizon, shape.action_dim), dtype=np.float32)
        for conditioning in self._sampler.conditionings:
            plan = self._translation.blank_plan(conditioning, 1, shape.horizon // 2)
            self._sampler(inputs, noise, None if conditioning is Conditioning.NONE else plan)
