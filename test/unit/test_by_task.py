# SPDX-License-Identifier: Apache-2.0
"""One policy of two: the task decides who answers."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.by_task import ByTaskPolicy
from vla_rl_ros.policies.protocol import PolicyObservation, featured


class Half:
    """A policy that answers with its number."""

    def __init__(self, number: float, *, anchor: Anchor = Anchor.MEASURED, width: int = 0) -> None:
        self.number, self.anchor, self.feature_dim = number, anchor, width
        self.horizon, self.cameras, self.needs_objects = 4, ("wrist",), False
        self.conditionings = frozenset({Conditioning.NONE, Conditioning.LOCK})
        self.max_locked, self.tower_hash, self.num_resets = round(number), "tower", 0

    def infer(self, observation: PolicyObservation, prefix: object) -> np.ndarray:
        return np.full((4, 7), self.number)

    def reset(self) -> None:
        self.num_resets += 1

    def features(self) -> np.ndarray:
        return np.ones(self.feature_dim, np.float32)


def see(task: str) -> PolicyObservation:
    return PolicyObservation(
        stamp_ns=0, images={}, state=np.zeros(20), instruction="", task=task, objects={}
    )


def test_the_task_decides_and_features_are_those_of_the_weights() -> None:
    learned, script = Half(3.0, width=5), Half(2.0)
    policy = ByTaskPolicy(learned, script, frozenset({"peg_out"}))
    assert policy.needs_objects
    assert policy.cameras == ("wrist",)
    assert policy.max_locked == 2
    assert featured(policy) is policy
    assert not policy.features().any()
    assert policy.infer(see("peg"), None)[0, 0] == 3.0
    assert policy.features().all()
    assert policy.infer(see("peg_out"), None)[0, 0] == 2.0
    assert not policy.features().any()
    assert policy.features().shape == (5,)
    policy.reset()
    assert (learned.num_resets, script.num_resets) == (1, 1)


def test_without_features_it_has_none() -> None:
    policy = ByTaskPolicy(Half(1.0), Half(2.0), frozenset({"peg_out"}))
    assert featured(policy) is None


def test_halves_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="anchored at last_target"):
        ByTaskPolicy(Half(1.0, anchor=Anchor.LAST_TARGET), Half(2.0), frozenset())
