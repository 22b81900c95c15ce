# SPDX-License-Identifier: Apache-2.0
"""Layouts, resets on live data, and success of the three tasks."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError, SceneError
from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim import layouts, placing, tasks
from vla_rl_ros.sim.kinematics import place_arm
from vla_rl_ros.sim.layouts import Layout
from vla_rl_ros.sim.scene import PEG_IN_HAND_M, PEG_PARKING_M, WALL_PARKING_M, compile_model
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import object_poses, tcp_pose
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.sim.variants import SceneConfig, variant

CONFIG = SceneConfig()


@dataclasses.dataclass
class Scene:
    model: mujoco.MjModel
    data: mujoco.MjData
    ids: SceneIds

    def apply(self, layout: Layout) -> None:
        place_arm(self.model, self.data, self.ids, layout.start)
        placing.apply_layout(self.model, self.data, self.ids, layout)

    def objects(self) -> dict[str, Pose]:
        return object_poses(self.data, self.ids)

    def is_success(self, task: Task) -> bool:
        mujoco.mj_forward(self.model, self.data)
        return tasks.is_success(task, self.data, self.ids)


@pytest.fixture(scope="module")
def compiled() -> tuple[mujoco.MjModel, SceneIds]:
    return compile_model(CONFIG)


@pytest.fixture
def cell(compiled: tuple[mujoco.MjModel, SceneIds]) -> Scene:
    return Scene(compiled[0], mujoco.MjData(compiled[0]), compiled[1])


def draw(task: Task, seed: int, config: SceneConfig = CONFIG) -> Layout:
    return layouts.sample_layout(task, config, np.random.default_rng(seed))


def positions(layout: Layout) -> np.ndarray:
    return np.array([layout.cube.position_m[:2], layout.button_xy_m, layout.hole_xy_m])


def test_every_task_has_an_instruction_and_is_found_by_name() -> None:
    assert {task.value for task in Task} == {"lift", "peg", "button", "peg_out"}
    assert all(tasks.task_by_name(task.value) is task for task in Task)
    assert all(spec.instruction and spec.time_limit_s > 0.0 for spec in tasks.TASKS.values())
    with pytest.raises(ConfigError, match=r"'drawer'.*lift, peg, button"):
        tasks.task_by_name("drawer")


def test_a_seed_gives_one_layout() -> None:
    for task in Task:
        a, b, c = draw(task, 7), draw(task, 7), draw(task, 8)
        assert np.array_equal(positions(a), positions(b))
        assert np.array_equal(a.start.position_m, b.start.position_m)
        assert not np.array_equal(positions(a), positions(c))


def test_lift_and_button_share_their_scenes_so_that_the_instruction_decides() -> None:
    lift, button = draw(Task.LIFT, 3), draw(Task.BUTTON, 3)
    assert np.array_equal(positions(lift), positions(button))
    assert np.array_equal(lift.start.position_m, button.start.position_m)
    assert np.array_equal(lift.cube.quat_xyzw, button.cube.quat_xyzw)


def test_objects_stay_apart_and_on_the_table() -> None:
    for seed in range(200):
        places = positions(draw(Task.PEG, seed))
        gaps = np.linalg.norm(places - places[[1, 2, 0]], axis=1)
        assert gaps.min() >= 0.12
        assert np.all(np.abs(places - [0.5, 0.0]) <= CONFIG.object_spread_m)


def test_the_arm_starts_near_home_or_with_the_peg_above_the_hole() -> None:
    for seed in range(50):
        lift, peg = draw(Task.LIFT, seed), draw(Task.PEG, seed)
        assert np.all(np.abs(lift.start.position_m - layouts.HOME_POSITION_M) <= 0.05)
        assert np.all(np.abs(peg.start.position_m[:2] - peg.hole_xy_m) <= 0.05)
        assert 0.15 <= peg.start.position_m[2] <= 0.21
        assert (lift.gripper_width_m, peg.gripper_width_m) == (0.08, 0.0)


def test_a_spread_without_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_MIN_DISTANCE_M", 0.5)
    monkeypatch.setattr(layouts, "_MAX_DRAWS", 10)
    with pytest.raises(SceneError, match="object_spread_m"):
        draw(Task.LIFT, 0)


def test_a_layout_puts_every_object_where_it_says(cell: Scene) -> None:
    layout = draw(Task.LIFT, 1)
    cell.apply(layout)
    found = cell.objects()
    assert found["cube"].position_m == pytest.approx(layout.cube.position_m)
    assert found["cube"].quat_xyzw == pytest.approx(layout.cube.quat_xyzw)
    assert found["button"].position_m == pytest.approx(np.append(layout.button_xy_m, 0.05))
    assert found["hole"].position_m == pytest.approx(np.append(layout.hole_xy_m, 0.04))
    assert found["peg"].position_m == pytest.approx(np.array(PEG_PARKING_M))


def test_the_peg_comes_into_the_hand_where_the_hand_is(cell: Scene) -> None:
    layout = draw(Task.PEG, 2)
    cell.apply(layout)
    peg, start = cell.objects()["peg"], layout.start
    assert peg.position_m == pytest.approx(start.position_m - [0, 0, PEG_IN_HAND_M], abs=1e-6)
    assert np.abs(peg.quat_xyzw @ start.quat_xyzw) == pytest.approx(1.0)
    assert cell.data.qpos[cell.ids.finger_qpos].sum() == pytest.approx(0.02)
    assert cell.data.eq_active[cell.ids.peg_weld]
    cell.apply(draw(Task.LIFT, 2))
    assert not cell.data.eq_active[cell.ids.peg_weld]
    assert cell.model.jnt_range[cell.ids.finger_joints[0], 0] == 0.0


def test_the_welded_peg_follows_the_hand_and_does_not_load_it(cell: Scene) -> None:
    cell.apply(draw(Task.PEG, 2))
    arm = cell.ids.arm_dof
    for _ in range(100):
        cell.data.qfrc_applied[arm] = cell.data.qfrc_bias[arm]
        cell.data.qfrc_applied[arm.start] += 3.0
        mujoco.mj_step(cell.model, cell.data)
    tcp = tcp_pose(cell.data, cell.ids)
    offset = np.linalg.norm(cell.objects()["peg"].position_m - tcp.position_m)
    assert np.linalg.norm(cell.data.qvel[arm]) > 0.01
    assert offset == pytest.approx(PEG_IN_HAND_M, abs=1e-3)
    assert cell.model.body_gravcomp[cell.ids.bodies["peg"]] == 1.0


def test_a_peg_held_by_friction_has_weight_only_in_the_hand() -> None:
    config = variant("peg_friction")
    model, ids = compile_model(config)
    cell = Scene(model, mujoco.MjData(model), ids)
    cell.apply(draw(Task.PEG, 0, config))
    assert model.body_gravcomp[ids.bodies["peg"]] == 0.0
    cell.apply(draw(Task.BUTTON, 0, config))
    assert model.body_gravcomp[ids.bodies["peg"]] == 1.0


def test_a_reset_leaves_no_trace_of_what_was_before(cell: Scene) -> None:
    layout = draw(Task.LIFT, 5)
    cell.apply(layout)
    for _ in range(50):
        mujoco.mj_step(cell.model, cell.data)
    cell.data.qvel[:] = 0.0
    cell.data.qfrc_applied[:] = 0.0
    cell.apply(layout)
    fresh = Scene(cell.model, mujoco.MjData(cell.model), cell.ids)
    fresh.data.qpos[cell.ids.finger_qpos] = cell.data.qpos[cell.ids.finger_qpos]
    fresh.apply(layout)
    for _ in range(50):
        mujoco.mj_step(cell.model, cell.data)
        mujoco.mj_step(fresh.model, fresh.data)
    assert np.array_equal(cell.data.qpos, fresh.data.qpos)
    assert np.array_equal(cell.data.qvel, fresh.data.qvel)


def test_lift_succeeds_above_ten_centimetres(cell: Scene) -> None:
    cell.apply(draw(Task.LIFT, 0))
    height = cell.ids.free_qpos["cube"].start + 2
    cell.data.qpos[height] = 0.099
    assert not cell.is_success(Task.LIFT)
    cell.data.qpos[height] = 0.101
    assert cell.is_success(Task.LIFT)


def test_button_succeeds_when_pressed_seven_millimetres(cell: Scene) -> None:
    cell.apply(draw(Task.BUTTON, 0))
    assert not cell.is_success(Task.BUTTON)
    cell.data.qpos[cell.ids.button_qpos] = -0.0075
    assert cell.is_success(Task.BUTTON)
    assert cell.objects()["button"].position_m[2] == pytest.approx(0.0425)


@pytest.mark.parametrize(
    ("sideways_m", "depth_m", "expected"),
    [(0.0, 0.021, True), (0.0, 0.019, False), (0.08, 0.03, False)],
)
def test_peg_succeeds_twenty_millimetres_deep_in_the_hole_only(
    cell: Scene, sideways_m: float, depth_m: float, expected: bool
) -> None:
    layout = draw(Task.PEG, 0)
    cell.apply(layout)
    x, y = layout.hole_xy_m
    where = cell.ids.free_qpos["peg"]
    # Upside down, as the hand holds it: the tip is at the peg's +z end.
    cell.data.qpos[where] = [x + sideways_m, y, 0.075 - depth_m, 0.0, 1.0, 0.0, 0.0]
    assert cell.is_success(Task.PEG) is expected


def test_the_wall_stands_where_it_is_put_and_goes_away(cell: Scene) -> None:
    cell.apply(draw(Task.LIFT, 0))
    placing.place_wall(cell.model, cell.data, cell.ids, np.array([0.6, 0.0, 0.25]))
    wall = cell.ids.bodies["wall"]
    assert cell.data.xpos[wall] == pytest.approx(np.array([0.62, 0.0, 0.25]))
    placing.park_wall(cell.model, cell.data, cell.ids)
    assert cell.data.xpos[wall] == pytest.approx(np.array(WALL_PARKING_M))


def test_a_pose_out_of_reach_is_refused(cell: Scene) -> None:
    with pytest.raises(SceneError, match="no joint angles"):
        place_arm(
            cell.model,
            cell.data,
            cell.ids,
            Pose(np.array([2.0, 0.0, 0.2]), np.array([1.0, 0, 0, 0])),
        )
