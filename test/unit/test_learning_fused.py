# SPDX-License-Identifier: Apache-2.0
"""Compiled steps do what eager ones do; what is tuned is measured and taken back if it costs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.fused_step import fused
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig

torch.set_num_threads(1)
OBS, ACTIONS, ROWS = 6, 3, 32


def rows_of(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = {
        "obs": OBS,
        "next_obs": OBS,
        "base": ACTIONS,
        "next_base": ACTIONS,
        "action": ACTIONS,
    }
    rows = {
        key: rng.uniform(-1.0, 1.0, (ROWS, width)).astype(np.float32)
        for key, width in widths.items()
    }
    for key in ("reward", "mc_return"):
        rows[key] = rng.uniform(size=ROWS).astype(np.float32)
    return rows | {
        "discount": np.full(ROWS, 0.95, np.float32), "is_demo": np.zeros(ROWS, np.float32),
        "grasp_penalty": np.zeros(ROWS, np.float32),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)  # Compilers on a busy machine take their time.
@pytest.mark.parametrize(("algorithm", "offline"), [("td3", False), ("sac", True)])
def test_compiled_steps_equal_eager_ones(algorithm: str, offline: bool) -> None:
    config = LearnerConfig(
        algorithm=algorithm, hidden=(32, 32), num_critics=3, actor_every=1, grasp=offline,
        conservative="offline", offline_init="calql", offline_updates=1, num_candidates=2,
        max_grad_norm=1.0, actor_q="min" if algorithm == "sac" else "mean",
    )  # fmt: skip
    learners = [
        ResidualLearner(config, OBS, ACTIONS, seed=0, execution=execution)
        for execution in ("eager", "compiled")
    ]
    for seed in range(4):
        if seed == 2:
            # What may change behind a compiled step.
            learners[1].load_state_dict(learners[0].state_dict())
            for learner in learners:
                learner.xi = 0.07
        eager, compiled = (learner.update(rows_of(seed), offline=offline) for learner in learners)
        assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-4)
    ours, theirs = (learner.nets.state_dict() for learner in learners)
    for name in ("critic", "actor", "temperature", *(["grasp"] if offline else [])):
        torch.testing.assert_close(
            ours[name]["params"], theirs[name]["params"], rtol=1e-3, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_steps_with_other_settings_are_not_taken_for_each_other() -> None:
    def by(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda values: factor * values

    twice, thrice = (fused(by(factor), "compiled") for factor in (2.0, 3.0))
    for size in (4, 6):
        ones = torch.ones(size)
        assert torch.equal(twice(ones), 2.0 * ones)
        assert torch.equal(thrice(ones), 3.0 * ones)


def test_unknown_execution_is_refused() -> None:
    with pytest.raises(ConfigError, match="eager, compiled"):
        fused(lambda: torch.zeros(1), "quickly")
    with pytest.raises(ConfigError, match="eager, compiled"):
        ResidualLearner(LearnerConfig(), OBS, ACTIONS, seed=0, execution="quickly")


def test_steps_record_no_gradients() -> None:
    weight = torch.ones(2, requires_grad=True)
    assert not fused(lambda x: (x * weight).sum(), "eager")(torch.ones(2)).requires_grad


def test_tuning_keeps_float32() -> None:
    # In a process of its own: it changes settings of the whole process.
    program = (
        "import torch\n"
        "from vla_rl_ros.learning.fused_step import tune_cpu\n"
        "found = tune_cpu()\n"
        "a, b = torch.randn(300, 300), torch.randn(300, 300)\n"
        "exact = a.double() @ b.double()\n"
        "error = ((a @ b).double() - exact).norm() / exact.norm()\n"
        "assert float(error) < 2e-6, float(error)\n"
        "assert found.gflops_before > 0 and found.gflops_after > 0\n"
        "assert torch.get_num_threads() == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_compiled_and_eager_states_are_the_same_kind() -> None:
    config = LearnerConfig(hidden=(8,))
    eager = ResidualLearner(config, OBS, ACTIONS, seed=0)
    eager.update(rows_of(0))
    compiled = ResidualLearner(dataclasses.replace(config), OBS, ACTIONS, 1, execution="compiled")
    compiled.load_state_dict(eager.state_dict())
    assert torch.equal(compiled.nets.critic.params, eager.nets.critic.params)
