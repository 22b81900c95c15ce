# SPDX-License-Identifier: Apache-2.0
"""The timing and the bookkeeping of evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.learning.base_eval import (
    BaseEpisode,
    DelayedExecutor,
    run_episode,
    summary,
)
from vla_rl_ros.policies.expert_chunks import expert_chunk
from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import Task

HOLD = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])


class CountingPolicy:
    """Row i of the chunk of tick t is t + i / 100 in x; notes what it was promised."""

    horizon, cameras, needs_objects, anchor, max_locked = 16, (), False, Anchor.MEASURED, 16
    conditionings = frozenset(Conditioning)

    def __init__(self):
        self.prefixes = {}

    def infer(self, observation, prefix):
        tick = observation.stamp_ns
        self.prefixes[tick] = prefix
        chunk = np.zeros((16, 7))
        chunk[:, 0] = tick + 0.01 * np.arange(16)
        return chunk

    def reset(self):
        """Nothing to forget."""


def played(delay_ticks, num_ticks=9):
    """What is executed in x, and the policy that was asked."""
    policy = CountingPolicy()
    executor = DelayedExecutor(policy, delay_ticks)
    values = [
        executor.act(
            tick,
            PolicyObservation(
                stamp_ns=tick, images={}, state=np.zeros(20), instruction="", task=""
            ),
            HOLD,
        )[0]
        for tick in range(num_ticks)
    ]
    return values, policy


def test_without_delay_every_tick_executes_its_own_first_row():
    values, policy = played(0)

    assert values == [float(tick) for tick in range(9)]
    assert set(policy.prefixes.values()) == {None}


def test_at_one_tick_of_delay_row_one_of_the_last_chunk_is_executed():
    values, policy = played(1)

    # The arm held at first, so the first chunk begins with its first row.
    assert values[:2] == [0.0, 0.0]
    assert values[2:] == pytest.approx([tick - 1 + 0.01 for tick in range(2, 9)])
    # Row 0 of a prefix is what is executed in the tick of the observation.
    assert policy.prefixes[5].num_locked == 1
    assert policy.prefixes[5].actions[0, 0] == values[5]


def test_a_long_delay_uses_each_chunk_until_the_next_one_arrives():
    values, policy = played(3)

    assert values == pytest.approx([0, 0, 0, 0.0, 0.01, 0.02, 3.03, 3.04, 3.05])
    assert sorted(policy.prefixes) == [0, 3, 6]
    assert policy.prefixes[3].actions[:, 0] == pytest.approx(values[3:6])


def episode(**changes):
    values = {
        "scene": "lift",
        "told": "lift",
        "seed": 0,
        "is_success": True,
        "did_other": False,
        "went_wrong": False,
        "ticks": 20,
        "inference_ms": 5.0,
        "slowest_ms": 9.0,
    }
    return BaseEpisode(**(values | changes))


def test_a_summary_counts_swapped_instructions_apart():
    figures = summary(
        [episode(), episode(is_success=False, went_wrong=True), episode(told="button")]
    )

    assert set(figures) == {"lift", "lift_told_button"}
    assert figures["lift"]["success"] == 1
    assert figures["lift"]["wrong_object"] == 1
    assert figures["lift_told_button"]["episodes"] == 1


class ExpertPolicy(CountingPolicy):
    """The scripted expert of a fixed task, whatever it is told."""

    def __init__(self, sim, task):
        super().__init__()
        self._sim, self._task = sim, task

    def infer(self, observation, prefix):
        sim = self._sim
        view = ExpertView(
            tcp=sim.tcp(),
            gripper_width_m=sim.gripper_state().width_m,
            is_gripper_open=sim.is_open_commanded,
            objects=sim.objects(),
        )
        return expert_chunk(self._task.value, view, self.horizon)


def test_doing_the_other_task_is_noticed():
    sim = FastSim()
    obedient = run_episode(
        sim, ExpertPolicy(sim, Task.BUTTON), Task.LIFT, Task.BUTTON, seed=1, delay_ticks=1
    )
    stubborn = run_episode(
        sim, ExpertPolicy(sim, Task.LIFT), Task.LIFT, Task.BUTTON, seed=1, delay_ticks=1
    )
    sim.close()

    assert obedient.is_success
    assert not obedient.went_wrong
    assert not obedient.did_other
    assert not stubborn.is_success
    assert stubborn.went_wrong
    assert stubborn.did_other
