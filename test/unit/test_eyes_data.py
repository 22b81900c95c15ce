# SPDX-License-Identifier: Apache-2.0
"""Frames that trained eyes learn from."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from unit.eyes_samples import PX, dots, shown

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.eyes_data import collected
from vla_rl_ros.policies.cpu_model import sized


@pytest.mark.parametrize(
    ("size", "resize"),
    [((64, 64), "area"), ((32, 32), "area"), ((48, 64), "pad"), ((16, 16), "pad")],
)
def test_images_are_learned_from_as_they_will_be_looked_at(size, resize):
    episode = shown(size=size, cameras=("wrist", "front"))
    frames = collected([episode], ("wrist", "front"), PX, 100)
    assert frames.resize == resize
    assert frames.image_sizes == {"wrist": size, "front": size}
    for name, stack in frames.images.items():
        expected = [sized(image, PX, resize, name) for image in episode.images[name]]
        np.testing.assert_array_equal(stack, expected)
    assert not np.array_equal(frames.images["wrist"], frames.images["front"])


def test_one_camera_that_does_not_fit_decides_for_all():
    episode = shown(size=(64, 64))
    images = {"wrist": shown(size=(48, 64)).images["front"], **episode.images}
    frames = collected([dataclasses.replace(episode, images=images)], ("front", "wrist"), PX, 100)
    assert frames.resize == "pad"
    expected = [sized(image, PX, "pad", "front") for image in episode.images["front"]]
    np.testing.assert_array_equal(frames.images["front"], expected)


def test_of_too_many_frames_every_second_or_fourth_of_each_episode_is_kept():
    episodes = [shown(f"e{n}", count=10, seed=n) for n in range(3)]
    frames = collected(episodes, ("front",), PX, 12)
    assert frames.episodes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for number, episode in enumerate(episodes):
        mine = frames.episodes == number
        np.testing.assert_array_equal(frames.ways_m[mine], episode.ways_m[::4])
        np.testing.assert_array_equal(frames.actions[mine], episode.actions[::4])
        np.testing.assert_array_equal(frames.images["front"][mine], episode.images["front"][::4])
    assert len(collected(episodes, ("front",), PX, 15)) == 15
    with pytest.raises(ConfigError, match="raise --frames"):
        collected(episodes, ("front",), PX, 2)


def test_an_episode_that_comes_again_counts_once():
    frames = collected([shown("a"), shown("b", seed=1), shown("a")], ("front",), PX, 100)
    assert frames.names == ("a", "b")
    assert len(frames) == 40


@pytest.mark.parametrize(("most", "count"), [(8000, 1200), (700, 600)])
def test_frames_need_their_memory_once(most, count):
    episodes = (shown(f"e{n}", seed=n, cameras=("front", "wrist")) for n in range(60))
    tracemalloc.start()
    try:
        frames = collected(episodes, ("front", "wrist"), PX, most)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(frames) == count
    assert peak_bytes < 1.3 * sum(stack.nbytes for stack in frames.images.values())


def test_what_does_not_belong_together_is_refused_by_name():
    with pytest.raises(ConfigError, match="no successful episode"):
        collected([], ("front",), PX, 12)
    with pytest.raises(ConfigError, match="b of 'peg': choose by --task"):
        collected([shown("a"), shown("b", task="peg")], ("front",), PX, 100)
    with pytest.raises(ConfigError, match="'front' have different sizes: 64x64 in b, 32x32"):
        collected([shown("a"), shown("b", size=(64, 64))], ("front",), PX, 100)


def test_one_simulated_episode_makes_the_source_the_simulator():
    real, made = shown("a"), shown("b", seed=1, is_simulated=True)
    assert collected([real], ("front",), PX, 100).source == "bags"
    assert collected([real, made], ("front",), PX, 100).source == "simulator"


def test_other_frames_have_another_digest():
    first = dots()
    darker = {"front": first.images["front"] // 2}
    others = [
        dots(1),
        dataclasses.replace(first, images=darker),
        dataclasses.replace(first, ways_m=2.0 * first.ways_m),
        dataclasses.replace(first, actions=2.0 * first.actions),
        dataclasses.replace(first, resize="pad"),
        dataclasses.replace(first, names=tuple(reversed(first.names))),
        dataclasses.replace(first, images={"wrist": first.images["front"]}),
    ]
    digests = {frames.digest for frames in (first, *others)}
    assert len(digests) == len(others) + 1
    assert dots().digest == first.digest
