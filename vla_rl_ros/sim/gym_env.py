# SPDX-License-Identifier: Apache-2.0
"""The fast simulator as `gymnasium` environments, one per task.

    import gymnasium, vla_rl_ros.sim.gym_env
    env = gymnasium.make("vla_rl_ros/Lift-v0", images=False)

Observations and actions are those of the ROS graph, so a policy moves between the two unchanged.
Rendering needs ``MUJOCO_GL=egl`` in the environment where there is no display.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ACTION_DIM, STATE_CHANNELS
from vla_rl_ros.core.types import FloatArray, ImageArray
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import TASKS, Task, task_by_name
from vla_rl_ros.sim.variants import SceneConfig, variant

ENV_IDS = {task: f"vla_rl_ros/{task.value.title().replace('_', '')}-v0" for task in Task}

Observation = dict[str, Any]

# Generous: position, quaternion, velocity, turn rate, force, torque, width.
_STATE_BOUND = np.repeat([2.0, 1.01, 5.0, 20.0, 1e4, 1e4, 0.1], [3, 4, 3, 3, 3, 3, 1]).astype(
    np.float32
)


class CellEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One task in the fast simulator.

    Observation: ``state`` (float32, channels of `core.spec.STATE_CHANNELS`) and, unless switched
    off, ``image`` with one uint8 RGB picture per camera. Action: float32 in [-1, 1], shape (7,),
    scaled by `core.spec.ActionSpec`. Reward 1 on success, which ends the episode, else 0.
    ``info`` carries ``success``, ``objects`` (privileged: name to x y z qx qy qz qw, base frame),
    ``instruction`` and ``state_channels``.
    """

    # Declared like this by gymnasium, which reads it from the class.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        config: SceneConfig | str = "default",
        images: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Compile the scene.

        Args:
            task: Name of the task.
            config: Variant, or the name of one.
            images: Whether observations hold images; without them a step is three times faster.
            render_mode: ``rgb_array`` to let `render` return the front camera's picture, or None.

        Raises:
            ConfigError: Unknown task, variant or render mode.
        """
        if render_mode not in (None, "rgb_array"):
            raise ConfigError(f"render_mode={render_mode!r} is neither None nor 'rgb_array'")
        self.render_mode = render_mode
        self._task = task_by_name(task)
        self._has_images = images
        config = variant(config) if isinstance(config, str) else config
        self.sim = FastSim(config)
        limit_s = TASKS[self._task].time_limit_s
        self._max_ticks = round(limit_s / self.sim.spec.control_period_s)
        self._tick = 0
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        parts: dict[str, spaces.Space[Any]] = {
            "state": spaces.Box(-_STATE_BOUND, _STATE_BOUND, dtype=np.float32)
        }
        if images:
            shape = (config.image_px, config.image_px, 3)
            parts["image"] = spaces.Dict(
                {name: spaces.Box(0, 255, shape, np.uint8) for name in CAMERAS}
            )
        self.observation_space = spaces.Dict(parts)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; a seed gives the same layout as in the cell behind ROS."""
        super().reset(seed=seed)
        layout = sample_layout(self._task, self.sim.config, self.np_random)
        self.sim.reset(self._task, layout=layout)
        self._tick = 0
        return self._observation(), self._info(is_success=False)

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute one normalised action for one control period."""
        is_success = self.sim.step(self.sim.spec.to_si(np.asarray(action, dtype=np.float64)))
        self._tick += 1
        is_late = self._tick >= self._max_ticks
        info = self._info(is_success=is_success)
        return self._observation(), float(is_success), is_success, is_late and not is_success, info

    def render(self) -> ImageArray | None:
        """Return the front camera's picture in mode ``rgb_array``."""
        return self.sim.images()["front"] if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the renderer."""
        self.sim.close()

    def _observation(self) -> Observation:
        observation: Observation = {"state": self.sim.state().astype(np.float32)}
        if self._has_images:
            observation["image"] = self.sim.images()
        return observation

    def _info(self, *, is_success: bool) -> dict[str, Any]:
        objects: dict[str, FloatArray] = {
            name: np.concatenate([pose.position_m, pose.quat_xyzw])
            for name, pose in self.sim.objects().items()
        }
        return {
            "success": is_success,
            "objects": objects,
            "instruction": TASKS[self._task].instruction,
            "state_channels": STATE_CHANNELS,
        }


def register_envs() -> None:
    """Make the environments known to `gymnasium.make`; may be called again."""
    for task, env_id in ENV_IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id, entry_point=f"{__name__}:CellEnv", kwargs={"task": task.value}
            )


# gymnasium imports a module for this effect: make("vla_rl_ros.sim.gym_env:vla_rl_ros/Lift-v0").
register_envs()
