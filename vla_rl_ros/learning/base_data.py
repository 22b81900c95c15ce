# SPDX-License-Identifier: Apache-2.0
"""What a base policy learns from: ticks of demonstrations, one after another."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.sim.tasks import Task

TASK_ORDER = (Task.LIFT, Task.BUTTON, Task.PEG)
TARGETS = {Task.LIFT: "cube", Task.BUTTON: "button", Task.PEG: "hole"}
"""The object an instruction is about."""
IMAGE_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemoSet:
    """Ticks of many episodes, one after another.

    Attributes:
        images: Wrist, front, shape (N, 2, 64, 64, 3), uint8.
        states: Channels of `core.spec.STATE_CHANNELS`, shape (N, 20).
        labels: What the expert would do, SI, shape (N, 7).
        executed: What was done, SI, shape (N, 7).
        targets_m: Object of the instruction minus TCP, base axes, shape (N, 3).
        tasks: Index into `TASK_ORDER`, shape (N,).
        is_pushed: Whether a burst disturbed what was executed, shape (N,).
        episodes: Number of the episode, rising, shape (N,).
    """

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    labels: NDArray[np.float32]
    executed: NDArray[np.float32]
    targets_m: NDArray[np.float32]
    tasks: NDArray[np.int64]
    is_pushed: NDArray[np.bool_]
    episodes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of ticks."""
        return len(self.tasks)

    def episodes_by_task(self) -> dict[str, int]:
        """How many episodes of each task there are, in the order of `TASK_ORDER`."""
        return {
            task.value: len(np.unique(self.episodes[self.tasks == number]))
            for number, task in enumerate(TASK_ORDER)
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def joined(parts: list[DemoSet]) -> DemoSet:
    """Concatenate, numbering episodes through."""
    offsets = np.cumsum([0, *(int(part.episodes[-1]) + 1 for part in parts[:-1])])
    numbered = [
        dataclasses.replace(part, episodes=part.episodes + offset)
        for part, offset in zip(parts, offsets, strict=True)
    ]
    names = [field.name for field in dataclasses.fields(DemoSet)]
    return DemoSet(
        **{name: np.concatenate([getattr(part, name) for part in numbered]) for name in names}
    )
