# SPDX-License-Identifier: Apache-2.0
"""The real MetaWorld, where it is installed: pinned starts repeat to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.gym_episodes import evaluate, paired_difference

pytest.importorskip("metaworld")

# MetaWorld's own spaces are narrower than its observations.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

PUSH = DoorSettings(
    env_id="metaworld:Meta-World/MT1",
    env_arguments='{"env_name": "push-v3"}',
    base="vla_rl_ros.learning.base_policies:metaworld_push",
    max_ticks=120,
)


def test_starts_repeat_whatever_was_played_before():
    door, other = Door(PUSH), Door(PUSH)
    first = evaluate(door, None, [0, 21])
    evaluate(other, lambda obs, base: np.full(4, -0.3, np.float32), [5])
    again = evaluate(other, None, [0, 21])
    assert paired_difference(again, first)["is_paired"]
    assert again == first
    untouched = evaluate(door, lambda obs, base: np.zeros(4, np.float32), [0, 21])
    assert untouched == first
    assert len({episode.start_hash for episode in first}) == 2
    door.close()
    other.close()
