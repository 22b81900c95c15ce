# SPDX-License-Identifier: Apache-2.0
"""Key poses of successful episodes, recorded and simulated."""

from __future__ import annotations

import numpy as np
import pytest
from unit.test_label_bags import CAMERAS, END_FRAME, FRAME_NS, START_NS, record

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.core.spec import STATE_CHANNELS, ActionSpec
from vla_rl_ros.data.label_frames import read_frames
from vla_rl_ros.learning import base_episodes, eyes_simulated
from vla_rl_ros.learning.eyes_episodes import key_ways_m, shown_by
from vla_rl_ros.learning.eyes_simulated import simulated


def ways_x_mm(xs_mm, widths_mm) -> list[float]:
    places_m = np.zeros((len(xs_mm), 3))
    places_m[:, 0] = np.array(xs_mm) / 1e3
    ways_m = key_ways_m(places_m, np.array(widths_mm) / 1e3)
    assert ways_m.dtype == np.float32
    return np.round(1e3 * ways_m[:, 0], 3).tolist()


@pytest.mark.parametrize(
    ("xs_mm", "widths_mm", "ways_mm"),
    [
        ([0, 9, 10, 30], [80, 80, 40, 40], [10, 1, 20, 0]),  # closes, then ends
        ([0, 9, 10, 50, 51, 90], [80, 80, 40, 40, 80, 80], [10, 1, 41, 1, 39, 0]),  # and opens
        ([0, 20, 40, 60], [80, 60, 0, 0], [60, 40, 20, 0]),  # closes on its way
        ([0, 9, 10, 30], [40, 40, 45, 49], [30, 21, 20, 0]),  # a centimetre is no change
        ([0, 9, 10, 30], [np.nan] * 4, [30, 21, 20, 0]),
        ([0, 9, 10, 30], [80, np.nan, 40, 40], [10, 1, 20, 0]),
        # After a miss it opens and holds a cube.
        ([0, 1, 2, 10, 11, 40], [80, 0, 80, 80, 39, 39], [1, 1, 9, 1, 29, 0]),
    ],
)
def test_the_way_is_to_where_the_hand_next_closes_opens_or_finishes(xs_mm, widths_mm, ways_mm):
    assert ways_x_mm(xs_mm, widths_mm) == ways_mm


def test_only_successes_teach_and_only_up_to_their_end(tmp_path):
    good = read_frames(record(tmp_path / "good", start=12, has_truth=False), CAMERAS)
    bad = read_frames(record(tmp_path / "bad", outcome="failure"), CAMERAS)
    assert bad.outcome is Outcome.FAILURE
    assert shown_by(bad) is None
    episode = shown_by(good)
    assert episode is not None
    assert (episode.name, episode.task, episode.is_simulated) == ("good", "lift", False)
    stamps_ns = good.stamps_ns[
        (good.stamps_ns >= START_NS + 12 * FRAME_NS)
        & (good.stamps_ns <= START_NS + END_FRAME * FRAME_NS)
    ]
    assert len(episode.images["wrist"]) == len(episode.ways_m) == len(stamps_ns)
    # The hand moves 1 cm per frame along x, and opens on its way.
    left = (stamps_ns[-1] - stamps_ns) / FRAME_NS
    np.testing.assert_allclose(episode.ways_m[:, 0], 0.01 * left, atol=1e-5)
    # At 1 a target moves 2 cm, and half of a gripper's way is 0.
    numbers = (stamps_ns - START_NS) / FRAME_NS
    ticks = np.ceil((numbers - 1) / 3) * 3 + 1
    is_known = ticks <= END_FRAME
    np.testing.assert_allclose(episode.actions[is_known, 1], 0.005 * ticks[is_known], atol=1e-5)
    np.testing.assert_array_equal(episode.actions[is_known, 6], -1.0)
    assert np.isnan(episode.actions[~is_known]).all()


def test_a_bag_with_the_simulators_word_shows_the_simulated_cell(tmp_path):
    episode = shown_by(read_frames(record(tmp_path / "one"), CAMERAS))
    assert episode is not None
    assert episode.is_simulated


@pytest.mark.parametrize("what", [{"poses": 40}, {"images": 60}, {"poses": 0}])
def test_a_recording_that_stops_before_its_end_has_no_labels(tmp_path, what):
    frames = read_frames(record(tmp_path / "one", **what), CAMERAS)
    with pytest.raises(BagError, match=r"one.* s before the end of the episode"):
        shown_by(frames)


