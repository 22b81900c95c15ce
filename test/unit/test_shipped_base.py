# SPDX-License-Identifier: Apache-2.0
"""The base policy that ships with the package."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.core.spec import STATE_DIM
from vla_rl_ros.learning.base_language import WORDINGS
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.pi0.backend import SHIPPED
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)
from vla_rl_ros.sim.tasks import TASKS

CAMERAS = ("wrist", "front")


@pytest.fixture(scope="module")
def policy():
    return make_policy(
        "pi0",
        PolicySettings(device="cpu"),
        PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS),
    )


def test_it_is_small_and_says_how_it_was_made():
    files = [file for file in SHIPPED.iterdir() if file.is_file()]
    training = read_manifest(SHIPPED).training
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")

    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert str(training["command"]) in readme.replace("\\\n    ", "")
    for word in ("Apache-2.0", "seed", "lift", "button", "peg"):
        assert word in readme


@pytest.mark.parametrize("task", list(WORDINGS))
def test_it_answers_every_instruction_it_was_taught(policy, task):
    state = np.zeros(STATE_DIM)
    state[:7] = (0.5, 0.0, 0.25, 1.0, 0.0, 0.0, 0.0)
    state[-1] = 0.08
    image = np.full((128, 128, 3), 127, dtype=np.uint8)
    chunk = policy.infer(
        PolicyObservation(
            stamp_ns=0,
            images=dict.fromkeys(CAMERAS, image),
            state=state,
            instruction=TASKS[task].instruction,
            task=task.value,
        ),
        None,
    )

    assert chunk.shape == (16, 7)
    assert np.isfinite(chunk).all()
    assert np.abs(chunk[:, :3]).max() < 0.05


def test_it_was_trained_to_keep_promises(policy):
    assert policy.max_locked == 8
    assert Conditioning.LOCK in policy.conditionings
    assert policy.anchor is Anchor.MEASURED
