# SPDX-License-Identifier: Apache-2.0
"""Acting with learned weights, in numpy alone: what runs at every control tick.

Used by the learner itself, by the training loops and by the `residual_actor` node, so all of them
act alike to the last bit, and the actor's process needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError

Float32Array: TypeAlias = npt.NDArray[np.float32]
AnyFloatArray: TypeAlias = npt.NDArray[np.floating]
Weights: TypeAlias = dict[str, Float32Array]
"""Arrays by name: ``actor.*`` and ``grasp.*`` (views of their layouts), ``obs_mean``,
``obs_scale``, ``xi_parts`` (older ones lack it), and scalars ``setting.*``; all float32, so any
tensor file format holds them."""

GRASP_TOLERANCE = 0.25
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Grasp(IntEnum):
    """Choices of the grasp critic; outputs of its network in this order."""

    CLOSE = 0
    KEEP = 1
    OPEN = 2


def execute(base: AnyFloatArray, residual: AnyFloatArray) -> AnyFloatArray:
    """Executed action ``clip(base + residual, -1, 1)``, normalised, shape (..., A).

    Where the residual is zero the base stays as it is, bit for bit.
    """
    composed = np.clip(base + residual, -1.0, 1.0)
    return np.where(residual == 0.0, base, composed.astype(base.dtype))


def may_choose(base_gripper: float) -> tuple[bool, bool, bool]:
    """Which grasp choices differ from what the base does anyway, by `Grasp`."""
    return (base_gripper > -1.0 + GRASP_TOLERANCE, True, base_gripper < 1.0 - GRASP_TOLERANCE)


class ResidualActor:
    """Bounded residual policy from weights.

    Attributes:
        action_dim: Channels of an action, A.
        obs_dim: Width of an observation, O.
        xi: Bound of the residual.
        bound: Of every channel, the gripper's included, shape (A,), float32.
    """

    def __init__(self, weights: Mapping[str, Float32Array]) -> None:
        """Take a set of weights.

        Raises:
            ConfigError: They are incomplete or do not fit each other.
        """
        try:
            self._load(weights)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ConfigError(f"these weights are not of a residual actor: {error}") from error

    def _load(self, weights: Mapping[str, Float32Array]) -> None:
        def setting(name: str) -> float:
            return float(weights[f"setting.{name}"])

        self.xi = setting("xi")
        self._is_sac = bool(setting("is_sac"))
        self._is_from_scratch = bool(setting("from_scratch"))
        self._noise_std = np.float32(setting("exploration_std"))
        self._noise_clip = np.float32(setting("noise_clip"))
        self._grasp_margin = setting("grasp_margin")
        self._grasp_exploration = setting("grasp_exploration")
        self._mean = np.array(weights["obs_mean"], dtype=np.float32)
        self._scale = np.array(weights["obs_scale"], dtype=np.float32)
        self._actor = _dense_layers(weights, "actor")
        self._grasp = _critic_layers(weights, "grasp") if "grasp.weight_out" in weights else None
        self.obs_dim = len(self._mean)
        self.action_dim = len(self._actor[0][0]) - self.obs_dim
        num_outputs = len(self._actor[-1][1]) // (2 if self._is_sac else 1)
        parts = np.array(weights.get("xi_parts", np.ones(num_outputs)), dtype=np.float32)
        if parts.shape != (num_outputs,):
            raise ValueError(f"{parts.shape} of xi_parts for {num_outputs} outputs")
        self.bound: Float32Array = np.full(self.action_dim, self.xi, dtype=np.float32)
        self.bound[:num_outputs] *= parts
        if self._scale.shape != self._mean.shape:
            raise ValueError("obs_mean and obs_scale differ in length")
        if num_outputs != self.action_dim - (self._grasp is not None):
            raise ValueError(f"{num_outputs} outputs for {self.action_dim} action channels")

    @property
    def has_grasp(self) -> bool:
        """Whether the last channel is chosen by a grasp critic, which xi does not bound."""
        return self._grasp is not None

    def act(
        self,
        obs: AnyFloatArray,
        base: AnyFloatArray,
        *,
        rng: np.random.Generator | None = None,
    ) -> Float32Array:
        """Residual of one tick, normalised, shape (A,).

        Args:
            obs: Observation, shape (O,).
            base: What the base wants, shape (A,).
            rng: Source of exploration noise; None for the deterministic policy.

        Returns:
            Within +-bound in continuous channels; `execute` makes the action of it.
        """
        base32 = np.asarray(base, dtype=np.float32)
        seen_base = np.zeros_like(base32) if self._is_from_scratch else base32
        scaled = (np.asarray(obs, dtype=np.float32) - self._mean) * self._scale
        inputs = np.concatenate([scaled, seen_base])
        residual = np.zeros(self.action_dim, dtype=np.float32)
        moved = self._continuous(inputs, rng)
        residual[: len(moved)] = moved
        if self._grasp is not None:
            choice = self._choose(inputs, float(seen_base[-1]), rng)
            if choice is not Grasp.KEEP:
                residual[-1] = (1.0 if choice is Grasp.OPEN else -1.0) - seen_base[-1]
        if self._is_from_scratch:
            residual -= base32
        return residual

    def _continuous(self, inputs: Float32Array, rng: np.random.Generator | None) -> Float32Array:
        hidden = inputs
        for weight, bias in self._actor[:-1]:
            hidden = np.maximum(hidden @ weight + bias, 0.0)
        head = hidden @ self._actor[-1][0] + self._actor[-1][1]
        xi = self.bound[: self.action_dim - self.has_grasp]
        if self._is_sac:
            mean, log_std = np.split(head, 2)
            if rng is not None:
                std = np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
                mean = mean + std * rng.standard_normal(len(mean), dtype=np.float32)
            bounded: Float32Array = xi * np.tanh(mean)
            return bounded
        residual: Float32Array = xi * np.tanh(head)
        if rng is not None:
            noise = self._noise_std * rng.standard_normal(len(head), dtype=np.float32)
            noise = np.clip(noise, -self._noise_clip, self._noise_clip)
            residual = np.clip(residual + noise, -xi, xi)
        return residual

    def _choose(
        self, inputs: Float32Array, base_gripper: float, rng: np.random.Generator | None
    ) -> Grasp:
        allowed = may_choose(base_gripper)
        if rng is not None and rng.random() < self._grasp_exploration:
            return Grasp(int(rng.choice(np.flatnonzero(allowed))))
        values = self._grasp_values(inputs)
        values = np.where(allowed, values, -np.inf)
        best = Grasp.OPEN if values[Grasp.OPEN] > values[Grasp.CLOSE] else Grasp.CLOSE
        gains = values[best] > values[Grasp.KEEP] + self._grasp_margin
        return best if gains else Grasp.KEEP

    def _grasp_values(self, inputs: Float32Array) -> Float32Array:
        assert self._grasp is not None
        hidden = inputs
        for weight, bias, scale, shift in self._grasp[0]:
            hidden = hidden @ weight + bias
            hidden = hidden - hidden.mean()
            hidden = hidden / np.sqrt(np.square(hidden).mean() + np.float32(1e-5))
            hidden = np.maximum(hidden * scale + shift, 0.0)
        weight, bias = self._grasp[1]
        values: Float32Array = hidden @ weight + bias
        return values


def _dense_layers(
    weights: Mapping[str, Float32Array], prefix: str
) -> list[tuple[Float32Array, Float32Array]]:
    num_hidden = sum(name.startswith(f"{prefix}.weight_") for name in weights) - 1
    return [
        (
            np.array(weights[f"{prefix}.weight_{layer}"], dtype=np.float32),
            np.array(weights[f"{prefix}.bias_{layer}"], dtype=np.float32),
        )
        for layer in (*range(num_hidden), "out")
    ]


def _critic_layers(
    weights: Mapping[str, Float32Array], prefix: str
) -> tuple[
    list[tuple[Float32Array, Float32Array, Float32Array, Float32Array]],
    tuple[Float32Array, Float32Array],
]:
    """Hidden layers and end of the only critic of an ensemble of one."""

    def array(name: str) -> Float32Array:
        return np.array(weights[f"{prefix}.{name}"][0], dtype=np.float32)

    num_hidden = sum(name.startswith(f"{prefix}.weight_") for name in weights) - 1
    hidden = [
        (
            array(f"weight_{i}"), array(f"bias_{i}")[0],
            array(f"scale_{i}")[0], array(f"shift_{i}")[0],
        )
        for i in range(num_hidden)
    ]  # fmt: skip
    return hidden, (array("weight_out"), array("bias_out")[0])
