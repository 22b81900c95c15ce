# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench experts`: scripted experts in the fast simulator, and how fast that is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.expert_chunks import expert_chunk
from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import TASKS, Task
from vla_rl_ros.sim.variants import variant


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertEpisode:
    """One episode of an expert.

    Attributes:
        task: Task name.
        seed: Seed of the layout.
        delay_ticks: Age of the chunk whose element is executed.
        is_success: Whether the task was done in time.
        ticks: Control ticks it took.
        real_time_factor: Simulated over wall time of the simulator alone.
    """

    task: str
    seed: int
    delay_ticks: int
    is_success: bool
    ticks: int
    real_time_factor: float


def run_episode(sim: FastSim, task: Task, seed: int, delay_ticks: int) -> ExpertEpisode:
    """Run one episode, executing element `delay_ticks` of the newest chunk at every tick.

    Args:
        sim: The simulator.
        task: What to do.
        seed: Seed of the layout.
        delay_ticks: 0 executes an action at once, 1 as the graph does with a fast policy.
    """
    sim.reset(task, seed=seed)
    period_s, busy_s = sim.spec.control_period_s, 0.0
    chunk: FloatArray | None = None
    num_ticks = round(TASKS[task].time_limit_s / period_s)
    is_success = False
    for tick in range(num_ticks):
        view = ExpertView(
            tcp=sim.tcp(),
            gripper_width_m=sim.gripper_state().width_m,
            is_gripper_open=sim.is_open_commanded,
            objects=sim.objects(),
            tick=tick,
        )
        newer = expert_chunk(task.value, view, 2 * delay_ticks + 1)
        action = newer[0] if chunk is None else chunk[delay_ticks]
        chunk = newer if delay_ticks else None
        begin_s = time.perf_counter()
        is_success = sim.step(action)
        busy_s += time.perf_counter() - begin_s
        if is_success:
            break
    ticks = tick + 1
    return ExpertEpisode(
        task=task.value,
        seed=seed,
        delay_ticks=delay_ticks,
        is_success=is_success,
        ticks=ticks,
        real_time_factor=ticks * period_s / busy_s,
    )


def measure(
    variant_name: str, episodes: int, seed: int
) -> tuple[list[ExpertEpisode], dict[str, Any]]:
    """Run `episodes` of each task at delay 0 and 1 with a progress bar.

    Returns:
        The episodes, and per task the success rates and the median speed.
    """
    from statistics import median

    from tqdm import tqdm

    rows: list[ExpertEpisode] = []
    sim = FastSim(variant(variant_name))
    cases = [(task, delay, seed + i) for task in Task for delay in (0, 1) for i in range(episodes)]
    for task, delay, each_seed in tqdm(cases, desc="bench experts", unit="episode"):
        rows.append(run_episode(sim, task, each_seed, delay))
    sim.close()
    success = {
        f"{task.value}_delay_{delay}": sum(
            row.is_success for row in rows if (row.task, row.delay_ticks) == (task.value, delay)
        )
        for task in Task
        for delay in (0, 1)
    }
    speeds = [row.real_time_factor for row in rows]
    return rows, {
        "variant": variant_name,
        "episodes": episodes,
        "success": success,
        "real_time_factor_median": round(median(speeds), 1),
        "real_time_factor_min": round(min(speeds), 1),
    }
