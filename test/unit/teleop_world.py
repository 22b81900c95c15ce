# SPDX-License-Identifier: Apache-2.0
"""A gate with a human's hand on it and an arm that lags behind its reference, and sags."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.geometry import interpolate_pose, offset_pose
from vla_rl_ros.core.intervention import Anchor, ExecutedAction, GateSettings, PolicyAction
from vla_rl_ros.core.reference import ReferenceInterpolator, ReferenceLimits
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import Pose

P = 100_000_000
T0 = 1_700_000_000_000_000_000
HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
ZEROS = np.zeros(7)
SPEC = ActionSpec()
STEP_NS = 5_000_000


@dataclass
class TeleopWorld:
    """Time in steps of 5 ms: ticks of a policy, a hand at 100 Hz, heartbeats at 40 Hz."""

    anchor: Anchor = Anchor.MEASURED
    lag_s: float = 0.08
    sag_m: float = 0.0
    floor_m: float = -1.0
    phase_ns: int = 0
    hears_ticks: bool = True
    now_ns: int = T0
    hand: np.ndarray | None = None
    policy: np.ndarray | None = None
    is_after_human: bool = False
    rows: list[ExecutedAction] = field(default_factory=list)
    references: list[tuple[int, Pose]] = field(default_factory=list)
    commands: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate(GateSettings(anchor=self.anchor, limits=ReferenceLimits(), spec=SPEC))
        self.gate.open(1, self.now_ns)
        self.measured = HOME
        self._arm: ReferenceInterpolator | None = None
        self._target: Pose | None = None

    @property
    def reference(self) -> Pose:
        return self.measured if self._arm is None else self._arm.sample(self._now_s())[0]

    def proposal(self, stamp_ns: int) -> PolicyAction:
        assert self.policy is not None
        return PolicyAction(
            stamp_ns=stamp_ns,
            epoch=1,
            chunk_id=5,
            chunk_step=0,
            delay_ticks=1,
            base=np.asarray(self.policy, dtype=np.float64),
            residual=ZEROS,
        )

    def run(self, duration_s: float) -> None:
        for _ in range(round(duration_s * 1e9) // STEP_NS):
            self.step()

    def step(self) -> None:
        since_ns = self.now_ns - T0 - self.phase_ns
        self._gather()
        if since_ns % P == 0:
            self._tick()
        if since_ns % 10_000_000 == 0:
            self._hand_moves()
        self._send()
        self.now_ns += STEP_NS
        self._arm_moves()

    def _tick(self) -> None:
        if self.hears_ticks:
            self.gate.on_tick(self.now_ns)
        if self.policy is None:
            return
        if self.gate.is_human or self.gate.is_finishing:
            self.gate.note(self.proposal(self.now_ns))
        else:
            self.rows.append(self.gate.accept(self.proposal(self.now_ns), self.measured))

    def _hand_moves(self) -> None:
        if self.hand is None:
            self.gate.release(self.now_ns, self.measured)
            return
        self.gate.take_over(self.now_ns, self.measured)
        self.gate.steer(np.asarray(self.hand, dtype=np.float64), self.now_ns, self.measured)

    def _gather(self) -> None:
        while (row := self.gate.hold(self.now_ns, self.measured)) is not None:
            self.rows.append(row)

    def _send(self) -> None:
        target = self.gate.target
        if target is not None and target is not self._target:
            if self._arm is None:
                self._arm = ReferenceInterpolator(self.measured)
            self._arm.set_target(target, self._now_s(), 0.1, self.gate.settings.limits)
            self._target = target
        told = self.gate.gripper.take_due(self._now_s(), 1e9)
        if told is not None:
            self.commands.append(told)

    def _arm_moves(self) -> None:
        reference = self.reference
        self.references.append((self.now_ns, reference))
        if self.sag_m:
            self.measured = offset_pose(reference, np.array([0, 0, -self.sag_m]), np.zeros(3))
            return
        share = 1.0 - np.exp(-STEP_NS * 1e-9 / self.lag_s)
        reached = interpolate_pose(self.measured, reference, share)
        height_m = np.maximum(reached.position_m, [-np.inf, -np.inf, self.floor_m])
        self.measured = Pose(height_m, reached.quat_xyzw)

    def _now_s(self) -> float:
        return (self.now_ns - T0) * 1e-9
