# SPDX-License-Identifier: Apache-2.0
"""One learner in a process of its own, timed: ours, Stable-Baselines3 or SBX.

Child of `bench learner`. All do the same work: SAC, two hidden layers of 256, batch 256, one actor
and temperature step per critic step, replay sampling inside the timed loop. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ACTION_DIM = 4
BATCH_SIZE = 256
REPLAY_ROWS = 20_000
UPDATES_PER_CALL = 20
HIDDEN = (256, 256)
PEERS = {"sb3": "stable_baselines3", "sbx": "sbx"}
SYSTEMS = ("ours", *PEERS)

Call = Callable[[], None]


def make_ours(num_critics: int, obs_dim: int, execution: str, directory: Path) -> Call:
    """Our learner on a replay on disk."""
    from vla_rl_ros.learning.fused_step import tune_cpu
    from vla_rl_ros.learning.learner import ResidualLearner
    from vla_rl_ros.learning.presets import LearnerConfig

    tune_cpu()
    config = LearnerConfig(
        algorithm="sac", hidden=HIDDEN, num_critics=num_critics, num_target_critics=2,
        actor_every=1, actor_lr=3e-4, tau=0.005, n_step=1, backup_entropy=True, actor_q="min",
        batch_size=BATCH_SIZE,
    )  # fmt: skip
    learner = ResidualLearner(config, obs_dim, ACTION_DIM, seed=0, execution=execution)
    replay = filled_replay(directory, obs_dim)
    rng = np.random.default_rng(0)

    def call() -> None:
        for _ in range(UPDATES_PER_CALL):
            learner.update(replay.sample(BATCH_SIZE, rng))

    return call


def filled_replay(directory: Path, obs_dim: int) -> Any:  # noqa: ANN401 - imported where needed
    """Replay of random episodes."""
    from vla_rl_ros.learning.replay import Replay
    from vla_rl_ros.learning.rows import END, TRUNCATED, RowLayout

    layout, rng = RowLayout(obs_dim=obs_dim, action_dim=ACTION_DIM), np.random.default_rng(0)
    replay = Replay(directory, layout, n_step=1, gamma=0.99)
    length = 200
    for episode in range(REPLAY_ROWS // length):
        rows = np.zeros(length + 1, layout.dtype)
        rows["obs"] = rng.standard_normal((length + 1, obs_dim))
        rows["base"] = np.tanh(rng.standard_normal((length + 1, ACTION_DIM)))
        rows["executed"] = np.tanh(rng.standard_normal((length + 1, ACTION_DIM)))
        rows["rewards"] = rng.standard_normal((length + 1, 1))
        rows["tick"], rows["episode"] = np.arange(length + 1), episode
        rows["flags"][-2] = TRUNCATED
        rows["flags"][-1] = END
        replay.append(rows)
    return replay


def make_peer(name: str, num_critics: int, obs_dim: int) -> Call:
    """Stable-Baselines3 or SBX as they come; SBX with LayerNorm in the critic, as ours has."""
    import gymnasium

    space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
    actions = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    class Still(gymnasium.Env[Any, Any]):
        """Never stepped; only its spaces count."""

        observation_space, action_space = space, actions

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            return space.sample(), {}

    policy: dict[str, Any] = {"net_arch": list(HIDDEN), "n_critics": num_critics}
    if name == "sb3":
        import torch

        torch.set_num_threads(1)
        extra: dict[str, Any] = {"device": "cpu"}
    else:
        policy["layer_norm"], extra = True, {}
    # By name: they are not part of any set-up of ours.
    model = importlib.import_module(PEERS[name]).SAC(
        "MlpPolicy", Still(), buffer_size=REPLAY_ROWS, batch_size=BATCH_SIZE, learning_starts=0,
        policy_kwargs=policy, seed=0, **extra,
    )  # fmt: skip
    logger = importlib.import_module("stable_baselines3.common.logger")
    model.set_logger(logger.Logger(None, []))
    _fill(model.replay_buffer, np.random.default_rng(0))

    def call() -> None:
        model.train(gradient_steps=UPDATES_PER_CALL, batch_size=BATCH_SIZE)
        if name == "sbx":
            jax = importlib.import_module("jax")
            jax.block_until_ready(model.policy.qf_state.params)

    return call


def _fill(buffer: Any, rng: np.random.Generator) -> None:  # noqa: ANN401 - of a peer
    buffer.observations[:] = rng.standard_normal(buffer.observations.shape)
    buffer.next_observations[:] = rng.standard_normal(buffer.next_observations.shape)
    buffer.actions[:] = np.tanh(rng.standard_normal(buffer.actions.shape))
    buffer.rewards[:] = rng.standard_normal(buffer.rewards.shape)
    buffer.full = True


def measure(call: Call, duration_s: float) -> dict[str, float]:
    """Median updates per second of wall and of processor time, after a warm-up.

    Args:
        call: Does `UPDATES_PER_CALL` updates.
        duration_s: How long to measure.
    """
    begin_s = time.perf_counter()
    call()
    call()
    first_s = time.perf_counter() - begin_s
    wall: list[float] = []
    cpu: list[float] = []
    end_s = time.perf_counter() + duration_s
    while time.perf_counter() < end_s or len(wall) < 3:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        call()
        wall.append(UPDATES_PER_CALL / (time.perf_counter() - wall_s))
        cpu.append(UPDATES_PER_CALL / (time.process_time() - cpu_s))
    return {
        "updates_per_s": round(statistics.median(wall), 2),
        "updates_per_cpu_s": round(statistics.median(cpu), 2),
        "first_call_s": round(first_s, 2),
    }


def main() -> int:
    """Run one system; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--critics", type=int, required=True)
    parser.add_argument("--obs-dim", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--execution", default="compiled")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        if arguments.system == "ours":
            call = make_ours(
                arguments.critics, arguments.obs_dim, arguments.execution, Path(directory)
            )
        else:
            call = make_peer(arguments.system, arguments.critics, arguments.obs_dim)
        print(json.dumps(measure(call, arguments.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
