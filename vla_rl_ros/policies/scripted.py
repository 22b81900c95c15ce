# SPDX-License-Identifier: Apache-2.0
"""The scripted experts as a chunk policy: stands where a learned one will, in simulation only."""

from __future__ import annotations

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import STATE_DIM, is_open_command
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import FloatArray, Pose, finite_array
from vla_rl_ros.policies.expert_chunks import expert_chunk
from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings

_HALF_OPEN_M = 0.04


class ScriptedPolicy:
    """Answers with the expert of the observed task, rolled forward from what is being executed."""

    def __init__(self, horizon: int, period_ns: int) -> None:
        """Start without a past.

        Args:
            horizon: Number of elements of every chunk.
            period_ns: Control period.
        """
        self._horizon = horizon
        self._period_ns = period_ns
        self._first_ns: int | None = None
        self._is_open: bool | None = None
        self._num_episodes = 0

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """It sees object poses instead of images."""
        return ()

    @property
    def needs_objects(self) -> bool:
        """It reads true object poses."""
        return True

    @property
    def anchor(self) -> Anchor:
        """The experts answer to where the arm is."""
        return Anchor.MEASURED

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """It goes on from the first locked row."""
        return frozenset({Conditioning.NONE, Conditioning.LOCK})

    @property
    def max_locked(self) -> int:
        """Longer promises are overwritten by the runtime."""
        return self._horizon

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Roll the expert of the task forward, after the first element of the prefix.

        Raises:
            ConfigError: No expert knows the task.
            InvalidCommandError: The observation has no object poses or a malformed state.
        """
        if observation.objects is None:
            raise InvalidCommandError("missing_objects", "the experts need true object poses")
        state = finite_array(observation.state, (STATE_DIM,), "state")
        stamp_ns = observation.stamp_ns
        if self._first_ns is None:
            self._first_ns = stamp_ns
        if observation.last_action is not None:
            self._is_open = is_open_command(observation.last_action)
        elif self._is_open is None:
            # Nothing was commanded yet: the hand shows how the reset left it.
            self._is_open = bool(state[19] > _HALF_OPEN_M)
        view = ExpertView(
            tcp=Pose(state[:3], state[3:7]),
            gripper_width_m=float(state[19]),
            is_gripper_open=self._is_open,
            objects=observation.objects,
            tick=max(0, nearest_index(stamp_ns, self._first_ns, self._period_ns)),
            episode=self._num_episodes,
        )
        # Keeping later promises, too, lets the peg's search act on old contacts: 11 of 20 episodes
        # at a delay of two ticks, against 30 of 30. Delays above three would need them.
        done = prefix.actions[: min(1, prefix.num_locked)] if prefix is not None else None
        return expert_chunk(observation.task, view, self._horizon, done)

    def reset(self) -> None:
        """Forget the last episode, but that it was."""
        self._num_episodes += 1
        self._first_ns = None
        self._is_open = None


def make(settings: PolicySettings, environment: PolicyEnvironment) -> ScriptedPolicy:
    """Entry point of the back end."""
    return ScriptedPolicy(settings.horizon, round(environment.control_period_s * 1e9))
