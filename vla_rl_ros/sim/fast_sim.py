# SPDX-License-Identifier: Apache-2.0
"""The cell in one process, without protocol, ROS or wall clock: for learning and for tests.

Same MJCF, impedance law, limits and reference path as the arm behind Franka's protocol, at more
than 40 times real time. Not thread-safe; images belong to the thread that took the first one.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits, limit_target
from vla_rl_ros.core.spec import ActionSpec, is_open_command, state_vector
from vla_rl_ros.core.types import (
    ArmState,
    FloatArray,
    GripperState,
    ImageArray,
    Pose,
    Twist,
    Wrench,
    finite_array,
)
from vla_rl_ros.sim.fast_gripper import FastGripper
from vla_rl_ros.sim.fast_reference import FastReference
from vla_rl_ros.sim.fast_timing import FastSimConfig
from vla_rl_ros.sim.fci_wrench import ExternalWrench
from vla_rl_ros.sim.kinematics import place_arm
from vla_rl_ros.sim.law import ImpedanceLaw
from vla_rl_ros.sim.layouts import MAX_GRIPPER_WIDTH_M, Layout, sample_layout
from vla_rl_ros.sim.placing import apply_layout
from vla_rl_ros.sim.scene import compile_model
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.scene_poses import object_poses, tcp_pose
from vla_rl_ros.sim.tasks import Task, is_success
from vla_rl_ros.sim.variants import SceneConfig

_SETTLE_S = 0.1


class FastSim:
    """One arm, one scene, stepped by the caller.

    Example:
        >>> sim = FastSim()
        >>> sim.reset(Task.LIFT, seed=0)
        >>> sim.step(np.array([0.0, 0.0, -0.01, 0.0, 0.0, 0.0, 1.0]))  # 1 cm down, open
        False

    Attributes:
        config: Variant of the cell.
        spec: Scale and period of actions.
        limit_flags: Limits that acted on the last action, see `core.reference.limit_target`.
        model: The compiled scene.
        data: Its live state; call `mujoco.mj_forward` after changing positions by hand.
        ids: Addresses in both.
    """

    def __init__(
        self,
        config: SceneConfig | None = None,
        *,
        settings: ImpedanceSettings | None = None,
        limits: ReferenceLimits | None = None,
        spec: ActionSpec | None = None,
        timing: FastSimConfig | None = None,
    ) -> None:
        """Compile the scene; call `reset` before anything else.

        Args:
            config: Variant of the cell.
            settings: Of the spring; the `compliant` preset if left out.
            limits: Workspace, step and speed limits.
            spec: Action scale and control period.
            timing: Physics and control rates.
        """
        self.config = config or SceneConfig()
        self.spec = spec or ActionSpec()
        self._limits = limits or ReferenceLimits()
        timing = timing or FastSimConfig()
        settings = settings or PRESETS["compliant"]
        self.model, self.ids = compile_model(self.config)
        self.model.opt.timestep = self._timestep_s = timing.timestep_s
        self._hold_steps, self._period_s = timing.hold_steps, timing.reference_period_s
        self._steps_per_period = round(timing.reference_period_s / timing.timestep_s)
        self.data = mujoco.MjData(self.model)
        self._law = ImpedanceLaw(self.model, self.data, self.ids, settings)
        self._reference = FastReference(settings, self._limits)
        self._gripper = FastGripper(self.data, self.ids)
        self._wrench = ExternalWrench(self.model, self.data, self.ids.arm_dof, self._period_s)
        self._renderer: mujoco.Renderer | None = None
        self._layout: Layout | None = None
        self.limit_flags: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """Start of the present episode. Raises SceneError before the first `reset`."""
        if self._layout is None:
            raise SceneError("call reset() first")
        return self._layout

    def reset(self, task: Task, *, seed: int | None = None, layout: Layout | None = None) -> None:
        """Begin an episode; the same seed gives the same episode.

        Args:
            task: What to do.
            seed: Of the layout.
            layout: Use this one instead of drawing one.
        """
        if layout is None:
            layout = sample_layout(task, self.config, np.random.default_rng(seed))
        self._layout = layout
        mujoco.mj_resetData(self.model, self.data)
        place_arm(self.model, self.data, self.ids, layout.start)
        self.data.qpos[self.ids.finger_qpos] = 0.5 * MAX_GRIPPER_WIDTH_M
        apply_layout(self.model, self.data, self.ids, layout)
        self._wrench = ExternalWrench(self.model, self.data, self.ids.arm_dof, self._period_s)
        self._law.engage()
        self._reference.reset(layout.start)
        self._gripper.set_goal(layout.gripper_width_m)
        self.limit_flags = ()
        self.advance(_SETTLE_S)

    def step(self, action: FloatArray) -> bool:
        """Execute one action for one control period, anchored at the measured TCP pose.

        Args:
            action: SI channels of `core.spec.ACTION_CHANNELS`, shape (7,).

        Returns:
            Whether the task is solved now.

        Raises:
            InvalidCommandError: Wrong shape or not finite.
            SceneError: Before the first `reset`.
        """
        self.command(action)
        self.advance(self.spec.control_period_s)
        return self.is_success()

    def command(self, action: FloatArray) -> None:
        """Begin to execute an action as `step` does, without advancing time."""
        if self._layout is None:
            raise SceneError("call reset() first")
        action = finite_array(action, (7,), "action")
        self._set_increment(action)
        width_m = MAX_GRIPPER_WIDTH_M if is_open_command(action) else 0.0
        if width_m != self._gripper.goal_m:
            self._gripper.set_goal(width_m)

    def _set_increment(self, action: FloatArray) -> None:
        # What `move_to` does with the measured pose plus the increment, in a tenth of the time.
        period_s = self.spec.control_period_s
        position_m, quat_wxyz = self._law.offset_tcp(action)
        if self._reference.is_within_limits(position_m, quat_wxyz):
            self.limit_flags = ()
            self._reference.set_target(position_m, quat_wxyz, self.data.time, period_s)
        else:
            self.move_to(Pose(position_m, quat_wxyz[[1, 2, 3, 0]]), period_s)

    def move_to(self, target: Pose, duration_s: float) -> None:
        """Give the reference a target, limited as on the arm, without advancing time."""
        limited, self.limit_flags = limit_target(target, self._reference.goal, self._limits)
        quat_wxyz = limited.quat_xyzw[[3, 0, 1, 2]]
        self._reference.set_target(limited.position_m, quat_wxyz, self.data.time, duration_s)

    def advance(self, duration_s: float) -> None:
        """Let time pass, in whole reference periods."""
        for _ in range(round(duration_s / self._period_s)):
            self._advance_period()

    def _advance_period(self) -> None:
        model, data, law, reference = self.model, self.data, self._law, self._reference
        law.refresh()
        self._gripper.advance(self._period_s)
        reference.sample(data.time)
        reference.clip_to_measured(law.tcp_position_m, law.tcp_quat_wxyz)
        remaining = self._steps_per_period
        while remaining:
            steps = min(self._hold_steps, remaining)
            law.apply(reference, steps * self._timestep_s)
            self._gripper.apply()
            # Split steps, so that the law sees kinematics of this instant, not of the last step.
            mujoco.mj_step2(model, data)
            if remaining == self._steps_per_period:
                self._wrench.update()
            if steps > 1:
                mujoco.mj_step(model, data, steps - 1)
            mujoco.mj_step1(model, data)
            remaining -= steps

    @property
    def time_s(self) -> float:
        """Simulated time since the reset began."""
        return float(self.data.time)

    def tcp(self) -> Pose:
        """Measured TCP pose, base frame."""
        return tcp_pose(self.data, self.ids)

    @property
    def is_open_commanded(self) -> bool:
        """Whether the last gripper command was to open."""
        return self._gripper.goal_m > 0.0

    def arm_state(self) -> ArmState:
        """Measured state of the arm, stamped with simulated time."""
        data, dofs = self.data, self.ids.arm_dof
        self._law.refresh()
        self._wrench.project(self._law.jacobian)
        twist, wrench = self._law.jacobian @ data.qvel[dofs], self._wrench.wrench
        return ArmState(
            stamp_ns=round(data.time * 1e9),
            q_rad=data.qpos[self.ids.arm_qpos].copy(),
            dq_rad_per_s=data.qvel[dofs].copy(),
            tau_nm=data.qfrc_applied[dofs].copy(),
            pose=self.tcp(),
            twist=Twist(twist[:3], twist[3:]),
            wrench=Wrench(wrench[:3], wrench[3:]),
        )

    def gripper_state(self) -> GripperState:
        """Measured state of the gripper, stamped with simulated time."""
        return GripperState(
            stamp_ns=round(self.data.time * 1e9),
            width_m=self._gripper.width_m,
            is_moving=self._gripper.is_moving,
            is_grasped=self._gripper.is_grasped,
        )

    def state(self) -> FloatArray:
        """Proprioception, channels of `core.spec.STATE_CHANNELS`, shape (20,)."""
        return state_vector(self.arm_state(), self.gripper_state())

    def images(self) -> dict[str, ImageArray]:
        """Render every camera, uint8 RGB of shape (image_px, image_px, 3) by name.

        Raises:
            SceneError: If there is nothing to render with; says what to set.
        """
        if self._renderer is None:
            self._renderer = self._make_renderer()
        frames = {}
        for name in CAMERAS:
            self._renderer.update_scene(self.data, name)
            frames[name] = self._renderer.render()
        return frames

    def _make_renderer(self) -> mujoco.Renderer:
        size = self.config.image_px
        try:
            return mujoco.Renderer(self.model, size, size)
        except (RuntimeError, AttributeError, mujoco.FatalError) as error:
            raise SceneError(
                "cannot render: without a display set MUJOCO_GL=egl before starting Python "
                f"(needs libegl1 and libegl-mesa0); {error}"
            ) from error

    def objects(self) -> dict[str, Pose]:
        """Privileged object poses, see `scene_poses.object_poses`."""
        return object_poses(self.data, self.ids)

    def is_success(self) -> bool:
        """Whether the task of the present episode is solved."""
        return is_success(self.layout.task, self.data, self.ids)

    def close(self) -> None:
        """Free the renderer; idempotent."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
