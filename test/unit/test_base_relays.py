# SPDX-License-Identifier: Apache-2.0
"""Episodes that a policy begins and the expert ends."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.learning.base_data import DemoSet
from vla_rl_ros.learning.base_labels import Sampler, measure_scales
from vla_rl_ros.learning.base_relays import collect_relay_shard
from vla_rl_ros.learning.base_scene import VaryingCells
from vla_rl_ros.policies.pi0.backend import make_policy
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings
from vla_rl_ros.sim.scene_ids import CAMERAS

NUM_RELAYS = 2


def relays(cells: VaryingCells) -> DemoSet:
    policy = make_policy(PolicySettings(device="cpu"), PolicyEnvironment(cameras=CAMERAS))
    return collect_relay_shard(cells, policy, 0, 0, num_relays=NUM_RELAYS)


@pytest.fixture(scope="module")
def shard(cells) -> DemoSet:
    return relays(cells)


def test_the_policy_drives_first_and_the_expert_to_the_end(shard):
    for number in range(NUM_RELAYS):
        is_policy = shard.is_pushed[shard.episodes == number]
        first_expert = int(np.flatnonzero(~is_policy)[0])

        assert first_expert >= 8
        assert is_policy[:first_expert].all()
        assert not is_policy[first_expert:].any()
        # A success and the ticks behind it.
        assert len(is_policy) > first_expert + 5


def test_nothing_is_learned_from_the_policy_but_what_the_expert_would_have_done(shard):
    sampler = Sampler(shard, measure_scales(shard), 16, start_part=0.0)
    first_expert = int(np.flatnonzero(~shard.is_pushed)[0])
    early, late = first_expert - 6, first_expert - 2
    samples = sampler.at(np.array([early, late]), np.array([2, 2]))

    # Two promised rows; then the expert's answer to the tick, and what he did where he drives.
    assert samples.masks[0].nonzero()[0].tolist() == [2]
    assert samples.masks[1][2:5].all()
    assert not np.array_equal(shard.labels[early], shard.executed[early])


def test_equal_seeds_give_equal_relays(cells, shard):
    again = relays(cells)

    assert all(
        np.array_equal(values, again.arrays()[name]) for name, values in shard.arrays().items()
    )
