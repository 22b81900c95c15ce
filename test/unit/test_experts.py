# SPDX-License-Identifier: Apache-2.0
"""The scripted experts, as rules and in the fast simulator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.policies.expert_chunks import expert_chunk
from vla_rl_ros.policies.expert_view import ExpertView, rotation_matrix
from vla_rl_ros.policies.experts import EXPERT_TASKS, expert_action
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import TASKS, Task
from vla_rl_ros.sim.variants import variant

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


def objects(**positions_m: tuple[float, float, float]) -> dict[str, Pose]:
    places = {
        "cube": (0.45, 0.1, 0.02),
        "button": (0.55, -0.05, 0.05),
        "hole": (0.5, -0.1, 0.04),
        "peg": (0.5, 0.0, 0.23),
        **positions_m,
    }
    return {
        name: Pose(np.array(place), DOWN if name == "peg" else UPRIGHT)
        for name, place in places.items()
    }


def view(
    tcp_m: tuple[float, float, float] = (0.5, 0.0, 0.25),
    *,
    width_m: float = 0.08,
    is_open: bool = True,
    quat_xyzw: FloatArray = DOWN,
    **positions_m: tuple[float, float, float],
) -> ExpertView:
    return ExpertView(
        tcp=Pose(np.array(tcp_m), quat_xyzw),
        gripper_width_m=width_m,
        is_gripper_open=is_open,
        objects=objects(**positions_m),
    )


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    assert set(EXPERT_TASKS) == {task.value for task in Task}
    with pytest.raises(ConfigError, match="lift, peg, button"):
        expert_action("drawer", view())


def test_rotation_matrices_are_scipys() -> None:
    for rotation in Rotation.random(20, rng=np.random.default_rng(0)):
        assert rotation_matrix(rotation.as_quat()) == pytest.approx(rotation.as_matrix())


@pytest.mark.parametrize("task", EXPERT_TASKS)
def test_actions_stay_within_the_range_of_a_policy(task: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        turn = Rotation.from_rotvec(rng.normal(0, 0.3, 3)) * Rotation.from_quat(DOWN)
        seen = view(
            tuple(rng.uniform((0.3, -0.3, 0.02), (0.7, 0.3, 0.4))),
            width_m=rng.uniform(0.0, 0.08),
            is_open=bool(rng.integers(2)),
            quat_xyzw=turn.as_quat(),
        )
        action = expert_action(task, seen)
        assert np.all(np.abs(ActionSpec().to_normalised(action)) <= 1.0)
        assert np.array_equal(action, expert_action(task, seen))


def test_a_tilted_hand_is_levelled_and_turned_to_the_cube() -> None:
    tilt = Rotation.from_rotvec([0.2, -0.1, 0.3]) * Rotation.from_quat(DOWN)
    action = expert_action("lift", view(quat_xyzw=tilt.as_quat()))
    assert action[3] < 0.0 < action[4]
    assert action[5] < 0.0


def test_lift_waits_above_until_the_fingers_are_open() -> None:
    low = (0.45, 0.1, 0.03)
    assert expert_action("lift", view(low, width_m=0.03))[2] > 0.0
    assert expert_action("lift", view(low, width_m=0.08))[2] <= 0.0


def test_lift_closes_around_the_cube_and_rises_only_once_it_is_held() -> None:
    around = (0.45, 0.1, 0.019)
    closing = expert_action("lift", view(around, width_m=0.08))
    assert closing[6] == 0.0
    assert abs(closing[2]) < 0.002
    half_way = expert_action("lift", view(around, width_m=0.055, is_open=False))
    assert half_way[6] == 0.0
    assert abs(half_way[2]) < 0.002
    held = expert_action("lift", view(around, width_m=0.039, is_open=False))
    assert held[6] == 0.0
    assert held[2] > 0.01


@pytest.mark.parametrize(
    "missed",
    [
        view((0.45, 0.1, 0.019), width_m=0.001, is_open=False),
        view((0.45, 0.1, 0.06), width_m=0.001, is_open=False),
        view((0.43, 0.1, 0.019), width_m=0.039, is_open=False),
    ],
)
def test_lift_opens_again_after_a_miss(missed: ExpertView) -> None:
    action = expert_action("lift", missed)
    assert action[6] == 1.0
    assert action[2] >= 0.0


def test_button_presses_only_above_the_cap_and_keeps_pressing() -> None:
    beside = expert_action("button", view((0.52, -0.05, 0.07), width_m=0.0, is_open=False))
    assert beside[2] > 0.0
    pressed = view((0.55, -0.05, 0.051), width_m=0.0, is_open=False, button=(0.55, -0.05, 0.042))
    assert expert_action("button", pressed)[2] < -0.01


def test_peg_enters_slowly_searches_on_the_rim_and_backs_up_when_tilted_out() -> None:
    def at(x_m: float, tip_height_m: float) -> ExpertView:
        peg_m = (0.5 + x_m, -0.1, 0.04 + tip_height_m + 0.035)
        return view((peg_m[0], peg_m[1], peg_m[2] + 0.02), width_m=0.02, is_open=False, peg=peg_m)

    assert expert_action("peg", at(0.03, 0.02))[2] > 0.0
    near = expert_action("peg", at(0.0, 0.003))
    assert -0.008 < near[2] < -0.004
    on_rim = at(0.003, 0.0)
    searches = [
        expert_action("peg", dataclasses.replace(on_rim, tick=tick))[:2] for tick in range(40)
    ]
    assert np.ptp(searches, axis=0).min() > 0.002
    assert expert_action("peg", at(0.0, -0.01))[2] < -0.01
    assert expert_action("peg", at(0.02, -0.01))[2] > 0.01


def test_a_chunk_repeats_its_prefix_and_goes_on_from_there() -> None:
    seen = view()
    prefix = np.tile([0.01, 0.0, -0.01, 0.0, 0.0, 0.0, 1.0], (3, 1))
    chunk = expert_chunk("lift", seen, 8, prefix)
    assert np.array_equal(chunk[:3], prefix)
    free = expert_chunk("lift", seen, 8)
    assert np.array_equal(free[0], expert_action("lift", seen))
    assert not np.array_equal(chunk[3:], free[3:])
    assert np.array_equal(expert_chunk("lift", seen, 2, prefix), prefix[:2])


@pytest.mark.parametrize("task", EXPERT_TASKS)
def test_a_long_chunk_leads_to_the_goal_on_its_own_prediction(task: str) -> None:
    chunk = expert_chunk(task, view(width_m=0.08 if task == "lift" else 0.02), 60)
    assert np.isfinite(chunk).all()
    if task == "lift":
        grips = chunk[:, 6]
        assert grips[0] == 1.0
        assert grips[-1] == 0.0
        assert chunk[-1, 2] > chunk[5, 2]


def run_episode(sim: FastSim, task: Task, seed: int, delay: int, *, is_locked: bool) -> bool:
    """Execute element `delay` of the newest chunk at every tick, as with slow inference."""
    sim.reset(task, seed=seed)
    chunk = None
    for tick in range(round(TASKS[task].time_limit_s / 0.1)):
        seen = ExpertView(
            tcp=sim.tcp(),
            gripper_width_m=sim.gripper_state().width_m,
            is_gripper_open=sim.is_open_commanded,
            objects=sim.objects(),
            tick=tick,
        )
        promised = None if chunk is None or not is_locked else chunk[delay : 2 * delay]
        newer = expert_chunk(task.value, seen, 2 * delay + 1, promised)
        action = newer[0] if chunk is None or delay == 0 else chunk[delay]
        chunk = newer
        if sim.step(action):
            return True
    return False


@pytest.fixture(scope="module")
def sim() -> FastSim:
    return FastSim()


@pytest.mark.parametrize(("delay", "is_locked"), [(0, False), (1, False), (1, True)])
@pytest.mark.parametrize("task", list(Task))
def test_experts_solve_their_tasks_at_once_and_a_tick_late(
    sim: FastSim, task: Task, delay: int, is_locked: bool
) -> None:
    assert all(run_episode(sim, task, seed, delay, is_locked=is_locked) for seed in range(6))


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("peg_tight", Task.PEG),
        ("peg_friction", Task.PEG),
        ("friction_full", Task.PEG),
        ("friction_full", Task.LIFT),
    ],
)
def test_experts_solve_hard_variants(name: str, task: Task) -> None:
    sim = FastSim(variant(name))
    assert all(run_episode(sim, task, seed, 0, is_locked=False) for seed in range(4))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("task", "least"), [(Task.LIFT, 98), (Task.PEG, 95), (Task.BUTTON, 98)])
def test_experts_solve_a_hundred_episodes(sim: FastSim, task: Task, least: int) -> None:
    for delay in (0, 1):
        solved = [run_episode(sim, task, seed, delay, is_locked=False) for seed in range(100)]
        assert sum(solved) >= least
