# SPDX-License-Identifier: Apache-2.0
"""What trained eyes learn from: images, and how far the episode's end was from there.

Nobody has to label anything: where a successful episode ends, the task is done, so the way from
any earlier frame to that place is known in hindsight (cf. Hindsight Experience Replay, arXiv
1707.01495). Failed episodes say nothing. Called by `vla-rl-ros train eyes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_frames import EpisodeFrames
from vla_rl_ros.learning.base_episodes import Episode, begin_beside, solve
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.sim.variants import variant

Float32Array = NDArray[np.float32]
_BESIDE_PART = 0.35
_SEED = 20_262


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoalFrames:
    """Frames of successful episodes.

    Attributes:
        images: RGB by camera, shape (n, h, w, 3).
        ways_m: From the TCP to where it is at the end, base axes, shape (n, 3).
        episodes: Number of each frame's episode, shape (n,).
    """

    images: Mapping[str, NDArray[np.uint8]]
    ways_m: Float32Array
    episodes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.ways_m)

    @property
    def digest(self) -> str:
        """What tells these frames from others."""
        found = hashlib.sha256(self.ways_m.tobytes() + self.episodes.tobytes())
        for name in sorted(self.images):
            found.update(name.encode())
            found.update(np.ascontiguousarray(self.images[name]).data)
        return found.hexdigest()[:16]


def from_recordings(
    recordings: Iterable[EpisodeFrames],
) -> Iterator[tuple[dict[str, NDArray[np.uint8]], Float32Array]]:
    """Images and ways of the successes among recordings, up to their ends."""
    for frames in recordings:
        if frames.outcome is not Outcome.SUCCESS:
            continue
        places_m = frames.states[:, :3]
        is_known = np.isfinite(places_m).all(1) & (frames.stamps_ns >= frames.start_ns)
        rows = np.flatnonzero(is_known & (frames.stamps_ns <= frames.end_ns))
        if len(rows) < 2:
            continue
        yield (
            {name: stack[rows] for name, stack in frames.images.items()},
            places_m[rows[-1]] - places_m[rows],
        )


def simulated(
    task: Task, variant_name: str, count: int, seed: int
) -> Iterator[tuple[dict[str, NDArray[np.uint8]], Float32Array]]:
    """Images and ways of scripted demonstrations in the fast simulator, disturbed all the time.

    A third of those of the peg begin pressed down beside the hole.

    Args:
        task: What is shown.
        variant_name: Of the scene.
        count: Demonstrations; one in which the expert fails is drawn again.
        seed: Of all of them.
    """
    sim = FastSim(variant(variant_name))
    for number in range(count):
        rng = np.random.default_rng([_SEED, seed, number])
        while True:
            if task is Task.PEG and rng.random() < _BESIDE_PART:
                episode = begin_beside(sim, rng, image_px=sim.config.image_px)
            else:
                sim.reset(task, layout=sample_layout(task, sim.config, rng))
                episode = Episode(sim, task, rng, image_px=sim.config.image_px)
            if solve(episode, rng):
                break
        shown = episode.demo_set()
        places_m = shown.states[:, :3]
        yield (
            {name: shown.images[:, index] for index, name in enumerate(CAMERAS)},
            places_m[-1] - places_m,
        )
    sim.close()


def collected(
    episodes: Iterable[tuple[Mapping[str, NDArray[np.uint8]], Float32Array]],
    cameras: Sequence[str],
    most: int,
) -> GoalFrames:
    """Put episodes together.

    Args:
        episodes: Images and ways of each.
        cameras: Whose images are wanted.
        most: Frames to keep; of more, every second, third, ... of each episode.

    Raises:
        ConfigError: No episode, or images of different sizes.
    """
    images: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in cameras}
    ways, numbers = [], []
    for number, (stacks, ways_m) in enumerate(episodes):
        for name in cameras:
            images[name].append(stacks[name])
        ways.append(ways_m.astype(np.float32))
        numbers.append(np.full(len(ways_m), number))
    if not ways:
        raise ConfigError("no successful episode with images and tcp_pose: record demonstrations")
    every = max(1, -(-sum(map(len, ways)) // most))
    for name, own in images.items():
        sizes = {stack.shape[1:] for stack in own}
        if len(sizes) > 1:
            raise ConfigError(f"images of camera '{name}' have different sizes: {sorted(sizes)}")
    return GoalFrames(
        images={name: _thinned(images.pop(name), every) for name in cameras},
        ways_m=_thinned(ways, every),
        episodes=_thinned(numbers, every),
    )


def _thinned(parts: list[NDArray[Any]], every: int) -> NDArray[Any]:
    return np.concatenate([part[::every] for part in parts])
