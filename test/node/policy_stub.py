# SPDX-License-Identifier: Apache-2.0
"""A policy whose moods a test can set; registered as a back end under the name of this module."""

from __future__ import annotations

import threading

import numpy as np

from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings


class PolicyStub:
    """Answers with chunks whose first channel is the number of the call in 0.1 mm."""

    newest: PolicyStub
    needs_objects = False

    def __init__(self, horizon: int, cameras: tuple[str, ...]) -> None:
        self.horizon = horizon
        self.cameras = cameras
        self.anchor = Anchor.MEASURED
        self.conditionings = frozenset({Conditioning.NONE, Conditioning.LOCK})
        self.max_locked = horizon
        self.seen: list[PolicyObservation] = []
        self.prefixes: list[Prefix | None] = []
        self.num_resets = 0
        self.first_of_episode = 0
        self.error: Exception | None = None
        self.wrong_shape = False
        self.gripper = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        PolicyStub.newest = self

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        self.seen.append(observation)
        self.prefixes.append(prefix)
        number = len(self.seen)
        self.may_answer.wait(10.0)
        if self.error is not None:
            raise self.error
        actions = np.zeros((self.horizon + self.wrong_shape, 7))
        actions[:, 0], actions[:, 6] = 1e-4 * number, self.gripper
        return actions

    def reset(self) -> None:
        self.num_resets += 1
        self.first_of_episode = len(self.seen)


def make(settings: PolicySettings, environment: PolicyEnvironment) -> PolicyStub:
    return PolicyStub(settings.horizon, environment.cameras)
