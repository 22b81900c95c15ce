# SPDX-License-Identifier: Apache-2.0
"""The fast simulator as a world of the lock-step runner, behind the gate that the graph has."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.chunking import Step
from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.geometry import pose_increment
from vla_rl_ros.core.intervention import Anchor, GateSettings, PolicyAction
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import TASKS, Task
from vla_rl_ros.sim.variants import variant

NO_RESIDUAL = np.zeros(ACTION_DIM)


class SimWorld:
    """One simulated cell that plays one task after the other.

    Attributes:
        sim: The simulator.
    """

    def __init__(self, policy: ChunkPolicy, variant_name: str = "default") -> None:
        """Compile the scene.

        Args:
            policy: Says what it has to see and what its increments are added to.
            variant_name: Named difficulty of the scene.
        """
        self.sim = FastSim(variant(variant_name))
        self._cameras = policy.cameras
        self._needs_objects = policy.needs_objects
        self._anchor = policy.anchor
        self._gate = Gate(
            GateSettings(anchor=policy.anchor, limits=ReferenceLimits(), spec=self.sim.spec)
        )
        self._period_ns = round(self.sim.spec.control_period_s * 1e9)
        self._task = Task.LIFT
        self._positions_m: list[FloatArray] = []
        self._epoch = 0
        self._executed_ns = -1
        self._target_before: Pose | None = None

    def reset(self, task: Task, seed: int, now_ns: int) -> None:
        """Begin an episode; the same seed gives the same scene.

        Args:
            task: What to do.
            seed: Of the layout.
            now_ns: Stamp of the tick before the first.
        """
        self._task = task
        self.sim.reset(task, seed=seed)
        self._gate.open(self._epoch, now_ns, is_hand_open=self.sim.is_open_commanded)
        self._positions_m = [self.sim.tcp().position_m]
        self._executed_ns, self._target_before = now_ns, None

    def close(self) -> None:
        """Free the renderer."""
        self.sim.close()

    @property
    def positions_m(self) -> FloatArray:
        """Measured TCP positions of this episode, one period apart, shape (n, 3)."""
        return np.array(self._positions_m)

    def observe(self, stamp_ns: int, last_action: FloatArray | None) -> PolicyObservation:
        """Everything that the policy asked for, as it is now."""
        images: dict[str, ImageArray] = {}
        if self._cameras:
            rendered = self.sim.images()
            images = {camera: rendered[camera] for camera in self._cameras}
        return PolicyObservation(
            stamp_ns=stamp_ns,
            images=images,
            state=self.sim.state(),
            instruction=TASKS[self._task].instruction,
            task=self._task.value,
            last_action=last_action,
            joint_rad=self.sim.arm_state().q_rad,
            target=self._target_before if stamp_ns == self._executed_ns else self._gate.target,
            objects=self.sim.objects() if self._needs_objects else None,
        )

    def execute(self, step: Step | None, stamp_ns: int) -> FloatArray:
        """Send an element through the gate to the arm; without one, the arm keeps its target."""
        measured = self.sim.tcp()
        self._executed_ns, self._target_before = stamp_ns, self._gate.target
        if step is None:
            # A tick is given up half a period after its stamp.
            row = self._gate.hold(stamp_ns + 3 * self._period_ns // 5, measured)
            return NO_RESIDUAL if row is None else row.executed
        action = PolicyAction(
            stamp_ns=stamp_ns,
            epoch=self._epoch,
            chunk_id=step.chunk.chunk_id,
            chunk_step=step.index,
            delay_ticks=step.chunk.delay_ticks,
            base=step.action,
            residual=NO_RESIDUAL,
        )
        row = self._gate.accept(action, measured)
        command = row.executed.copy()
        if self._anchor is Anchor.LAST_TARGET and self._gate.target is not None:
            # The simulator adds to the measured pose.
            increment = pose_increment(self._gate.target, measured)
            command[:GRIPPER_INDEX] = np.concatenate(increment)
        command[GRIPPER_INDEX] = float(bool(self._gate.gripper.is_open))
        self.sim.command(command)
        return row.executed

    def advance(self) -> bool:
        """Let one period pass; whether the task is done."""
        self.sim.advance(self.sim.spec.control_period_s)
        self._positions_m.append(self.sim.tcp().position_m)
        return self.sim.is_success()
