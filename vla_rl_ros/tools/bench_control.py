# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bench control`: rates, step responses, contact force and reaction to silence.

Everything is measured with the whole graph running on the simulated cell; only the gate's output
is remapped away, because the benchmark itself drives `arm/target_pose`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.impedance import PRESETS
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.ros.target_source import TargetSource
from vla_rl_ros.sim.scene_channel import SceneClient
from vla_rl_ros.tools.step_metrics import step_metrics

CONTROLLER = "impedance_controller"
PERIOD_S = 0.1
SETTLE_S = 0.6
STEP_RECORD_S = 1.5
WALL_DISTANCE_M = 0.03
WALL_PUSH_M = 0.14
WALL_SPEED_M_PER_S = 0.1
REST_M_PER_S = 2e-3
X_AXIS = np.array([1.0, 0.0, 0.0])


@dataclass(slots=True)
class ControlBench:
    """Drives the arm of a running graph and measures it.

    Attributes:
        observer: Joined to the graph.
        scene: Side door of the simulated cell.
        trials: Repetitions of the silence trials.
        rows: Raw rows, one dictionary per sample or trial.
    """

    observer: GraphObserver
    scene: SceneClient
    trials: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    source: TargetSource = field(init=False)

    def __post_init__(self) -> None:
        """Join the target topic."""
        self.source = TargetSource(self.observer)

    def streams(self, duration_s: float) -> dict[str, float]:
        """Rates and latency while the target moves slowly in a circle."""
        self._engage()
        centre = self.source.measured_pose()

        def circle(time_s: float) -> Pose:
            angle = 2.0 * np.pi * time_s / 4.0
            radius_m = 0.02
            offset = radius_m * np.array([0.0, np.sin(angle), 1.0 - np.cos(angle)])
            return offset_pose(centre, offset, np.zeros(3))

        self.source.measured.clear()
        start_ns = self.observer.node.get_clock().now().nanoseconds
        self.source.follow(circle, duration_s, PERIOD_S)
        time_s, _ = self.source.measured.since(start_ns)
        # Diagnostics come once per second: wait for one that covers the stream.
        self.observer.spin(1.1)
        keys = (
            "reference_rate_hz",
            "reference_jitter_p99_ms",
            "target_to_arm_p50_ms",
            "target_to_arm_p99_ms",
        )
        figures = {key: self.observer.number(CONTROLLER, key) for key in keys}
        figures["state_rate_hz"] = (len(time_s) - 1) / float(time_s[-1] - time_s[0])
        self.rows.append({"kind": "streams", **figures})
        return figures

    def step(self, step_m: float) -> dict[str, float]:
        """Response of the measured pose to a step along x, through the message path."""
        self._engage()
        start = self.source.measured_pose()
        self.source.measured.clear()
        step_ns = self.source.send(offset_pose(start, step_m * X_AXIS, np.zeros(3)))
        self.observer.spin(STEP_RECORD_S)
        time_s, position_m = self.source.measured.since(step_ns)
        moved_m = position_m[:, 0] - start.position_m[0]
        name = f"step_{1e3 * step_m:.0f}mm"
        self.rows += [
            {"kind": name, "time_s": float(t), "moved_m": float(x)}
            for t, x in zip(time_s, moved_m, strict=True)
        ]
        return step_metrics(time_s, moved_m, step_m).rounded()

    def wall(self, name: str) -> dict[str, float]:
        """True force on a rigid wall while the target goes 14 cm beyond it."""
        self._engage()
        start = self.source.measured_pose()
        self.scene.request(
            "place_wall",
            x_m=float(start.position_m[0]) + WALL_DISTANCE_M + 0.011,
            y_m=float(start.position_m[1]),
            # Its top just above the fingertips: a taller wall would meet the hand first.
            z_m=float(start.position_m[2]) - 0.22,
        )
        travel_m = WALL_DISTANCE_M + WALL_PUSH_M
        samples: list[tuple[float, float]] = []
        begin_s = time.monotonic()
        peak_n = 0.0
        try:
            duration_s = travel_m / WALL_SPEED_M_PER_S + 1.0
            while (elapsed_s := time.monotonic() - begin_s) < duration_s:
                depth_m = min(travel_m, WALL_SPEED_M_PER_S * elapsed_s)
                self.source.send(self._ahead(start, depth_m))
                self.observer.spin(PERIOD_S)
                answer = self.scene.request("contact_force")
                peak_n = max(peak_n, float(answer["peak_n"]))
                samples.append((elapsed_s, float(np.linalg.norm(answer["force_n"]))))
        finally:
            self.source.send(start)
            self.observer.spin(0.5)
            self.scene.request("remove_wall")
        self.rows += [{"kind": name, "time_s": t, "force_n": f} for t, f in samples]
        steady = [force for elapsed_s, force in samples if elapsed_s > duration_s - 0.6]
        return {"steady_n": float(np.mean(steady)), "peak_n": peak_n}

    def silence(self) -> dict[str, float]:
        """Time from the last target message to the held reference and to the arm at rest."""
        hold_ms, stop_ms = [], []
        for trial in range(self.trials):
            self._engage()
            start = self.source.measured_pose()
            sign = 1.0 if trial % 2 else -1.0
            self._clear()
            self.source.follow(self._ramp(start, sign), 0.5, PERIOD_S)
            last_ns = self.source.fall_silent()
            self.observer.spin(1.1)
            hold_ms.append(1e3 * _last_change_s(*self.source.reference.since(last_ns), 1e-7))
            stop_ms.append(1e3 * _rest_s(*self.source.measured.since(last_ns)))
            self.rows.append({"kind": "silence", "hold_ms": hold_ms[-1], "stop_ms": stop_ms[-1]})
        return {
            "hold_ms_p99": float(np.percentile(hold_ms, 99)),
            "stop_ms_p99": float(np.percentile(stop_ms, 99)),
        }

    @staticmethod
    def _ramp(start: Pose, sign: float) -> Callable[[float], Pose]:
        return lambda time_s: offset_pose(start, sign * 0.1 * time_s * X_AXIS, np.zeros(3))

    @staticmethod
    def _ahead(start: Pose, depth_m: float) -> Pose:
        return offset_pose(start, depth_m * X_AXIS, np.zeros(3))

    def _clear(self) -> None:
        self.source.reference.clear()
        self.source.measured.clear()

    def _engage(self) -> None:
        """Home the arm and hold there with the spring engaged."""
        self.source.fall_silent()
        self.observer.spin(0.3)
        if self.observer.diagnostics.get(CONTROLLER, {}).get("mode") == "fault":
            self.observer.trigger(f"{CONTROLLER}/recover")
        self.observer.trigger(f"{CONTROLLER}/home", timeout_s=30.0)
        self.source.send(self.source.measured_pose())
        self.observer.spin(SETTLE_S)


