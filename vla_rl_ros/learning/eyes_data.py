# SPDX-License-Identifier: Apache-2.0
"""What trained eyes learn from: frames of many episodes in the size of the network.

Episodes are resized and thinned as they come, so that bags of any number fit into memory. Called
by `vla-rl-ros train eyes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_frames import ImageStack
from vla_rl_ros.learning.eyes_episodes import Float32Array, ShownEpisode
from vla_rl_ros.policies.cpu_model import resize_of, sized

Sizes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoalFrames:
    """Frames of successful episodes of one task.

    Attributes:
        task: What was done.
        source: ``simulator`` where any of them shows the simulated cell, else ``bags``.
        resize: How images became this size, see `policies.cpu_model.sized`.
        image_sizes: Height and width of the images before, by camera.
        images: RGB by camera in the size of the network, shape (n, px, px, 3).
        ways_m: From the TCP to the next key pose, base axes, shape (n, 3).
        names: Of the episodes.
        episodes: Each frame's index into `names`, shape (n,).
    """

    task: str
    source: str
    resize: str
    image_sizes: Sizes
    images: Mapping[str, ImageStack]
    ways_m: Float32Array
    names: tuple[str, ...]
    episodes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.ways_m)

    @property
    def digest(self) -> str:
        """What tells these frames from others."""
        words = [self.task, self.source, self.resize, self.names, dict(self.image_sizes)]
        found = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
        found.update(self.ways_m.tobytes() + self.episodes.tobytes())
        for name in sorted(self.images):
            found.update(name.encode())
            found.update(np.ascontiguousarray(self.images[name]).data)
        return found.hexdigest()[:16]


def collected(
    episodes: Iterable[ShownEpisode], cameras: Sequence[str], image_px: int, most: int
) -> GoalFrames:
    """Put episodes together; one that comes again under the same name is left out.

    Args:
        episodes: Of one task.
        cameras: Whose images are wanted.
        image_px: Side of the network's images.
        most: Frames to keep; where there are more, every second, fourth, ... of each episode.

    Raises:
        ConfigError: No episode, several tasks, images of different sizes, or more episodes than
            frames to keep.
    """
    kept: dict[str, ShownEpisode] = {}
    every, sizes, resize = 1, None, ""
    for episode in episodes:
        if episode.name in kept:
            continue
        _refuse_other_task(kept, episode)
        own = {name: episode.images[name].shape[1:3] for name in cameras}
        if sizes is None:
            sizes, resize = own, resize_of(own.values(), image_px)
        _refuse_other_sizes(sizes, own, episode.name)
        kept[episode.name] = _resized(_thinned(episode, every), cameras, image_px, resize)
        while sum(len(each.ways_m) for each in kept.values()) > most:
            if len(kept) > most:
                raise ConfigError(f"{most} frames are fewer than the episodes: raise --frames")
            every *= 2
            kept = {name: _thinned(each, 2) for name, each in kept.items()}
    if sizes is None:
        raise ConfigError("no successful episode with images and tcp_pose: record demonstrations")
    return _joined(list(kept.values()), cameras, resize, sizes)


def _refuse_other_task(kept: Mapping[str, ShownEpisode], episode: ShownEpisode) -> None:
    for first in kept.values():
        if first.task != episode.task:
            raise ConfigError(
                f"{first.name} is of '{first.task}', {episode.name} of '{episode.task}': choose "
                "by --task"
            )
        return


def _refuse_other_sizes(sizes: Sizes, own: Sizes, name: str) -> None:
    for camera, size in own.items():
        if size != sizes[camera]:
            raise ConfigError(
                f"images of camera '{camera}' have different sizes: {size[0]}x{size[1]} in "
                f"{name}, {sizes[camera][0]}x{sizes[camera][1]} before"
            )


def _thinned(episode: ShownEpisode, every: int) -> ShownEpisode:
    # Copies, since a view would keep all frames in memory.
    return replace(
        episode,
        images={name: stack[::every].copy() for name, stack in episode.images.items()},
        ways_m=episode.ways_m[::every].copy(),
    )


def _resized(
    episode: ShownEpisode, cameras: Sequence[str], image_px: int, resize: str
) -> ShownEpisode:
    images = {
        name: np.stack([sized(image, image_px, resize, name) for image in episode.images[name]])
        for name in cameras
    }
    return replace(episode, images=images)


def _joined(
    kept: list[ShownEpisode], cameras: Sequence[str], resize: str, sizes: Sizes
) -> GoalFrames:
    counts = [len(each.ways_m) for each in kept]
    return GoalFrames(
        task=kept[0].task,
        source="simulator" if any(each.is_simulated for each in kept) else "bags",
        resize=resize,
        image_sizes=sizes,
        images={name: np.concatenate([each.images[name] for each in kept]) for name in cameras},
        ways_m=np.concatenate([each.ways_m for each in kept]),
        names=tuple(each.name for each in kept),
        episodes=np.repeat(np.arange(len(kept)), counts),
    )
