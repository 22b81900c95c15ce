# SPDX-License-Identifier: Apache-2.0
"""Observations and actions of gymnasium as vectors; called by `gym_door`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.rows import Float32Array

Features = Callable[[Any], npt.ArrayLike]


class Flattener:
    """Vector of an observation: its numbers in the order of its keys, then image features."""

    def __init__(
        self,
        space: Any,  # noqa: ANN401 - gymnasium's
        features: Features | None,
        *,
        ignores_images: bool = False,
    ) -> None:
        """Look for what can be used.

        Args:
            space: A Box, or a Dict of them, nested or not.
            features: Turns an observation into a further vector; needed where there is an image.
            ignores_images: Whether numbers alone are wanted where there are images.

        Raises:
            ConfigError: Nothing usable, or images without `features`.
        """
        self._features = features
        boxes = _boxes(space)
        self._paths = [path for path, box in boxes if not _is_image(box)]
        if len(self._paths) < len(boxes) and features is None and not ignores_images:
            raise ConfigError(
                "the environment shows images: give --features MODULE:FACTORY, "
                "or --features none to learn from the numbers alone"
            )
        if not self._paths and features is None:
            raise ConfigError(
                f"{space} holds no vector of numbers: give --features MODULE:FACTORY"
            )

    def __call__(self, observation: Any) -> Float32Array:  # noqa: ANN401
        """Float32, shape (O,)."""
        parts = [np.asarray(_at(observation, path)).ravel() for path in self._paths]
        if self._features is not None:
            parts.append(np.asarray(self._features(observation)).ravel())
        vector: Float32Array = np.concatenate(parts).astype(np.float32)
        return vector


def _boxes(
    space: Any,  # noqa: ANN401
    path: tuple[str, ...] = (),
) -> list[tuple[tuple[str, ...], Any]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return [found for key in sorted(space) for found in _boxes(space[key], (*path, key))]
    return [(path, space)] if isinstance(space, spaces.Box) else []


def _is_image(space: Any) -> bool:  # noqa: ANN401
    return bool(space.dtype == np.uint8 and len(space.shape) >= 2)


def _at(observation: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401
    for key in path:
        observation = observation[key]
    return observation


class ActionRange:
    """Actions of an environment and their normalised form.

    Attributes:
        dim: Channels.
    """

    def __init__(self, space: Any) -> None:  # noqa: ANN401
        """Take the bounds of a space.

        Raises:
            ConfigError: Not a bounded Box with one axis.
        """
        from gymnasium import spaces

        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ConfigError(f"actions in {space}: a residual needs a bounded Box with one axis")
        self.dim = int(space.shape[0])
        self._dtype = space.dtype
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._centre, self._half = (low + high) / 2.0, (high - low) / 2.0
        if (self._half <= 0.0).any():
            raise ConfigError(f"actions in {space}: a channel has no range")

    def checked(self, action: npt.ArrayLike) -> npt.NDArray[Any]:
        """The action of a base as an array, untouched.

        Raises:
            ConfigError: Another shape, or not finite.
        """
        array = np.asarray(action)
        if array.shape != (self.dim,) or not np.isfinite(array).all():
            raise ConfigError(f"the base policy returned {array!r}, not {self.dim} finite numbers")
        return array

    def normalise(self, action: npt.NDArray[Any]) -> Float32Array:
        """To [-1, 1]; what lies outside the bounds is clipped."""
        scaled = (action.astype(np.float64) - self._centre) / self._half
        result: Float32Array = np.clip(scaled, -1.0, 1.0).astype(np.float32)
        return result

    def to_env(
        self, executed: Float32Array, base: Float32Array, raw_base: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """What the environment gets; channels equal to the base's are the base's own, bit for bit.

        Args:
            executed: Normalised, shape (A,).
            base: Normalised base action.
            raw_base: The base action before it was normalised.
        """
        scaled = self._centre + self._half * executed.astype(np.float64)
        if np.array_equal(executed, base):
            return raw_base
        mixed: npt.NDArray[Any] = np.where(executed == base, raw_base, scaled)
        return mixed.astype(self._dtype)