def _last_change_s(time_s: FloatArray, position_m: FloatArray, tolerance_m: float) -> float:
    """Time of the last sample that differs from its predecessor."""
    moved = np.linalg.norm(np.diff(position_m, axis=0), axis=1) > tolerance_m
    return float(time_s[1:][moved][-1]) if moved.any() else 0.0


def _rest_s(time_s: FloatArray, position_m: FloatArray) -> float:
    """Time after which the speed over 20 ms windows stays below 2 mm/s."""
    grid_s = np.arange(time_s[0], time_s[-1], 0.02)
    path = np.stack([np.interp(grid_s, time_s, column) for column in position_m.T], axis=1)
    speed = np.linalg.norm(np.diff(path, axis=0), axis=1) / 0.02
    moving = speed > REST_M_PER_S
    return float(grid_s[1:][moving][-1]) if moving.any() else 0.0


def measure(bench: ControlBench, stream_s: float) -> dict[str, Any]:
    """Every figure that needs the compliant preset."""
    figures: dict[str, Any] = {
        **bench.streams(stream_s),
        "step_10mm": bench.step(0.010),
        "step_50mm": bench.step(0.050),
    }
    clipped = bench.wall("wall_clipped")
    figures["wall_force_steady_n"] = clipped["steady_n"]
    figures["wall_force_peak_n"] = clipped["peak_n"]
    figures["force_bound_n"] = PRESETS["compliant"].force_bound_n
    figures.update(bench.silence())
    return figures
