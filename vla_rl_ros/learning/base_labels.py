# SPDX-License-Identifier: Apache-2.0
"""From ticks of demonstrations to training samples: chunks, locked prefixes, masks, scales.

Called by `base_training`. A sample starts at any tick t with a delay d. Rows before d are what was
executed, noise and pushes included, and serve as a clean prefix. Row i >= d is the expert's label
at tick t + i; it is masked from the first tick after d that was pushed, because nothing in the
sample foretells a push, and after the end of the episode.

First ticks are drawn far more often than there are of them. Two ticks later the closing fingers
show what the task is, so they alone teach what the words mean. Some of them get a prefix of
holding still, which is how an episode begins while the first inference runs: an arm at rest stays
where it is, so the expert's labels follow the held rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.base_data import TASK_ORDER, DemoSet

MAX_DELAY_TICKS = 8
STATE_CHANNELS = (
    "tcp.x_m",
    "tcp.y_m",
    "tcp.z_m",
    *(f"tcp.r6d_{i}" for i in range(6)),
    "gripper.width_m",
)
"""Proprioception of pi0-nano, names of `policies.state_codec`."""
_NO_DELAY_PART = 0.15
_DELAY_RATIO = 0.7
START_PART = 0.25
_NO_DELAY_AT_START_PART = 0.5
_HOLD_AT_START_PART = 0.25
_HALF_OPEN_M = 0.04
_STATE_STD_FLOOR = np.array([0.02] * 3 + [0.05] * 6 + [0.01])
_ACTION_STD_FLOOR = 0.1


def delay_weights() -> FloatArray:
    """Probabilities of d = 0..8: one tick, that of a fast policy, is the most frequent."""
    longer = _DELAY_RATIO ** np.arange(MAX_DELAY_TICKS)
    return np.append(_NO_DELAY_PART, (1.0 - _NO_DELAY_PART) * longer / longer.sum())


def proprioception(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """`STATE_CHANNELS` of states of shape (N, 20), shape (N, 10)."""
    x, y, z, w = states[:, 3:7].T
    first = (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + z * w), 2.0 * (x * z - y * w))
    second = (2.0 * (x * y - z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + x * w))
    rotation = np.stack([*first, *second], axis=1)
    return np.concatenate([states[:, :3], rotation, states[:, -1:]], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scales:
    """Normalisation of states and actions: (value - mean) / std."""

    state_mean: FloatArray
    state_std: FloatArray
    action_mean: FloatArray
    action_std: FloatArray


def measure_scales(demos: DemoSet) -> Scales:
    """Mean and deviation per channel, with a floor for what hardly varies."""
    states, labels = proprioception(demos.states), demos.labels
    spec = ActionSpec()
    full = np.array([spec.translation_m] * 3 + [spec.rotation_rad] * 3 + [0.5])
    return Scales(
        state_mean=states.mean(0, dtype=np.float64),
        state_std=np.maximum(states.std(0, dtype=np.float64), _STATE_STD_FLOOR),
        action_mean=labels.mean(0, dtype=np.float64),
        action_std=np.maximum(labels.std(0, dtype=np.float64), _ACTION_STD_FLOOR * full),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """A batch, normalised, everything float32 but images and tasks.

    Attributes:
        images: Shape (B, 2, 64, 64, 3), uint8.
        states: Shape (B, 10).
        actions: Prefix rows as executed, then labels, shape (B, H, 7).
        masks: Whether a row's label counts, shape (B, H).
        delays: Number of prefix rows, shape (B,).
        tasks: Index into `TASK_ORDER`, shape (B,).
        targets_m: Object of the instruction minus TCP, shape (B, 3).
    """

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    masks: NDArray[np.bool_]
    delays: NDArray[np.int64]
    tasks: NDArray[np.int64]
    targets_m: NDArray[np.float32]


class Sampler:
    """Draws samples of a data set, every task equally often."""

    def __init__(
        self, demos: DemoSet, scales: Scales, horizon: int, *, start_part: float = START_PART
    ) -> None:
        """Prepare a data set.

        Args:
            demos: Ticks.
            scales: Normalisation.
            horizon: Rows per chunk.
            start_part: Part of the samples that are first ticks; 0 where episodes do not begin at
                rest.
        """
        self._demos = demos
        self._start_part = start_part
        self._steps = np.arange(horizon)
        last = np.flatnonzero(np.append(np.diff(demos.episodes), 1))
        self._ends = last[np.searchsorted(last, np.arange(len(demos)))]
        self._states = _normalised(
            proprioception(demos.states), scales.state_mean, scales.state_std
        )
        self._labels = _normalised(demos.labels, scales.action_mean, scales.action_std)
        self._executed = _normalised(demos.executed, scales.action_mean, scales.action_std)
        holds = np.zeros_like(demos.labels)
        holds[:, GRIPPER_INDEX] = demos.states[:, -1] > _HALF_OPEN_M
        self._holds = _normalised(holds, scales.action_mean, scales.action_std)
        starts = np.append(1, np.diff(demos.episodes)) != 0
        tasks = [demos.tasks == i for i in range(len(TASK_ORDER)) if (demos.tasks == i).any()]
        self._ticks = [np.flatnonzero(is_task) for is_task in tasks]
        self._starts = [np.flatnonzero(is_task & starts) for is_task in tasks]

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """Draw `count` samples with random delays; equal states of `rng` give equal samples."""
        kinds = rng.integers(0, len(self._ticks), count)
        is_start = rng.random(count) < self._start_part
        pools = [
            (self._starts if start else self._ticks)[kind]
            for kind, start in zip(kinds, is_start, strict=True)
        ]
        chosen = rng.random(count)
        ticks = np.array([pool[int(c * len(pool))] for pool, c in zip(pools, chosen, strict=True)])
        weights = delay_weights()
        delays = rng.choice(len(weights), count, p=weights)
        way = rng.random(count)
        delays[is_start & (way < _NO_DELAY_AT_START_PART)] = 0
        is_held = is_start & (way > 1.0 - _HOLD_AT_START_PART)
        return self.at(ticks, delays, is_held)

    def at(
        self,
        ticks: NDArray[np.int64],
        delays: NDArray[np.int64],
        is_held: NDArray[np.bool_] | None = None,
    ) -> Samples:
        """The samples that start at these ticks with these delays.

        Args:
            ticks: Where they start, shape (B,).
            delays: Rows of the prefix, shape (B,).
            is_held: Whether the prefix is one of holding still, after which the episode goes on
                as it did; only for ticks at rest, shape (B,).
        """
        demos, steps = self._demos, self._steps
        held = np.zeros(len(ticks), dtype=bool) if is_held is None else is_held
        wanted = ticks[:, None] + np.maximum(steps - (held * delays)[:, None], 0)
        rows = np.minimum(wanted, self._ends[ticks][:, None])
        is_prefix = steps < delays[:, None]
        # A push at row j hides the labels after j, unless j is in the prefix and thus known.
        hides = demos.is_pushed[rows] & ~is_prefix
        is_hidden = np.cumsum(hides, axis=1) - hides > 0
        masks = (wanted <= self._ends[ticks][:, None]) & ~is_prefix & ~is_hidden
        done = np.where(held[:, None, None], self._holds[ticks][:, None], self._executed[rows])
        return Samples(
            images=demos.images[ticks],
            states=self._states[ticks],
            actions=np.where(is_prefix[..., None], done, self._labels[rows]),
            masks=masks,
            delays=delays,
            tasks=demos.tasks[ticks],
            targets_m=demos.targets_m[ticks],
        )


class MixedSampler:
    """Draws a fixed part of every batch from one data set and the rest from another."""

    def __init__(self, first: Sampler, second: Sampler, first_part: float) -> None:
        """Take two data sets.

        Args:
            first: For instance rollouts.
            second: For instance demonstrations.
            first_part: Part of the first, in [0, 1].
        """
        self._first, self._second, self._part = first, second, first_part

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """Draw `count` samples; equal states of `rng` give equal samples."""
        num_first = round(self._part * count)
        parts = [
            sampler.draw(number, rng)
            for sampler, number in ((self._first, num_first), (self._second, count - num_first))
            if number
        ]
        fields = ("images", "states", "actions", "masks", "delays", "tasks", "targets_m")
        return Samples(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields}
        )


def _normalised(
    values: NDArray[np.float32], mean: FloatArray, std: FloatArray
) -> NDArray[np.float32]:
    return ((values - mean) / std).astype(np.float32)


def paired_starts(demos: DemoSet) -> NDArray[np.int64]:
    """First ticks of paired clips, the same scene under two instructions, shape (n, 2)."""
    firsts = np.flatnonzero(np.append(1, np.diff(demos.episodes)))
    a, b = firsts[:-1], firsts[1:]
    lift, button = (TASK_ORDER.index(task) for task in TASK_ORDER[:2])
    is_same_place = (demos.states[a, :3] == demos.states[b, :3]).all(1)
    is_pair = is_same_place & (demos.tasks[a] == lift) & (demos.tasks[b] == button)
    return np.stack([a[is_pair], b[is_pair]], axis=1)
