# SPDX-License-Identifier: Apache-2.0
"""The scripted experts behind the policy protocol."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import Pose
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
UP = np.array([0.0, 0.0, 0.0, 1.0])
OBJECTS = {
    "cube": Pose(np.array([0.5, 0.0, 0.02]), UP),
    "button": Pose(np.array([0.5, 0.1, 0.05]), UP),
    "hole": Pose(np.array([0.5, -0.1, 0.04]), UP),
    "peg": Pose(np.array([0.5, 0.0, 0.3]), DOWN),
}


def observation(task: str = "lift", *, width_m: float = 0.08, **changes: object):
    state = np.zeros(20)
    state[:3], state[3:7], state[19] = [0.5, 0.0, 0.3], DOWN, width_m
    values = {
        "stamp_ns": 1_700_000_000_000_000_000,
        "images": {},
        "state": state,
        "instruction": "",
        "task": task,
        "objects": OBJECTS,
        **changes,
    }
    return PolicyObservation(**values)


@pytest.fixture
def policy():
    return make_policy("scripted", PolicySettings(horizon=8), PolicyEnvironment())


@pytest.mark.parametrize("task", ["lift", "peg", "button"])
def test_every_task_has_a_chunk_that_moves(policy, task: str) -> None:
    actions = policy.infer(observation(task), None)
    assert actions.shape == (policy.horizon, 7)
    assert np.isfinite(actions).all()
    assert np.linalg.norm(actions[:, :3]) > 0.0


def test_what_is_being_executed_is_repeated_exactly(policy) -> None:
    rows = np.full((3, 7), 0.003)
    prefix = Prefix(actions=rows, num_locked=3, conditioning=Conditioning.LOCK)
    assert np.array_equal(policy.infer(observation(), prefix)[0], rows[0])


def test_it_needs_objects_and_a_known_task(policy) -> None:
    assert policy.needs_objects
    assert policy.cameras == ()
    with pytest.raises(InvalidCommandError, match="missing_objects"):
        policy.infer(observation(objects=None), None)
    with pytest.raises(ConfigError, match="'fly'"):
        policy.infer(observation("fly"), None)


def test_the_last_gripper_command_decides_whether_fingers_on_a_cube_hold_it(policy) -> None:
    around = {**OBJECTS, "cube": Pose(np.array([0.5, 0.0, 0.3]), UP)}
    held = observation(width_m=0.039, objects=around, last_action=np.zeros(7))
    assert policy.infer(held, None)[0, 6] == 0.0
    policy.reset()
    opened = observation(width_m=0.039, objects=around, last_action=np.ones(7))
    assert policy.infer(opened, None)[0, 6] == 1.0


def test_without_a_command_the_width_shows_how_the_reset_left_the_hand(policy) -> None:
    around = {**OBJECTS, "cube": Pose(np.array([0.5, 0.0, 0.3]), UP)}
    assert policy.infer(observation(width_m=0.039, objects=around), None)[0, 6] == 0.0
