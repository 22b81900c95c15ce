# SPDX-License-Identifier: Apache-2.0
"""What was done when a frame was seen, from the rows of a recording. Called by `eyes_episodes`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.spec import ACTION_CHANNELS, ACTION_DIM
from vla_rl_ros.data.bag_reader import Bag, StampArray, ValueArray, read_channels

_TOPIC, _TYPE = "/action/executed", "sensor_msgs/msg/JointState"
_SOURCES = ("source.hold", "source.human")
_REACH = 1.5
"""Ticks that may pass up to the one that answers a frame; one and what they jitter."""


def frame_actions(path: Path, stamps_ns: StampArray) -> NDArray[np.float32]:
    """What was executed at the first tick from each frame on.

    Ticks that nobody drove are unknown. Where a human took part in the episode, so are those of
    the policy: what it did before a takeover is what nobody wants to see again.

    Args:
        path: Bag of one episode.
        stamps_ns: Of the frames, rising, shape (n,).

    Returns:
        SI, channels of `core.spec.ACTION_CHANNELS`, NaN where unknown, shape (n, 7).
    """
    actions = np.full((len(stamps_ns), ACTION_DIM), np.nan, np.float32)
    times, values = _wanted(*_rows(path))
    if len(times) > 1:
        after = np.searchsorted(times, stamps_ns)
        rows = np.flatnonzero(after < len(times))
        late_ns = times[after[rows]] - stamps_ns[rows]
        rows = rows[late_ns <= _REACH * np.median(np.diff(times))]
        actions[rows] = values[after[rows]]
    return actions


def _rows(path: Path) -> tuple[StampArray, ValueArray]:
    topic = Bag(path).topics.get(_TOPIC)
    if topic is None or topic.type != _TYPE:
        return np.empty(0, np.int64), np.empty((0, ACTION_DIM + len(_SOURCES)))
    names = [*(f"executed.{channel}" for channel in ACTION_CHANNELS), *_SOURCES]
    return read_channels(path, _TOPIC, names)


def _wanted(times: StampArray, values: ValueArray) -> tuple[StampArray, ValueArray]:
    """Rows in order of time; actions that teach nothing are NaN."""
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    actions, is_held, is_human = values[:, :ACTION_DIM], values[:, -2] > 0.5, values[:, -1] > 0.5
    is_unwanted = ~is_human if is_human.any() else is_held
    actions[is_unwanted] = np.nan
    return times, actions
