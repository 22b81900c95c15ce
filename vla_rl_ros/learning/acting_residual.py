# SPDX-License-Identifier: Apache-2.0
"""What the `residual_actor` node adds to the base at a tick, and why not more.

Owns the weights that act. They change as a whole between two ticks; weights that do not fit what
the actor sees rest, and so does everything in an episode in which the base is to drive. Who drives
is asked once per episode, or an episode would tell the learner nothing of either.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.residual import residual_in_si
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.acting import Float32Array, ResidualActor
from vla_rl_ros.learning.actor_bytes import ActorWeights
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.exploration import Wanderer
from vla_rl_ros.learning.schedule import Driver


class ActingResidual:
    """The residual of a running graph.

    Attributes:
        held: Weights that were taken last, None before the first.
    """

    def __init__(self, spec: ActionSpec) -> None:
        """Start without weights: the base drives.

        Args:
            spec: Range of actions.
        """
        self.held: ActorWeights | None = None
        self._spec = spec
        self._actor: ResidualActor | None = None
        self._wanderer: Wanderer | None = None
        self._role: ActorWeights | None = None
        self._is_finite = True

    @property
    def xi(self) -> float:
        """Bound of the residual that the weights ask for; 0 without weights."""
        return 0.0 if self._actor is None else self._actor.xi

    def take(self, weights: ActorWeights) -> None:
        """Act with these from the next tick on.

        Raises:
            InvalidCommandError: They do not fit each other; the old ones stay.
        """
        self._actor = weights.actor()
        self.held = weights
        self._is_finite = True

    def begin_episode(self) -> None:
        """Whoever wanders begins anew, and who drives is asked again."""
        self._wanderer = self._role = None

    def misfit(self, seen: ActorObservationSpec) -> str:
        """Why the weights rest, in one sentence; empty while they act or there are none.

        Args:
            seen: What the actor sees now.
        """
        if self.held is None or self._actor is None:
            return ""
        if self.held.obs_version and self.held.obs_version != seen.version:
            return (
                f"the weights were trained on other observations ({self.held.obs_version}, here "
                f"{seen.version}): train on this base policy, or run the one they belong to"
            )
        if self._actor.obs_dim != seen.dim:
            return f"the weights take {self._actor.obs_dim} channels, the actor sees {seen.dim}"
        return "" if self._is_finite else "the weights gave a residual that is not finite"

    def driver(self, seen: ActorObservationSpec) -> Driver:
        """Who drives at a tick with a chunk."""
        role = self._role or self.held
        return Driver.BASE if role is None or self.misfit(seen) else role.driver

    def residual(
        self,
        seen: ActorObservationSpec,
        observation: Float32Array,
        base: FloatArray,
        *,
        cap: float,
        rng: np.random.Generator | None,
    ) -> FloatArray:
        """What is added to the base, SI, shape (7,); zeros while the base drives.

        Args:
            seen: Of the observation.
            observation: Shape (O,).
            base: The policy's action within its range, SI, shape (7,).
            cap: Largest residual per channel, normalised; a grasp critic's choice turns the
                gripper whole or, with a cap of 0, not at all.
            rng: Source of exploration noise, None for none.
        """
        actor, role = self._actor, self._role or self.held
        self._role = role
        if actor is None or role is None or cap == 0.0 or self.driver(seen) is Driver.BASE:
            return np.zeros(ACTION_DIM)
        normalised = self._spec.to_normalised(base)
        if role.wander_std > 0.0 and rng is not None:
            if self._wanderer is None:
                self._wanderer = Wanderer(role.wander_std, role.wander_ticks, actor.bound, rng)
            residual = self._wanderer(observation, normalised).astype(np.float64)
        else:
            residual = actor.act(observation, normalised, rng=rng).astype(np.float64)
        if not np.isfinite(residual).all():
            # They rest until others come: a tick must not fail for them.
            self._is_finite = False
            return np.zeros(ACTION_DIM)
        bounded = ACTION_DIM - int(actor.has_grasp)
        residual[:bounded] = np.clip(residual[:bounded], -cap, cap)
        return residual_in_si(base, residual, self._spec)
