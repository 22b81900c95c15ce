# SPDX-License-Identifier: Apache-2.0
"""What each stage of learning beside a robot learns from; called by `online_run`."""

from __future__ import annotations

from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.replay import Replay, SymmetricSampler
from vla_rl_ros.learning.transitions import Transitions


class Batches:
    """Draws batches of a run's two buffers."""

    def __init__(self, state: OnlineState) -> None:
        """Draw from the buffers of `state`, by its random stream."""
        self._state = state
        config = state.config
        self._mixed = SymmetricSampler(state.online, state.offline, config.offline_part)
        # Whether the last stage learns from what the base did; WSRL begins with the warm-up.
        self._keeps = config.offline_part > 0.0 or config.offline_init == "none"

    @property
    def has_any(self) -> bool:
        """Whether there is something to learn from at all."""
        return len(self._everything()) > 0

    @property
    def has_online(self) -> bool:
        """Whether there is something to learn from in the last stage."""
        return len(self._mixed) > 0 if self._keeps else len(self._state.online) > self._first

    def early(self) -> Transitions:
        """A batch of the stages before the last one."""
        return self._everything().sample(self._state.config.batch_size, self._state.rng)

    def online(self) -> Transitions:
        """A batch of the last stage."""
        state, size = self._state, self._state.config.batch_size
        if self._keeps:
            return self._mixed.sample(size, state.rng)
        return state.online.gather(state.rng.integers(self._first, len(state.online), size))

    @property
    def _first(self) -> int:
        return max(0, self._state.progress.first_online)

    def _everything(self) -> SymmetricSampler | Replay:
        online, offline = self._state.online, self._state.offline
        if not len(online) or not len(offline):
            return online if len(online) else offline
        return SymmetricSampler(online, offline, max(self._state.config.offline_part, 0.5))
