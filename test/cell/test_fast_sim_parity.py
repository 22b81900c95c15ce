# SPDX-License-Identifier: Apache-2.0
"""The fast simulator moves as libfranka does on the simulator behind Franka's protocol."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest
from cell.fci_client import CellProcess, ScratchDir

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import PRESETS
from vla_rl_ros.core.reference import ReferenceInterpolator, ReferenceLimits, clip_to_measured
from vla_rl_ros.core.types import Pose
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import DOWN_XYZW, HOME_POSITION_M, sample_layout
from vla_rl_ros.sim.scene import HOME_Q_RAD
from vla_rl_ros.sim.tasks import Task

pytest.importorskip("franky")
from vla_rl_ros.hardware.franka_arm import FrankaArm

pytestmark = pytest.mark.sim

# Simulated over wall time: slow enough for a Python loop on a busy machine to be a 200 Hz loop.
SLOWED = 0.4
LOOP_HZ = 200.0
RECORD_S = 1.2
SETTINGS = PRESETS["compliant"]
GRID_S = np.arange(0.0, RECORD_S, 0.001)
HOME = Pose(np.array(HOME_POSITION_M), np.array(DOWN_XYZW))


@pytest.fixture(scope="module")
def arm() -> Iterator[FrankaArm]:
    with ScratchDir() as run_dir, CellProcess(run_dir, "--rate", str(SLOWED)) as cell:
        arm = FrankaArm(FrankaConfig(robot_ip=cell.host))
        arm.open()
        yield arm
        arm.close()


def goal(start: Pose, step_m: float, axis: int) -> Pose:
    return offset_pose(start, step_m * np.eye(3)[axis], np.zeros(3))


def record_behind_protocol(arm: FrankaArm, step_m: float, axis: int) -> tuple[np.ndarray, float]:
    """Travel on `GRID_S`, and the longest pause of the loop that fed the reference."""
    arm.move_joints(np.array(HOME_Q_RAD), 0.5)
    arm.start_impedance(SETTINGS)
    start = arm.state().pose
    reference = ReferenceInterpolator(start)
    reference.set_target(goal(start, step_m, axis), 0.0, 0.1, ReferenceLimits())
    rows: list[tuple[float, float]] = []
    begin_s = time.monotonic()
    while not rows or rows[-1][0] < RECORD_S:
        now_s = SLOWED * (time.monotonic() - begin_s)
        measured = arm.state().pose
        rows.append((now_s, measured.position_m[axis] - start.position_m[axis]))
        pose, twist = reference.sample(now_s)
        arm.set_reference(*clip_to_measured(pose, twist, measured, SETTINGS)[:2])
        time.sleep(1.0 / LOOP_HZ / SLOWED)
    arm.stop()
    time_s, travel_m = np.array(rows).T
    return np.interp(GRID_S, time_s, travel_m), float(np.diff(time_s).max())


def record_in_process(step_m: float, axis: int) -> np.ndarray:
    sim = FastSim(settings=SETTINGS)
    layout = sample_layout(Task.LIFT, sim.config, np.random.default_rng(0))
    sim.reset(Task.LIFT, layout=dataclasses.replace(layout, start=HOME))
    start = sim.tcp()
    sim.move_to(goal(start, step_m, axis), 0.1)
    rows = [(0.0, 0.0)]
    begin_s = sim.time_s
    while rows[-1][0] < RECORD_S:
        sim.advance(0.01)
        travel_m = sim.tcp().position_m[axis] - start.position_m[axis]
        rows.append((sim.time_s - begin_s, travel_m))
    return np.interp(GRID_S, *np.array(rows).T)


def t63_s(travel_m: np.ndarray, step_m: float) -> float:
    return float(GRID_S[np.argmax(travel_m > 0.63 * step_m)])


@pytest.mark.parametrize(("step_m", "axis"), [(0.05, 0), (0.01, 2)])
def test_step_responses_agree_within_ten_percent(arm: FrankaArm, step_m: float, axis: int) -> None:
    expected_m, pause_s = record_behind_protocol(arm, step_m, axis)
    if pause_s > 0.02:
        # The machine was busy: what was recorded is the pause, not the arm.
        expected_m, pause_s = record_behind_protocol(arm, step_m, axis)
    travel_m = record_in_process(step_m, axis)
    assert t63_s(travel_m, step_m) == pytest.approx(t63_s(expected_m, step_m), rel=0.1), pause_s
    overshoots = travel_m.max() / step_m, expected_m.max() / step_m
    assert overshoots[0] == pytest.approx(overshoots[1], abs=0.05)
    assert travel_m[-1] == pytest.approx(expected_m[-1], abs=1e-3)
    assert np.abs(travel_m - expected_m).max() < 0.1 * step_m
