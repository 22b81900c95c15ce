# SPDX-License-Identifier: Apache-2.0
"""One cell of `bench seams`: a mode, an injected delay, a task, and its episodes.

A cell makes its own policy and simulator from the seed, so a row does not depend on which process
computed it or on what was computed before.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.proportions import wilson_interval
from vla_rl_ros.core.seams import quantile
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies import protocol
from vla_rl_ros.policies.protocol import (
    ChunkPolicy,
    PolicyEnvironment,
    PolicySettings,
    make_policy,
)
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import TASKS, task_by_name
from vla_rl_ros.tools.lockstep import LockStep, execute_ticks, make_session, usual_delay
from vla_rl_ros.tools.sim_world import SimWorld

_BLOCK_BYTES = 1 << 20
_VERSION = 2
"""Of what a row means: in rows without one, noise was drawn by chunk and not by tick."""
# Of `pi0`, which is not imported here: it brings torch.
_SHIPPED = Path(protocol.__file__).parent / "checkpoints" / "pi0_nano"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one row of the benchmark is about.

    Attributes:
        policy: Name of the policy.
        path: Where its weights are, empty where it has none or comes with its own.
        weights: What they are, see `weights_hash`: others under the same path give other rows.
        horizon: Elements of a chunk, for policies that leave it open.
        mode: Mode of execution.
        delay_ticks: Usual injected delay.
        task: Task name.
        variant: Named difficulty of the scene.
        episodes: How many.
        seed: Seed of the first layout, of the policy's noise and of the delays.
    """

    policy: str
    path: str
    weights: str
    horizon: int
    mode: str
    delay_ticks: int
    task: str
    variant: str
    episodes: int
    seed: int


def weights_hash(policy: str, path: str) -> str:
    """Hash of the files of a policy's weights, empty for a policy without local ones.

    Args:
        policy: Name of the policy.
        path: File or directory of its weights; empty for those it comes with.
    """
    root = _SHIPPED if policy == "pi0" and not path else Path(path).expanduser()
    if not (path or policy == "pi0") or not root.exists():
        return ""
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if file.is_file():
            digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
            with file.open("rb") as content:
                for block in iter(lambda: content.read(_BLOCK_BYTES), b""):
                    digest.update(block)
    return digest.hexdigest()[:16]


def make_cell_policy(cell: Cell) -> ChunkPolicy:
    """The policy of a cell.

    Raises:
        ConfigError: There is none of this name, or its weights do not load.
    """
    settings = PolicySettings(horizon=cell.horizon, path=cell.path, seed=cell.seed)
    return make_policy(cell.policy, settings, PolicyEnvironment(cameras=CAMERAS))


def run_cell(cell: Cell) -> dict[str, Any]:
    """Run the episodes of a cell.

    Returns:
        Its row: the cell and its figures; the reason instead of them where the policy cannot run
        in this mode at this delay.

    Raises:
        ConfigError: There is no such policy, or its weights do not load.
    """
    policy = make_cell_policy(cell)
    try:
        session = make_session(cell.mode, cell.delay_ticks, policy)
    except ConfigError as error:
        return {"kind": "skipped", **key_of(cell), "reason": str(error)}
    world = SimWorld(policy, cell.variant)
    period_s = world.sim.spec.control_period_s
    period_ns = round(period_s * 1e9)
    runner = LockStep(session, policy, world, period_ns)
    task, limit_s = task_by_name(cell.task), TASKS[task_by_name(cell.task)].time_limit_s
    ticks: list[int] = []
    jerks: list[float] = []
    for episode in range(cell.episodes):
        seed = cell.seed + episode
        first_tick = session.tick
        world.reset(task, seed, first_tick * period_ns)
        rng = np.random.default_rng([cell.seed, episode])
        if runner.run(usual_delay(cell.delay_ticks), rng, round(limit_s / period_s)):
            ticks.append(session.tick - first_tick)
        jerks += jerks_m_per_s3(world.positions_m, period_s).tolist()
    world.close()
    low, high = wilson_interval(len(ticks), cell.episodes)
    figures = {
        "success": len(ticks) / cell.episodes,
        "success_low": low,
        "success_high": high,
        **seam_row(runner, cell.delay_ticks, period_s),
        "jerk_p95_m_per_s3": quantile(jerks, 0.95),
        "episode_s": period_s * float(np.mean(ticks)) if ticks else math.nan,
    }
    row = {
        "kind": "cell",
        **key_of(cell),
        "execute_ticks": execute_ticks(cell.delay_ticks),
        **figures,
    }
    return {name: jsonable(value) for name, value in row.items()}


def key_of(cell: Cell) -> dict[str, Any]:
    """The fields that tell one row from another."""
    return {
        "version": _VERSION,
        "mode": cell.mode,
        "delay_ticks": cell.delay_ticks,
        "task": cell.task,
        "policy": cell.policy,
        "path": cell.path,
        "weights": cell.weights,
        "horizon": cell.horizon,
        "variant": cell.variant,
        "episodes": cell.episodes,
        "seed": cell.seed,
    }


def seam_row(runner: LockStep, delay_ticks: int, period_s: float) -> dict[str, float | None]:
    """Figures of the timing core over everything that was run.

    Args:
        runner: After its episodes.
        delay_ticks: Injected delay. At 0 every observation is one tick newer than the timing core
            knows, see `lockstep`.
        period_s: Control period.
    """
    metrics, requests = runner.session.metrics, runner.session.requests
    summary = metrics.summary()
    unit = quantile(runner.answer_steps, 0.99)
    kinds = {
        "boundary_jump": metrics.jumps,
        "seam_step": metrics.seam_steps,
        "handover_jump": runner.handover_jumps,
    }
    figures: dict[str, float | None] = {}
    for name, values in kinds.items():
        p95, largest = quantile(values, 0.95), quantile(values, 1.0)
        figures |= {f"{name}_ratio": p95 / unit, f"{name}_max_ratio": largest / unit}
        figures |= {f"{name}_p95": p95, f"{name}_max": largest}
    newer_s = period_s if delay_ticks == 0 and not requests.settings.rules.is_waiting else 0.0
    hit_share = requests.num_hits / requests.num_conditioned if requests.num_conditioned else None
    return {
        **figures,
        "chunk_step_p99": unit,
        "ticks": summary["ticks"],
        "underflows": summary["underflows"],
        "late_chunks": summary["late_chunks"],
        # Only a lock promises anything.
        "prefix_mismatch": summary["prefix_mismatch"] if metrics.mismatches else None,
        "observation_age_p50_s": summary["observation_age_p50_s"] - newer_s,
        "observation_age_p99_s": summary["observation_age_p99_s"] - newer_s,
        "delay_hit_share": hit_share,
    }


def jerks_m_per_s3(positions_m: FloatArray, period_s: float) -> FloatArray:
    """Third difference of positions (n, 3) that are one period apart, norms of shape (n - 3,)."""
    jerks: FloatArray = np.linalg.norm(np.diff(positions_m, n=3, axis=0), axis=1) / period_s**3
    return jerks


def jsonable(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """Rounded, with None for what is not a finite number."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None
