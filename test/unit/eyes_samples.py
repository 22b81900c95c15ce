# SPDX-License-Identifier: Apache-2.0
"""Episodes with a bright square that lies where the hand has to go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.learning.eyes_data import GoalFrames, collected
from vla_rl_ros.learning.eyes_episodes import ShownEpisode
from vla_rl_ros.learning.eyes_trainer import EyesSettings
from vla_rl_ros.policies.goal_eyes import EyesManifest, write_manifest

PX, EPISODES, TICKS = 32, 12, 20
SETTINGS = EyesSettings(steps=150, image_px=PX, batch=32)


def shown(
    name: str = "one",
    *,
    count: int = TICKS,
    size: tuple[int, int] = (PX, PX),
    seed: int = 0,
    task: str = "lift",
    is_simulated: bool = False,
    cameras: Sequence[str] = ("front",),
) -> ShownEpisode:
    """One episode: a pixel is 2.5 mm, and the middle of the image is the hand."""
    rng = np.random.default_rng(seed)
    height, width = size
    at = np.stack([rng.integers(4, width - 4, count), rng.integers(4, height - 4, count)], axis=1)
    image = np.full((count, height, width, 3), 40, np.uint8)
    is_open = rng.random(count) < 0.5
    image[~is_open, ..., 0] = 120
    for row, (x, y) in enumerate(at):
        image[row, y - 2 : y + 3, x - 2 : x + 3] = 230
    ways_m = np.zeros((count, 3), np.float32)
    ways_m[:, :2] = 0.0025 * (at - np.array([width, height]) / 2)
    images = {camera: image + np.uint8(index) for index, camera in enumerate(cameras)}
    actions = np.zeros((count, ACTION_DIM), np.float32)
    actions[:, :3] = ways_m / 0.1
    # Which no way tells: a hand is closed while the ground is red with closed fingers.
    actions[:, 6] = 2.0 * is_open - 1.0
    return ShownEpisode(
        name=name, task=task, is_simulated=is_simulated, images=images,
        ways_m=ways_m, actions=actions,
    )  # fmt: skip


def dots(first_seed: int = 0, **what) -> GoalFrames:
    """Frames of twelve episodes."""
    episodes = [shown(f"e{n:02}", seed=first_seed + n, **what) for n in range(EPISODES)]
    return collected(episodes, tuple(episodes[0].images), PX, 10_000)


def write_eyes_without_weights(directory: Path) -> None:
    """Eyes for the peg whose weights nobody can load."""
    (directory / "model.onnx").write_bytes(b"weights")
    manifest = EyesManifest(
        task="peg",
        source="bags",
        cameras=("front",),
        image_sizes={"front": (64, 64)},
        image_px=32,
        feature_dim=64,
    )
    write_manifest(manifest, directory)
