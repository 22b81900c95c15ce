# SPDX-License-Identifier: Apache-2.0
"""What was done when a frame was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.bag_samples import KEEP, START_NS, channels, pose

from vla_rl_ros.core.spec import ACTION_CHANNELS
from vla_rl_ros.data.bag_writer import BagWriter
from vla_rl_ros.data.frame_actions import frame_actions
from vla_rl_ros.data.metadata import BagTopic, qos_text
from vla_rl_ros.data.schemas import message_schema

MS = 1_000_000
TOPIC, KIND = "/action/executed", "sensor_msgs/msg/JointState"
NUMBERS = np.arange(1, 8)


def row(number: int, source: str) -> dict[str, float]:
    """Action n of a source, with another one of the base beside it."""
    executed = {
        f"executed.{name}": 0.01 * n for name, n in zip(ACTION_CHANNELS, NUMBERS, strict=True)
    }
    executed["executed.tcp.dx_m"] = 1e-4 * number
    sources = {f"source.{name}": float(name == source) for name in ("policy", "human", "hold")}
    return {**executed, "base.tcp.dx_m": 9.0, **(sources if source else {})}


def record(path: Path, ticks_ms, sources=None, *, topic: str = TOPIC, kind: str = KIND) -> Path:
    """A bag with ticks at these times."""
    told = BagTopic(name=topic, type=kind, schema=message_schema(kind), qos=qos_text(depth=10))
    writer = BagWriter(path, [told], {"episode": {"id": "one"}}, KEEP)
    for number, tick_ms in enumerate(ticks_ms):
        stamp_ns = START_NS + tick_ms * MS
        source = "policy" if sources is None else sources[number]
        raw = channels(stamp_ns, row(number, source)) if kind == KIND else pose(stamp_ns, 0.0)
        writer.write(0, stamp_ns + 1000, stamp_ns, raw, 1)
    return writer.finish()


def known(path: Path, frames_ms) -> list[int | None]:
    """Number of the tick whose action each frame has, None where it is unknown."""
    actions = frame_actions(path, START_NS + MS * np.array(frames_ms, dtype=np.int64))
    assert actions.dtype == np.float32
    assert actions.shape == (len(frames_ms), 7)
    is_known = np.isfinite(actions).all(1)
    assert np.isnan(actions[~is_known]).all()
    for action in actions[is_known]:
        np.testing.assert_allclose(action[1:], 0.01 * NUMBERS[1:], rtol=1e-6)
    return [round(1e4 * each[0]) if np.isfinite(each[0]) else None for each in actions.tolist()]


def test_a_frame_has_the_action_of_the_first_tick_from_it_on(tmp_path):
    bag = record(tmp_path / "one", [100, 200, 303, 400])
    frames_ms = [-60, 0, 99, 100, 101, 201, 303, 304, 400, 401]
    # The first one is more than a tick and a half too early.
    assert known(bag, frames_ms) == [None, 0, 0, 0, 1, 2, 2, 3, 3, None]


@pytest.mark.parametrize("period_ms", [20, 100, 150, 200])
def test_at_any_pace_every_frame_of_an_episode_has_one(tmp_path, period_ms):
    bag = record(tmp_path / "one", range(0, 3000, period_ms))
    assert None not in known(bag, range(0, 2700, 33))


def test_a_gap_in_the_ticks_is_not_bridged(tmp_path):
    bag = record(tmp_path / "one", [0, 100, 200, 300, 800, 900])
    assert known(bag, [250, 301, 600, 660, 801]) == [3, None, None, 4, 5]


def test_a_tick_that_nobody_drove_teaches_nothing(tmp_path):
    bag = record(tmp_path / "one", [0, 100, 200, 300], ["hold", "policy", "hold", "policy"])
    assert known(bag, [0, 50, 150, 250]) == [None, 1, None, 3]


def test_where_a_human_helped_only_what_he_did_teaches(tmp_path):
    bag = record(tmp_path / "one", [0, 100, 200, 300], ["policy", "human", "human", "policy"])
    assert known(bag, [0, 50, 150, 250]) == [None, 1, 2, None]


def test_rows_that_do_not_tell_who_drove_count(tmp_path):
    assert known(record(tmp_path / "one", [0, 100], ["", ""]), [0, 50]) == [0, 1]


@pytest.mark.parametrize(
    "other",
    [{"topic": "/action/other"}, {"kind": "geometry_msgs/msg/PoseStamped"}, {"ticks_ms": [100]}],
)
def test_a_bag_without_such_rows_tells_nothing(tmp_path, other):
    bag = record(tmp_path / "one", **{"ticks_ms": [0, 100, 200], **other})
    assert known(bag, [0, 100]) == [None, None]
