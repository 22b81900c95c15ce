# SPDX-License-Identifier: Apache-2.0
"""Successful episodes as trained eyes see them: images, way to the next key pose, and action.

A key pose is where the hand next closes or opens, or else where the episode ends (key frames as in
PerAct, arXiv 2209.05451). The end alone would not do: a hand that lifts is pushed on and ends
somewhere else than where it grasped. Nobody has to label anything, because a success shows in
hindsight where its key poses were. What was done at each frame tells more where a grasped thing
slips in the hand: the hand then ends somewhere else each time, and whoever shows it goes by the
thing. Called by `eyes_data` and `vla-rl-ros train eyes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.data.frame_actions import frame_actions
from vla_rl_ros.data.label_frames import EpisodeFrames, ImageStack
from vla_rl_ros.data.metadata import NS_PER_S

Float32Array = NDArray[np.float32]

_LEAST_WIDTH_RANGE_M = 0.01
# Not the middle: a hand that missed once went from 80 mm to 0, and held a cube of 39 mm later.
_OPEN_PART = 0.75
# From one row to the next, 0.1 s: a hand that closes on its way to a button shows no place.
_STILL_M = 0.01
_MAX_UNKNOWN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShownEpisode:
    """One successful episode.

    Attributes:
        name: Tells it from others.
        task: What was done.
        is_simulated: Whether the simulated cell was seen.
        images: RGB by camera, shape (n, h, w, 3).
        ways_m: From the TCP to the next key pose, base axes, shape (n, 3).
        actions: What was done then, or would have been done by a scripted expert, as of
            `normalised_actions`, shape (n, 7).
    """

    name: str
    task: str
    is_simulated: bool
    images: Mapping[str, ImageStack]
    ways_m: Float32Array
    actions: Float32Array


def key_ways_m(places_m: NDArray[np.floating], widths_m: NDArray[np.floating]) -> Float32Array:
    """Way from every row to the next key pose, the last row where none is left.

    The hand is open while its width is in the upper quarter of what the episode shows of it. A
    change between open and closed counts where the hand stays in place; a width that varies by a
    centimetre or less shows none.

    Example: with widths of 80, 80, 40, 40 mm and x of 0, 9, 10, 30 mm the ways along x are 10, 1,
    20, 0 mm: to where it closed, and from there to the end.

    Args:
        places_m: Of the TCP, base axes, shape (n, 3), a tenth of a second apart.
        widths_m: Of the gripper, NaN where unknown, shape (n,).

    Returns:
        Base axes, shape (n, 3).
    """
    goals = np.append(_changes(places_m, widths_m), len(places_m) - 1)
    next_goal = np.searchsorted(goals, np.arange(len(places_m)), side="right")
    ways_m = places_m[goals[next_goal.clip(max=len(goals) - 1)]] - places_m
    return np.asarray(ways_m, np.float32)


def _changes(places_m: NDArray[np.floating], widths_m: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows in which a hand that stands still has just closed or opened, rising."""
    known = np.flatnonzero(np.isfinite(widths_m))
    seen_m = widths_m[known]
    if len(known) < 2 or np.ptp(seen_m) <= _LEAST_WIDTH_RANGE_M:
        return np.empty(0, np.int64)
    is_open = seen_m > seen_m.min() + _OPEN_PART * np.ptp(seen_m)
    rows = known[1:][is_open[1:] != is_open[:-1]]
    moved_m = np.linalg.norm(places_m[rows] - places_m[rows - 1], axis=1)
    return np.asarray(rows[moved_m < _STILL_M], np.int64)


def normalised_actions(actions: NDArray[np.floating]) -> Float32Array:
    """Actions in the unit of the features: that of `ActionSpec()`, whatever the arm's own.

    Args:
        actions: SI, channels of `core.spec.ACTION_CHANNELS`, NaN where unknown, shape (n, 7).
    """
    return ActionSpec().to_normalised(actions.astype(np.float64)).astype(np.float32)


def shown_by(frames: EpisodeFrames) -> ShownEpisode | None:
    """What a recording shows from its start to its end; None where it is no success.

    Raises:
        BagError: Images or poses stop before the end, so nobody knows where that was.
    """
    if frames.outcome is not Outcome.SUCCESS:
        return None
    places_m = frames.states[:, :3]
    is_inside = (frames.stamps_ns >= frames.start_ns) & (frames.stamps_ns <= frames.end_ns)
    rows = np.flatnonzero(is_inside & np.isfinite(places_m).all(1))
    last_ns = frames.stamps_ns[rows[-1]] if len(rows) else frames.start_ns
    missing_s = (frames.end_ns - last_ns) / NS_PER_S
    if len(rows) < 2 or missing_s > _MAX_UNKNOWN_S:
        raise BagError(
            f"{frames.source}: the last image with a pose of /arm/tcp_pose is {missing_s:.1f} s "
            "before the end of the episode"
        )
    return ShownEpisode(
        name=frames.episode,
        task=frames.task,
        is_simulated=frames.is_simulated,
        images={name: stack[rows] for name, stack in frames.images.items()},
        ways_m=key_ways_m(places_m[rows], frames.states[rows, 3]),
        actions=normalised_actions(frame_actions(Path(frames.source), frames.stamps_ns[rows])),
    )
