# SPDX-License-Identifier: Apache-2.0
"""Pose codecs under the timing core: the arm gets to the predicted pose in spite of delay."""

from __future__ import annotations

import numpy as np
import pytest
from unit.test_action_codec import MEASURED, observation

from vla_rl_ros.core.async_plan import AsyncSession
from vla_rl_ros.core.geometry import offset_pose, pose_increment
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.action_codec import ActionCodec
from vla_rl_ros.policies.manifest import ActionSection

HORIZON = 16
GOAL = offset_pose(MEASURED, np.array([0.01, -0.02, 0.015]), np.array([0.05, 0.1, -0.05]))


@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("can_lock", [True, False])
@pytest.mark.parametrize("codec_name", ["absolute", "relative", "joint"])
def test_a_pose_that_is_asked_for_is_reached(codec_name: str, can_lock: bool, delay: int) -> None:
    codec = ActionCodec(ActionSection(codec=codec_name))
    known = {Conditioning.NONE} | ({Conditioning.LOCK} if can_lock else set())
    traits = PolicyTraits(
        horizon=HORIZON, conditionings=frozenset(known), max_locked=8 if can_lock else 0
    )
    settings = AsyncSettings(mode="prefix_lock", execute_ticks=5, latency_budget_s=0.4)
    session, target = AsyncSession(settings, traits), MEASURED

    def ask(request, before):
        # The model says "go there" in every row, however its numbers say it.
        seen = observation(MEASURED, before)
        step = np.concatenate([*pose_increment(GOAL, before), [1.0]])
        rows = codec.encode(step[None], seen).repeat(HORIZON, axis=0)
        return codec.decode(rows, seen, request.prefix)

    request = session.first_request()
    session.deliver(request, ask(request, target))
    under_way = []
    for tick in range(40):
        before, step = target, session.on_tick()
        executed = np.zeros(7) if step is None else step.action
        target = offset_pose(before, executed[:3], executed[3:6])
        request = session.executed(executed)
        if request is not None:
            under_way.append((tick + delay, request, ask(request, before)))
        while under_way and under_way[0][0] <= tick:
            _, answered, actions = under_way.pop(0)
            session.deliver(answered, actions)
        if tick == 20:
            # Somebody pushed the arm; the next chunks bring it back.
            target = offset_pose(target, np.array([0.004, 0.003, 0.0]), np.zeros(3))
    assert session.metrics.summary()["underflows"] == 0
    assert np.abs([*pose_increment(target, GOAL)]).max() < 1e-9
