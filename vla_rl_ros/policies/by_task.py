# SPDX-License-Identifier: Apache-2.0
"""pi0 for the tasks it knows, the scripted experts for the others; in simulation only.

For pairs of tasks that reset each other: what is learned is one of them, and the other only has to
bring the scene back. Settings are those of pi0; `scripted_tasks` names what the script does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies import pi0, scripted
from vla_rl_ros.policies.protocol import (
    ChunkPolicy,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    featured,
)


class ByTaskPolicy:
    """Two policies behind one, chosen by the task of each observation."""

    def __init__(
        self, learned: ChunkPolicy, script: ChunkPolicy, scripted_tasks: frozenset[str]
    ) -> None:
        """Put them together.

        Args:
            learned: For every task that is not named.
            script: For those that are; with the horizon of the other.
            scripted_tasks: Names of tasks.

        Raises:
            ConfigError: They want their increments added to different things.
        """
        if learned.anchor is not script.anchor:
            raise ConfigError(
                f"the weights are anchored at {learned.anchor.value}, the script at "
                f"{script.anchor.value}: the gate can serve one of them only"
            )
        self._learned, self._script, self._scripted_tasks = learned, script, scripted_tasks
        self._features = featured(learned)
        self._has_looked = False

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._learned.horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Those of the weights."""
        return self._learned.cameras

    @property
    def needs_objects(self) -> bool:
        """The script reads true object poses."""
        return True

    @property
    def anchor(self) -> Anchor:
        """What both want."""
        return self._learned.anchor

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """What both can do."""
        return self._learned.conditionings & self._script.conditionings

    @property
    def max_locked(self) -> int:
        """What both answer well to."""
        return min(self._learned.max_locked, self._script.max_locked)

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Let the one that knows the task answer.

        Raises:
            InvalidCommandError: No object poses, or as the one that answers.
        """
        if observation.objects is None:
            raise InvalidCommandError("missing_objects", "the script needs true object poses")
        is_scripted = observation.task in self._scripted_tasks
        self._has_looked = not is_scripted
        return (self._script if is_scripted else self._learned).infer(observation, prefix)

    def reset(self) -> None:
        """Forget the last episode."""
        self._learned.reset()
        self._script.reset()

    @property
    def feature_dim(self) -> int:
        """Width of the features of the weights; 0 for none."""
        return 0 if self._features is None else self._features.feature_dim

    @property
    def tower_hash(self) -> str:
        """Of what made the features."""
        return "" if self._features is None else self._features.tower_hash

    def features(self) -> npt.NDArray[np.float32]:
        """Features of the images of the last `infer`; zeros where the script answered it."""
        if self._features is None or not self._has_looked:
            return np.zeros(self.feature_dim, np.float32)
        return self._features.features()


def make(settings: PolicySettings, environment: PolicyEnvironment) -> ByTaskPolicy:
    """Entry point of the back end.

    Raises:
        ConfigError: As `pi0.make`, or the two do not fit together.
    """
    learned = pi0.make(settings, environment)
    script = scripted.make(dataclasses.replace(settings, horizon=learned.horizon), environment)
    return ByTaskPolicy(learned, script, frozenset(settings.scripted_tasks))
