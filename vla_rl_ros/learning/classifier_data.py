# SPDX-License-Identifier: Apache-2.0
"""Labelled frames for training: split by episode, checked, and varied.

Frames of one episode are nearly equal; one that is trained on and tested on would make any
classifier look good. So episodes are split, never frames. Called by `classifier_training`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_set import LabelledFrames

MIN_EPISODES = 6
"""Of each class: with fewer a part of the split would have none."""
_GREY = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Masks over frames, shape (n,) each."""

    train: NDArray[np.bool_]
    calibrate: NDArray[np.bool_]
    test: NDArray[np.bool_]


def split_by_episode(
    frames: LabelledFrames, *, calibrate_part: float, test_part: float, seed: int
) -> Split:
    """Deal episodes out, those with a success and those without apart.

    An episode's place depends on its name and the seed alone, as far as the parts allow.

    Raises:
        ConfigError: Too few episodes with or without success; says how many there are.
    """
    with_success: dict[str, bool] = {}
    for name, label in zip(frames.episodes, frames.is_success.tolist(), strict=True):
        with_success[name] = with_success.get(name, False) or label
    places: dict[str, int] = {}
    for wanted, sentence in ((True, "a success"), (False, "no success")):
        mine = sorted(
            (name for name, found in with_success.items() if found is wanted),
            key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest(),
        )
        if len(mine) < MIN_EPISODES and wanted:
            raise ConfigError(
                f"{len(mine)} episodes with {sentence} are labelled, {MIN_EPISODES} are needed "
                "to split them: label more bags"
            )
        num_test = _share(len(mine), test_part)
        num_calibrate = _share(len(mine), calibrate_part)
        for number, name in enumerate(mine):
            places[name] = (
                2 if number < num_test else 1 if number < num_test + num_calibrate else 0
            )
    place = np.array([places[name] for name in frames.episodes])
    split = Split(train=place == 0, calibrate=place == 1, test=place == 2)
    for name, mask in (("train", split.train), ("calibrate", split.calibrate)):
        _need_both(frames.is_success[mask], name)
    return split


def _share(count: int, part: float) -> int:
    return 0 if part == 0.0 or not count else max(1, round(part * count))


def _need_both(is_success: NDArray[np.bool_], name: str) -> None:
    for label, word in ((True, "success"), (False, "failure")):
        if not (is_success == label).any():
            raise ConfigError(
                f"the part to {name} has no frame of {word}: label more episodes of both kinds"
            )


def check_frames(frames: LabelledFrames, *, min_positives: int) -> None:
    """Refuse what nothing can be learned from.

    Raises:
        ConfigError: One class only, or too few frames of success.
    """
    num_positives = int(frames.is_success.sum())
    if num_positives == len(frames):
        raise ConfigError(
            f"all {len(frames)} labelled frames show success: failures are needed as well, best "
            "those that nearly succeed"
        )
    if num_positives < min_positives:
        raise ConfigError(
            f"{num_positives} frames show success, {min_positives} are needed: label more "
            "successful episodes, or lower --min-positives"
        )


def check_apart(frames: LabelledFrames, held_out: LabelledFrames) -> None:
    """Refuse to test on what was trained on.

    Raises:
        ConfigError: An episode is in both sets; names it.
    """
    both = sorted(set(frames.episodes) & set(held_out.episodes))
    if both:
        raise ConfigError(
            f"{len(both)} episodes are in the set and in the held-out one, e.g. {both[0]}: "
            "results on them would mean nothing"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How far training images differ from what was seen.

    Attributes:
        shift_px: Largest shift of the random crop.
        brightness: Largest change of brightness, as a part.
        contrast: Likewise of contrast.
        colour: Likewise of each colour.
        noise: Deviation of the noise of pixels, of 255.
    """

    shift_px: int
    brightness: float
    contrast: float
    colour: float
    noise: float


def varied(images: Tensor, variation: Variation, generator: torch.Generator) -> Tensor:
    """Crop at random and change the light, each image on its own.

    Args:
        images: uint8, (n, px, px, 3).
        variation: How far.
        generator: Equal states give equal images.

    Returns:
        uint8, the same shape; what a crop lacks repeats the border.
    """
    count, px = len(images), images.shape[1]
    pad = variation.shift_px
    moved = images.permute(0, 3, 1, 2).float()
    if pad:
        padded = torch.nn.functional.pad(moved, (pad, pad, pad, pad), mode="replicate")
        corners = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator).tolist()
        moved = torch.stack(
            [
                image[:, y : y + px, x : x + px]
                for image, (y, x) in zip(padded, corners, strict=True)
            ]
        )

    def factor(size: float, channels: int = 1) -> Tensor:
        shape = (count, channels, 1, 1)
        return 1.0 + size * (2.0 * torch.rand(shape, generator=generator) - 1.0)

    moved = moved * factor(variation.brightness) * factor(variation.colour, 3)
    middle = (moved * _GREY[None, :, None, None]).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    moved = middle + (moved - middle) * factor(variation.contrast)
    if variation.noise:
        moved = moved + variation.noise * torch.randn(moved.shape, generator=generator)
    return moved.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def as_stacks(images: Mapping[str, NDArray[np.uint8]], cameras: Sequence[str]) -> list[Tensor]:
    """Images in the order of the network's inputs."""
    return [torch.from_numpy(np.ascontiguousarray(images[name])) for name in cameras]
