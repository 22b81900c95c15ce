# SPDX-License-Identifier: Apache-2.0
"""The stand-in operator: shows tasks, helps a policy that is stuck, and lets go again."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop import Teleop
from vla_rl_ros.core.teleop_axes import axes_of
from vla_rl_ros.core.teleop_config import TeleopConfig
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.operator import Person, PersonSettings
from vla_rl_ros.sim.sight import Sight, remaining_m
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.tools.stand_in import expert_skill

SPEC, CONFIG = ActionSpec(), TeleopConfig()
PERIOD_S = SPEC.control_period_s
REST = np.zeros(6)


@pytest.fixture(scope="module")
def sim():
    made = FastSim()
    yield made
    made.close()


def play(sim: FastSim, task: Task, seed: int, person: Person, *, policy=None, limit_s: float):
    """One episode; a policy acts where the person does not. Returns success and who drove."""
    sim.reset(task, seed=seed)
    person.begin(task.value)
    teleop = Teleop(CONFIG, SPEC)
    is_open, drivers = sim.is_open_commanded, ""
    for tick in range(round(limit_s / PERIOD_S)):
        now_s = tick * PERIOD_S
        person.see(
            Sight(
                time_s=now_s,
                tcp=sim.tcp(),
                width_m=sim.gripper_state().width_m,
                objects=sim.objects(),
            )
        )
        push = person.act(now_s, PERIOD_S)
        axes = axes_of(push.increment, CONFIG, SPEC) + push.tremor
        teleop.update(axes.tolist(), [int(push.is_pressing), 0, 0, 0, 0], now_s)
        command = teleop.command(now_s)
        if teleop.presses.take("gripper"):
            is_open = not is_open
        action = np.append(command.increment, float(is_open))
        if not command.is_driving and policy is not None:
            action = policy(tick)
            is_open = bool(action[6] > 0.5)
        drivers += "h" if command.is_driving else "p"
        if sim.step(action):
            return True, drivers
    return False, drivers


def person(**changes: object) -> Person:
    always = bool(changes.pop("always", False))
    return Person(
        skill=expert_skill,
        rng=np.random.default_rng(3),
        settings=PersonSettings(**changes),
        always=always,
    )


@pytest.mark.parametrize("task", [Task.LIFT, Task.PEG, Task.BUTTON])
def test_he_shows_every_task_although_he_sees_late_and_trembles(sim, task) -> None:
    shown = [play(sim, task, seed, person(always=True), limit_s=30.0) for seed in range(4)]
    assert [is_success for is_success, _ in shown].count(True) >= 3
    assert all(set(drivers[4:]) == {"h"} for _, drivers in shown)


@pytest.mark.parametrize("task", [Task.LIFT, Task.PEG, Task.BUTTON])
def test_he_brings_what_is_stuck_to_its_end_within_the_time_of_an_episode(sim, task) -> None:
    def frozen(_tick: int) -> np.ndarray:
        return np.array([0, 0, 0, 0, 0, 0, float(sim.is_open_commanded)])

    someone = person()
    is_success, drivers = play(sim, task, 1, someone, policy=frozen, limit_s=15.0)
    assert is_success
    assert someone.num_helped >= 1
    # He waits, helps, and does not keep the arm.
    assert drivers.startswith("p" * 20)
    assert "h" in drivers


def test_he_stops_a_policy_that_runs_away(sim) -> None:
    def away(_tick: int) -> np.ndarray:
        return np.array([-0.012, 0, 0.005, 0, 0, 0, 0.0])

    someone = person(patience_s=60.0)
    play(sim, Task.BUTTON, 2, someone, policy=away, limit_s=4.0)
    assert someone.num_helped >= 1


def test_he_leaves_alone_what_goes_well(sim) -> None:
    someone = person()
    expert = person(always=True, reaction_s=0.0, tremor=0.0)
    sim.reset(Task.BUTTON, seed=5)
    expert.begin("button")

    def good(_tick: int) -> np.ndarray:
        sight = Sight(
            time_s=0.0, tcp=sim.tcp(), width_m=sim.gripper_state().width_m, objects=sim.objects()
        )
        return expert_skill("button", sight, False, 0)

    is_success, drivers = play(sim, Task.BUTTON, 5, someone, policy=good, limit_s=15.0)
    assert is_success
    assert set(drivers) == {"p"}


def test_nothing_is_known_before_the_reaction_time() -> None:
    someone = person(always=True, reaction_s=0.5)
    someone.begin("button")
    sight = Sight(
        time_s=0.0,
        tcp=Pose(np.array([0.5, 0, 0.3]), np.array([1.0, 0, 0, 0])),
        width_m=0.0,
        objects={"button": Pose(np.array([0.5, 0.1, 0.05]), np.array([0, 0, 0, 1.0]))},
    )
    someone.see(sight)
    assert not someone.act(0.4, PERIOD_S).increment.any()
    assert someone.act(0.6, PERIOD_S).increment.any()
    assert remaining_m("button", sight) == pytest.approx(np.hypot(0.1, 0.25), abs=1e-6)


def test_the_way_of_a_peg_grows_shorter_from_high_above_to_the_bottom():
    hole = Pose(np.array([0.5, 0.1, 0.05]), np.array([0.0, 0.0, 0.0, 1.0]))

    def left_m(x_m: float, height_m: float) -> float:
        # The peg's own z axis points along the hand's, down.
        peg = Pose(np.array([0.5 + x_m, 0.1, 0.085 + height_m]), np.array([1.0, 0.0, 0.0, 0.0]))
        seen = Sight(time_s=0.0, tcp=peg, width_m=0.02, objects={"peg": peg, "hole": hole})
        return remaining_m("peg", seen)

    way = [(0.10, 0.10), (0.02, 0.10), (0.007, 0.10), (0.005, 0.10), (0.005, 0.03), (0.001, 0.0),
           (0.0, -0.01), (0.0, -0.02)]  # fmt: skip
    found = [left_m(*at) for at in way]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.0, abs=1e-9)
