# SPDX-License-Identifier: Apache-2.0
"""Which states a task can begin in, and that a pair of experts leaves each other such states."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.policies.experts import expert_action
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.placing import park_peg
from vla_rl_ros.sim.starts import start_problem
from vla_rl_ros.sim.tasks import TASKS, Task, is_success
from vla_rl_ros.sim.variants import variant


@pytest.fixture(scope="module")
def sim() -> FastSim:
    return FastSim()


def problem(sim: FastSim, task: Task) -> str:
    mujoco.mj_forward(sim.model, sim.data)
    return start_problem(task, sim.data, sim.ids)


def play(sim: FastSim, task: Task, episode: int = 0) -> bool:
    """The expert from wherever the scene is now."""
    for tick in range(round(TASKS[task].time_limit_s / 0.1)):
        view = ExpertView(
            tcp=sim.tcp(),
            gripper_width_m=sim.gripper_state().width_m,
            is_gripper_open=sim.is_open_commanded,
            objects=sim.objects(),
            tick=tick,
            episode=episode,
        )
        sim.step(expert_action(task.value, view))
        if is_success(task, sim.data, sim.ids):
            return True
    return False


@pytest.mark.parametrize("task", list(Task))
def test_every_reset_is_a_start_and_no_success(sim: FastSim, task: Task) -> None:
    for seed in range(8):
        sim.reset(task, seed=seed)
        assert problem(sim, task) == ""
        assert not sim.is_success()


def test_a_done_task_is_no_start(sim: FastSim) -> None:
    for task in (Task.LIFT, Task.BUTTON):
        sim.reset(task, seed=1)
        assert play(sim, task)
        assert problem(sim, task) == f"{task.value} is done already"


def test_what_is_missing_is_said(sim: FastSim) -> None:
    sim.reset(Task.PEG, seed=1)
    assert problem(sim, Task.PEG_OUT) == "peg_out is done already"
    park_peg(sim.model, sim.data, sim.ids)
    assert problem(sim, Task.PEG) == "the peg is not in the hand"
    assert problem(sim, Task.PEG_OUT) == "the peg is not in the hand"
    sim.reset(Task.LIFT, seed=1)
    cube = sim.ids.free_qpos["cube"]
    sim.data.qpos[cube][:] = sim.data.qpos[cube]
    sim.data.qpos[np.arange(sim.model.nq)[cube][2]] = 0.07
    assert problem(sim, Task.LIFT) == "the cube does not lie on the table"
    sim.data.qpos[np.arange(sim.model.nq)[cube][:3]] = (1.0, 0.5, 0.02)
    assert problem(sim, Task.LIFT) == "the cube is out of reach"


@pytest.mark.parametrize("name", ["default", "peg_friction"])
def test_the_peg_goes_in_and_out_again_and_again(name: str) -> None:
    sim = FastSim(variant(name))
    sim.reset(Task.PEG, seed=3)
    ends = []
    for episode in range(4):
        assert problem(sim, Task.PEG) == ""
        assert play(sim, Task.PEG)
        assert problem(sim, Task.PEG_OUT) == ""
        assert play(sim, Task.PEG_OUT, episode)
        ends.append(sim.tcp().position_m[:2])
    # Each time back to another place, so that what follows starts in many.
    assert np.ptp(ends, axis=0).min() > 0.02
