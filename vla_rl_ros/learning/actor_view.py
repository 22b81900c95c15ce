# SPDX-License-Identifier: Apache-2.0
"""What the residual actor sees at a tick of a running graph: state, phase, features of its chunk.

Features belong to the observation whose chunk is played, so they are kept by its stamp until that
chunk comes. Called by the `residual_actor` node.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from vla_rl_ros.core.chunking import Step
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.learning.actor_observation import ActorObservationSpec, phase_of

_KEPT_CHUNKS = 64


class ActorView:
    """Builds observations.

    Attributes:
        spec: What they hold; follows the features that arrive.
    """

    def __init__(self) -> None:
        """Start without features, as with a policy that has none."""
        self.spec = ActorObservationSpec()
        self._by_stamp: OrderedDict[int, Float32Array] = OrderedDict()
        self._shown: Float32Array = np.zeros(0, np.float32)

    def reset(self) -> None:
        """An episode begins: nothing is played yet."""
        self._shown = np.zeros(self.spec.feature_dim, np.float32)

    def on_features(self, stamp_ns: int, tower_hash: str, features: Float32Array) -> None:
        """Take the features of an observation.

        Args:
            stamp_ns: Stamp of the observation, which its chunk will have.
            tower_hash: Of what made them.
            features: Shape (F,), empty for a policy without.
        """
        spec = self.spec
        if (len(features), tower_hash) != (spec.feature_dim, spec.tower_hash):
            self.spec = ActorObservationSpec(feature_dim=len(features), tower_hash=tower_hash)
            self._by_stamp.clear()
            self.reset()
        self._by_stamp[stamp_ns] = features
        if len(self._by_stamp) > _KEPT_CHUNKS:
            self._by_stamp.popitem(last=False)

    def observe(self, state: FloatArray, step: Step | None) -> tuple[Float32Array, bool]:
        """The observation of a tick.

        Args:
            state: Proprioception at the tick, shape (20,).
            step: What is played, None for nothing.

        Returns:
            The vector, shape (O,), and whether the features are those of the chunk that is played;
            the last ones stand in where they never came.
        """
        is_whole = True
        if step is not None and self.spec.feature_dim:
            found = self._by_stamp.get(step.chunk.stamp_ns)
            is_whole = found is not None
            self._shown = self._shown if found is None else found
        index, horizon = (None, 1) if step is None else (step.index, step.chunk.horizon)
        return self.spec.vector(state, phase_of(index, horizon), self._shown), is_whole