@pytest.fixture
def played(monkeypatch):
    """Episodes that `simulated` showed, in their order."""
    found = []

    def solve(episode, rng):
        is_solved = base_episodes.solve(episode, rng)
        found.extend([episode] if is_solved else [])
        return is_solved

    monkeypatch.setattr(eyes_simulated, "solve", solve)
    return found


@pytest.mark.parametrize(("task", "most_mm"), [("lift", 9.0), ("button", 4.0), ("peg", 3.0)])
def test_demonstrations_point_to_what_the_task_is_about(played, task, most_mm):
    shown = list(simulated(task, "default", 3, 0))
    for episode, played_episode in zip(shown, played, strict=True):
        noted, count = played_episode.demo_set(), played_episode.num_to_success
        assert episode.is_simulated
        assert episode.images["wrist"].shape == (count, 128, 128, 3)
        offsets_m = noted.targets_m[:count]
        cube_m = noted.states[:count, :3] + offsets_m
        is_untouched = np.linalg.norm(cube_m - cube_m[0], axis=1) < 0.003
        errors_mm = 1e3 * np.linalg.norm((episode.ways_m - offsets_m)[is_untouched, :2], axis=1)
        assert np.median(errors_mm) < most_mm
        # Not what a push or noise made of it.
        wanted = ActionSpec().to_normalised(noted.labels[:count].astype(float))
        np.testing.assert_allclose(episode.actions, wanted, atol=1e-6)
    assert len({episode.name for episode in shown}) == 3


def test_the_end_is_the_pose_after_the_action_that_solves(played, monkeypatch):
    (shown,) = simulated("button", "default", 1, 0)
    places_m, count = played[0].demo_set().states[:, :3], played[0].num_to_success
    assert len(places_m) > count
    np.testing.assert_allclose(
        shown.ways_m, places_m[count] - places_m[:count], atol=1e-6, rtol=1e-4
    )
    # The same where nothing is left behind it.
    monkeypatch.setattr(base_episodes, "_MAX_TICKS", count)
    (late,) = simulated("button", "default", 1, 0)
    assert len(played[1].demo_set().states) == count
    np.testing.assert_array_equal(late.ways_m, shown.ways_m)
    np.testing.assert_array_equal(late.images["front"], shown.images["front"])


def test_a_seed_decides_what_is_shown():
    first, again, other = (
        [shown.ways_m for shown in simulated("peg", "peg_friction_tight", 1, seed)]
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


def test_some_insertions_begin_beside_the_hole(monkeypatch):
    begun = []

    def begin_beside(*given, **named):
        begun.append(1)
        return base_episodes.begin_beside(*given, **named)

    monkeypatch.setattr(eyes_simulated, "begin_beside", begin_beside)
    assert len(list(simulated("peg", "default", 6, 0))) == 6
    assert 0 < len(begun) < 6
    begun.clear()
    list(simulated("button", "default", 2, 0))
    assert not begun


@pytest.mark.parametrize("task", ["lift", "button"])
def test_some_empty_hands_begin_low_down_and_the_way_is_shown_from_there(played, task):
    list(simulated(task, "default", 8, 0))
    astray = [episode.demo_set() for episode in played]
    astray = [noted for noted in astray if noted.is_pushed[0]]
    assert 0 < len(astray) < 8
    for noted in astray:
        is_led = np.cumsum(~noted.is_pushed) == 0
        assert 2 <= is_led.sum() <= 13
        heights_m = noted.states[: is_led.sum() + 1, STATE_CHANNELS.index("tcp.z_m")]
        assert heights_m[-1] < min(heights_m[0], 0.16)
        # Nothing opens or closes on the way down, so no false key pose is shown.
        assert len(set(noted.executed[is_led, -1])) == 1


def test_an_expert_that_always_fails_ends_the_run_and_frees_the_renderer(monkeypatch):
    closed = []
    monkeypatch.setattr(eyes_simulated, "solve", lambda episode, rng: False)
    monkeypatch.setattr(eyes_simulated, "_MAX_DRAWS", 2)
    monkeypatch.setattr(eyes_simulated.FastSim, "close", lambda sim: closed.append(sim))
    with pytest.raises(ConfigError, match="the expert failed at button 2 times"):
        list(simulated("button", "default", 1, 0))
    assert len(closed) == 1


@pytest.mark.parametrize("task", ["peg_out", "fly"])
def test_a_task_that_nobody_can_show_is_refused(task):
    with pytest.raises(ConfigError, match=f"{task}: only lift, button, peg can be shown"):
        list(simulated(task, "default", 1, 0))
