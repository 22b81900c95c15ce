# SPDX-License-Identifier: Apache-2.0
"""What a learner is fed: a batch of transitions as a dictionary of float32 arrays.

`replay` and `rows` make batches, `learner` reads them. A batch may hold numpy arrays or torch
tensors, contiguous or columns of one packed array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reward import GRASP_TERM

BatchArray: TypeAlias = npt.NDArray[np.float32] | Tensor
Batch: TypeAlias = Mapping[str, BatchArray]
"""Transitions by key; B rows each, float32. All actions are normalised to [-1, 1].

obs          (B, O)  observation at tick t; image features are part of it
base         (B, A)  what the frozen base wanted at t
action       (B, A)  what was *executed* at t, whoever chose it
reward       (B,)    n-step sum ``r_t + gamma r_{t+1} + ... + gamma^{n-1} r_{t+n-1}``
discount     (B,)    ``gamma^n (1 - terminated)``; truncation bootstraps, success does not
next_obs     (B, O)  observation at t + n
next_base    (B, A)  what the base wants at t + n
mc_return    (B,)    discounted sum of rewards from t to the end of the episode
is_demo      (B,)    1 where a demonstration or a human acted, else 0
grasp_penalty (B,)   only for a learner with a grasp critic: n-step sum, discounted as `reward`, of
                     the (negative) penalties of gripper toggles
"""

VECTOR_KEYS = ("obs", "base", "action", "next_obs", "next_base")
SCALAR_KEYS = ("reward", "discount", "mc_return", "is_demo")
BATCH_KEYS = (*VECTOR_KEYS, *SCALAR_KEYS)
GRASP_KEY = GRASP_TERM


def batch_shapes(obs_dim: int, action_dim: int) -> dict[str, tuple[int, ...]]:
    """Shape of one row of each required key."""
    width = {"obs": obs_dim, "next_obs": obs_dim}
    vectors = {key: (width.get(key, action_dim),) for key in VECTOR_KEYS}
    return {**vectors, **dict.fromkeys(SCALAR_KEYS, ())}


def as_tensors(batch: Batch, keys: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    """Return the given keys as float32 tensors; uncopied where writable.

    Raises:
        ConfigError: A key is missing.
    """
    missing = [key for key in keys if key not in batch]
    if missing:
        raise ConfigError(f"the batch lacks {', '.join(missing)}")
    return {key: _as_tensor(batch[key], device) for key in keys}


def _as_tensor(values: BatchArray, device: torch.device) -> Tensor:
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        # Torch warns about views of read-only memory, e.g. of a mapped file.
        values = values.copy()
    return torch.as_tensor(values, dtype=torch.float32, device=device)


def check_shapes(batch: Mapping[str, Tensor], obs_dim: int, action_dim: int) -> None:
    """Refuse a batch whose arrays do not fit each other or the learner.

    Raises:
        ConfigError: Names the key, its shape and the expected one.
    """
    num_rows = len(batch["obs"])
    for key, row_shape in batch_shapes(obs_dim, action_dim).items():
        if key in batch and tuple(batch[key].shape) != (num_rows, *row_shape):
            raise ConfigError(
                f"batch['{key}'] has shape {tuple(batch[key].shape)}, "
                f"expected {(num_rows, *row_shape)}"
            )
