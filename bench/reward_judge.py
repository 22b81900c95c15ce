# SPDX-License-Identifier: Apache-2.0
"""Decides episodes of the fast simulator by a classifier, as node and supervisor would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vla_rl_ros.core.success import Debounce, violated_check
from vla_rl_ros.core.verdict import SuccessHold
from vla_rl_ros.data.label_frames import STATE_NAMES

if TYPE_CHECKING:
    from vla_rl_ros.core.types import FloatArray, ImageArray
    from vla_rl_ros.learning.classifier_episodes import EpisodeMaker
    from vla_rl_ros.learning.classifier_model import SuccessModel

MIN_HOLD_S = 0.2


class Judge:
    """Looks at every tick and ends an episode as node and supervisor do.

    Attributes:
        said: Whether each tick so far looks like success.
    """

    def __init__(self, maker: EpisodeMaker, model: SuccessModel) -> None:
        """Begin.

        Args:
            maker: Plays the episode.
            model: Judges its images.
        """
        self._sim, self._model = maker.sim, model
        self._begin()

    def _begin(self) -> None:
        manifest = self._model.manifest
        self.said: list[bool] = []
        self._debounce = Debounce(manifest.needed, manifest.window)
        self._hold = SuccessHold(MIN_HOLD_S)
        self._now_s = 0.0

    def __call__(self, images: Mapping[str, ImageArray], state: FloatArray) -> bool:
        """Whether the episode is over."""
        if self._sim.time_s <= self._now_s:
            # A failure that succeeded by chance is staged again: only the last time counts.
            self._begin()
        self._now_s = self._sim.time_s
        manifest = self._model.manifest
        measured = dict(zip(STATE_NAMES, state.tolist(), strict=True))
        is_kept = violated_check(manifest.checks, measured) is None
        self.said.append(is_kept and self._model.probability(images) >= manifest.threshold)
        self._hold.update(
            self._debounce.update(self.said[-1]),
            len(self.said) * self._sim.spec.control_period_s,
        )
        return self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether it ended the episode as a success."""
        return self._hold.is_held
