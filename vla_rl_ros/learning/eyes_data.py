# SPDX-License-Identifier: Apache-2.0
"""What trained eyes learn from: frames of many episodes in the size of the network.

Episodes are resized and thinned as they come, so that bags of any number fit into memory. Called
by `vla-rl-ros train eyes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
        actions: As of `ShownEpisode`, shape (n, 7).
        names: Of the episodes.
        episodes: Each frame's index into `names`, shape (n,).
    """

    task: str
    source: str
    resize: str
    image_sizes: Sizes
    images: Mapping[str, ImageStack]
    ways_m: Float32Array
    actions: Float32Array
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
        found.update(self.ways_m.tobytes() + self.actions.tobytes() + self.episodes.tobytes())
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
    kept = _Kept({name: np.empty((0, image_px, image_px, 3), np.uint8) for name in cameras})
    every, sizes, resize = 1, None, ""
    for episode in episodes:
        if any(episode.name == each.name for each in kept.episodes):
            continue
        _refuse_other_task(kept.episodes, episode)
        own = {name: episode.images[name].shape[1:3] for name in cameras}
        if sizes is None:
            sizes, resize = own, resize_of(own.values(), image_px)
        _refuse_other_sizes(sizes, own, episode.name)
        kept.add(episode, every, resize)
        while kept.num_frames > most:
            if len(kept.episodes) > most:
                raise ConfigError(f"{most} frames are fewer than the episodes: raise --frames")
            every *= 2
            kept.thin()
    if sizes is None:
        raise ConfigError("no successful episode with images and tcp_pose: record demonstrations")
    return _joined(kept, resize, sizes)


@dataclass(slots=True)
class _Kept:
    """Frames so far, in one array per camera that grows and shrinks where it lies.

    Joined at the end, they would need their memory twice.

    Attributes:
        images: By camera in the size of the network, shape (n, px, px, 3); nobody else holds them.
        episodes: Without images.
    """

    images: dict[str, ImageStack]
    episodes: list[ShownEpisode] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        """Of all episodes."""
        return sum(len(each.ways_m) for each in self.episodes)

    def add(self, episode: ShownEpisode, every: int, resize: str) -> None:
        """Resize every such frame of an episode and put it behind the others."""
        first, ways_m = self.num_frames, episode.ways_m[::every].copy()
        self._resize(first + len(ways_m))
        for name, stack in self.images.items():
            image_px = stack.shape[1]
            for row, image in enumerate(episode.images[name][::every], first):
                stack[row] = sized(image, image_px, resize, name)
        self.episodes.append(
            replace(episode, images={}, ways_m=ways_m, actions=episode.actions[::every].copy())
        )

    def thin(self) -> None:
        """Keep every second frame of each episode."""
        first = end = 0
        for number, episode in enumerate(self.episodes):
            ways_m = episode.ways_m[::2].copy()
            for stack in self.images.values():
                rows = stack[first : first + len(episode.ways_m) : 2]
                stack[end : end + len(ways_m)] = rows
            first, end = first + len(episode.ways_m), end + len(ways_m)
            actions = episode.actions[::2].copy()
            self.episodes[number] = replace(episode, ways_m=ways_m, actions=actions)
        self._resize(end)

    def _resize(self, num_frames: int) -> None:
        for stack in self.images.values():
            stack.resize((num_frames, *stack.shape[1:]), refcheck=False)


def _refuse_other_task(kept: Sequence[ShownEpisode], episode: ShownEpisode) -> None:
    if kept and kept[0].task != episode.task:
        raise ConfigError(
            f"{kept[0].name} is of '{kept[0].task}', {episode.name} of '{episode.task}': choose "
            "by --task"
        )


def _refuse_other_sizes(sizes: Sizes, own: Sizes, name: str) -> None:
    for camera, size in own.items():
        if size != sizes[camera]:
            raise ConfigError(
                f"images of camera '{camera}' have different sizes: {size[0]}x{size[1]} in "
                f"{name}, {sizes[camera][0]}x{sizes[camera][1]} before"
            )


def _joined(kept: _Kept, resize: str, sizes: Sizes) -> GoalFrames:
    episodes = kept.episodes
    return GoalFrames(
        task=episodes[0].task,
        source="simulator" if any(each.is_simulated for each in episodes) else "bags",
        resize=resize,
        image_sizes=sizes,
        images=kept.images,
        ways_m=np.concatenate([each.ways_m for each in episodes]),
        actions=np.concatenate([each.actions for each in episodes]),
        names=tuple(each.name for each in episodes),
        episodes=np.repeat(np.arange(len(episodes)), [len(each.ways_m) for each in episodes]),
    )
