# SPDX-License-Identifier: Apache-2.0
"""The simulated cell with a chunk policy inside, as an environment for residual learning.

A tick is what it is in the graph: the plan's element is the base action, what is executed goes
into the prefix of the request that starts in the same tick, and the answer enters the plan before
the next tick, so every answer is used one tick after its observation. The environment takes the
executed action; `planned_base` is the base policy that belongs to it. An episode depends on its
seed alone, the noise of the policy included. Used by `gym_door` under the name `ENV_ID`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_rl_ros.core.async_plan import AsyncSession
from vla_rl_ros.core.chunking import Step, hold_action
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.requests import Request
from vla_rl_ros.core.spec import ACTION_DIM, state_vector
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.actor_observation import (
    ActorObservationSpec,
    no_features,
    phase_of,
)
from vla_rl_ros.learning.rows import Float32Array
from vla_rl_ros.policies.protocol import (
    ChunkPolicy,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    Reseedable,
    featured,
    make_policy,
)
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import TASKS, task_by_name
from vla_rl_ros.sim.variants import variant

NAME = "vla_rl_ros/Vla-v0"
ENV_ID = f"{__name__}:{NAME}"
BASE_ID = f"{__name__}:planned_base"


class VlaEnv(gymnasium.Env[Float32Array, FloatArray]):
    """One task, one policy, in lock-step.

    Observation: the vector of `actor_observation` at the tick, float32. Action: what is executed
    in it, SI, channels of `core.spec.ACTION_CHANNELS`. Reward 1 on success, which ends the
    episode; ``info`` carries ``success``.

    Attributes:
        task: What is to be done.
        max_ticks: Ticks after which an episode is cut off.
        sim: The simulator.
        policy: The frozen base.
        session: The timing core.
        seen_spec: Channels of the observation.
        base: What the policy wants in this tick, SI, shape (7,).
        executed: What was done in the last one, a hold before the first, SI, shape (7,).
    """

    def __init__(
        self,
        task: str,
        *,
        variant_name: str = "default",
        policy: str = "pi0",
        checkpoint: str = "",
        eyes: str = "",
        execute_ticks: int = 0,
    ) -> None:
        """Compile the scene and load the policy.

        Args:
            task: Name of the task.
            variant_name: Named difficulty of the scene.
            policy: Name of the back end.
            checkpoint: Its weights; empty for those that ship.
            eyes: What makes the image features, see `PolicySettings`.
            execute_ticks: Ticks from one inference to the next, as of `vla_inference`; 0 for one.

        Raises:
            ConfigError: Unknown names, weights that do not load, or a policy whose increments the
                simulator cannot follow.
        """
        self.task = task_by_name(task)
        self.sim = FastSim(variant(variant_name))
        period_s = self.sim.spec.control_period_s
        self.policy: ChunkPolicy = make_policy(
            policy,
            PolicySettings(path=checkpoint, eyes=eyes, device="cpu"),
            PolicyEnvironment(control_period_s=period_s, cameras=CAMERAS),
        )
        if self.policy.anchor is not Anchor.MEASURED:
            raise ConfigError(
                f"policy '{policy}' counts from its last target; the fast simulator adds to the "
                "measured pose: learn through the graph instead"
            )
        traits = PolicyTraits(
            horizon=self.policy.horizon,
            conditionings=self.policy.conditionings,
            max_locked=self.policy.max_locked,
        )
        # Those of `vla_inference`, so that the residual meets the same timing in the graph.
        timing = AsyncSettings(control_period_s=period_s, execute_ticks=execute_ticks)
        self.session = AsyncSession(timing, traits)
        self._featured = featured(self.policy)
        self.seen_spec = ActorObservationSpec(
            feature_dim=self._featured.feature_dim if self._featured else 0,
            tower_hash=self._featured.tower_hash if self._featured else "",
        )
        self.max_ticks = round(TASKS[self.task].time_limit_s / period_s)
        ones = np.ones(ACTION_DIM)
        scale = self.sim.spec
        self.action_space = spaces.Box(scale.to_si(-ones), scale.to_si(ones), dtype=np.float64)
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.seen_spec.dim,), np.float32)
        self.base: FloatArray = np.zeros(ACTION_DIM)
        self.executed: FloatArray = np.zeros(ACTION_DIM)

    @property
    def obs_version(self) -> str:
        """What observations mean; rows with another one do not fit."""
        return self.seen_spec.version

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Begin an episode; a seed gives the same layout as in the cell behind ROS."""
        super().reset(seed=seed)
        self.sim.reset(self.task, layout=sample_layout(self.task, self.sim.config, self.np_random))
        self.session.reset()
        self.policy.reset()
        noise_seed = int(self.np_random.integers(2**31))
        if isinstance(self.policy, Reseedable):
            self.policy.reseed(noise_seed)
        self._tick, self.executed = 0, hold_action(float(self.sim.is_open_commanded))
        self._features: dict[int, Float32Array] = {}
        self._look()
        request = self.session.first_request()
        self.session.deliver(request, self._infer(request))
        return self._begin_tick(), {"success": False}

    def step(self, action: FloatArray) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Execute an action for one control period, while the policy infers the next chunk."""
        action = np.array(action, dtype=np.float64)
        # As in the graph, the request of a tick knows what was executed in it.
        self.executed = action
        request = self.session.executed(action)
        answer = None if request is None else self._infer(request)
        is_success = self.sim.step(action)
        self._tick += 1
        if request is not None and answer is not None:
            self.session.deliver(request, answer)
        self._look()
        is_late = self._tick >= self.max_ticks and not is_success
        return self._begin_tick(), float(is_success), is_success, is_late, {"success": is_success}

    def close(self) -> None:
        """Free the renderer."""
        self.sim.close()

    def _look(self) -> None:
        self._arm = self.sim.arm_state()
        self._state = state_vector(self._arm, self.sim.gripper_state())

    def _infer(self, request: Request) -> FloatArray:
        sim, policy = self.sim, self.policy
        images = sim.images() if policy.cameras else {}
        observation = PolicyObservation(
            stamp_ns=request.stamp_ns,
            images={name: images[name] for name in policy.cameras},
            state=self._state,
            instruction=TASKS[self.task].instruction,
            task=self.task.value,
            last_action=None if request.is_first else self.executed,
            joint_rad=self._arm.q_rad,
            target=self._arm.pose,
            objects=sim.objects() if policy.needs_objects else None,
        )
        actions = policy.infer(observation, request.prefix)
        if self._featured is not None:
            self._features = {request.number: self._featured.features()} | self._features
        return actions

    def _begin_tick(self) -> Float32Array:
        step = self.session.on_tick()
        if step is None:
            self.base, phase = hold_action(float(self.sim.is_open_commanded)), phase_of(None, 1)
        else:
            self.base, phase = step.action, phase_of(step.index, step.chunk.horizon)
        return self.seen_spec.vector(self._state, phase, self._seen(step))

    def _seen(self, step: Step | None) -> Float32Array | None:
        """Features of the images that the played chunk came from."""
        if self._featured is None:
            return None
        if step is None:
            return no_features(self.seen_spec)
        seen = self._features[step.chunk.chunk_id]
        self._features = {n: f for n, f in self._features.items() if n >= step.chunk.chunk_id}
        return seen


class PlannedBase:
    """What the policy inside a `VlaEnv` wants in the present tick."""

    def __init__(self, env: VlaEnv) -> None:
        """Take the environment, unwrapped."""
        self._env = env

    def __call__(self, _observation: Float32Array, /) -> FloatArray:
        """The base action, SI, shape (7,)."""
        return self._env.base


def planned_base(env: Any) -> PlannedBase:  # noqa: ANN401 - gymnasium's wrappers
    """Base policy of a `VlaEnv`.

    Raises:
        ConfigError: Another environment.
    """
    inner = env.unwrapped
    if not isinstance(inner, VlaEnv):
        raise ConfigError(f"{BASE_ID} belongs to {ENV_ID}, not to {inner}")
    return PlannedBase(inner)


def register_env() -> None:
    """Make the environment known to `gymnasium.make`; may be called again."""
    if NAME not in gymnasium.registry:
        gymnasium.register(
            NAME, entry_point=f"{__name__}:VlaEnv", disable_env_checker=True, order_enforce=False
        )


# gymnasium imports a module for this effect.
register_env()
