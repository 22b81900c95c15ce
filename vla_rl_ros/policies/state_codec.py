# SPDX-License-Identifier: Apache-2.0
"""From an observation to the state vector a model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import STATE_CHANNELS, STATE_DIM
from vla_rl_ros.core.types import FloatArray, Pose, finite_array
from vla_rl_ros.policies.protocol import PolicyObservation

GRIPPER_MAX_WIDTH_M = 0.08
"""Opening of the Franka hand at which ``gripper.open`` is 1."""


def _rotation(state: FloatArray) -> Rotation:
    return Rotation.from_quat(Pose(state[:3], state[3:7]).quat_xyzw)


def _r6d(state: FloatArray) -> FloatArray:
    matrix = _rotation(state).as_matrix()
    return np.concatenate([matrix[:, 0], matrix[:, 1]])


def _rotvec(state: FloatArray) -> FloatArray:
    return np.asarray(_rotation(state).as_rotvec())


def _gripper(state: FloatArray) -> FloatArray:
    width_m = state[-1]
    is_open = np.clip(width_m / GRIPPER_MAX_WIDTH_M, 0.0, 1.0)
    return np.array([is_open, 1.0 - is_open, 0.5 * width_m, -0.5 * width_m])


_JOINTS = tuple(f"joint.q{i}_rad" for i in range(1, 8))
_DERIVED: tuple[tuple[tuple[str, ...], Callable[[FloatArray], FloatArray]], ...] = (
    (tuple(f"tcp.r6d_{i}" for i in range(6)), _r6d),
    (("tcp.rx_rad", "tcp.ry_rad", "tcp.rz_rad"), _rotvec),
    (("gripper.open", "gripper.closed", "gripper.left_m", "gripper.right_m"), _gripper),
)
KNOWN_CHANNELS = (*STATE_CHANNELS, *(name for names, _ in _DERIVED for name in names), *_JOINTS)
"""Channels of `core.spec.STATE_CHANNELS`, what follows from them, and the joint angles."""


class StateCodec:
    """Selects channels and normalises them: (value - mean) / std."""

    def __init__(
        self,
        channels: Sequence[str],
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        """Fix the layout.

        Args:
            channels: Names out of `KNOWN_CHANNELS` in the model's order. ``tcp.r6d_0..5`` are
                the first two columns of the rotation matrix, column by column;
                ``tcp.rx_rad..`` the rotation vector; ``gripper.left_m`` and ``gripper.right_m``
                the positions of the fingers, the right one negative.
            mean: One number per channel; empty for zeros.
            std: One number per channel; empty for ones.

        Raises:
            ConfigError: Unknown channel, or numbers that do not fit.
        """
        unknown = [name for name in channels if name not in KNOWN_CHANNELS]
        if unknown:
            raise ConfigError(
                f"state.channels: '{unknown[0]}' is unknown; known: {', '.join(KNOWN_CHANNELS)}"
            )
        self._index = np.array([KNOWN_CHANNELS.index(name) for name in channels], dtype=np.intp)
        self._mean = _numbers(mean, 0.0, len(channels), "mean")
        self._std = _numbers(std, 1.0, len(channels), "std")
        if not (self._std > 0.0).all():
            raise ConfigError(f"state.std={self._std.tolist()} must be positive")
        self._needs = {
            start
            for start, names in enumerate(names for names, _ in _DERIVED)
            if set(names) & set(channels)
        }
        self.needs_joints = bool(set(_JOINTS) & set(channels))

    @property
    def dim(self) -> int:
        """Length of the encoded vector."""
        return len(self._index)

    def encode(self, observation: PolicyObservation) -> FloatArray:
        """Select and normalise.

        Returns:
            Shape (dim,).

        Raises:
            InvalidCommandError: State of wrong length, not finite or without a rotation, or
                joint angles are wanted and missing.
        """
        state = finite_array(observation.state, (STATE_DIM,), "state")
        parts = [state]
        for number, (names, derive) in enumerate(_DERIVED):
            parts.append(derive(state) if number in self._needs else np.zeros(len(names)))
        parts.append(self._joints(observation))
        return (np.concatenate(parts)[self._index] - self._mean) / self._std

    def _joints(self, observation: PolicyObservation) -> FloatArray:
        if not self.needs_joints:
            return np.zeros(len(_JOINTS))
        if observation.joint_rad is None:
            raise InvalidCommandError("missing_joints", "the policy reads joint angles")
        return finite_array(observation.joint_rad, (len(_JOINTS),), "joint_rad")


def _numbers(given: Sequence[float], neutral: float, dim: int, name: str) -> FloatArray:
    numbers = np.array(given if len(given) else [neutral] * dim, dtype=np.float64)
    if numbers.shape != (dim,) or not np.isfinite(numbers).all():
        raise ConfigError(f"state.{name} needs {dim} finite numbers, one per channel")
    return numbers
