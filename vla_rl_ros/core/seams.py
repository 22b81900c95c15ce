# SPDX-License-Identifier: Apache-2.0
"""How smooth an execution was: seams between chunks, jerk, underflows, staleness, kept promises.

Called once per tick by the lock-step session and by tests of the graph; bags can be measured the
same way. Action distances are taken in normalised units (`core.spec.ActionSpec`) over the six
motion channels, so that metres and radians weigh alike; the gripper is left out, it is meant to
jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.chunking import Seam, Step, is_as_promised
from vla_rl_ros.core.modes import RULES
from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.types import ActionChunk, FloatArray


def prefix_mismatch(chunk: ActionChunk, happened: Sequence[FloatArray | None]) -> float:
    """Largest difference between what a chunk promised to repeat and what was played.

    Args:
        chunk: A chunk of a locking mode.
        happened: Base actions of the ticks of elements 1 to d - 1, None where the arm held.

    Returns:
        0.0 when every row came true bit for bit; infinite when a motion was promised and the arm
        held, or a row is missing.
    """
    promised = chunk.actions[1 : min(chunk.delay_ticks, chunk.horizon)]
    if len(happened) < len(promised):
        return math.inf
    worst = 0.0
    for row, base in zip(promised, happened, strict=False):
        if not is_as_promised(row, base):
            gap = math.inf if base is None else float(np.abs(row - base).max())
            worst = max(worst, gap, np.finfo(float).tiny)
    return worst


@dataclass
class SeamMetrics:
    """Collects what `summary` reports.

    Attributes:
        spec: Scale of the actions.
        num_ticks: Ticks seen.
        underflows: Ticks without an element after the first element of an episode.
        late_chunks: Chunks dropped because they came later than promised.
        mismatches: Result of `prefix_mismatch` for every locked chunk that was continued.
        jumps: ``|a_new(t) - a_old(t)|`` at the first own element of each accepted chunk.
        seam_steps: ``|a(t) - a(t - 1)|`` of the played actions at those ticks.
        chunk_steps: ``|a(t) - a(t - 1)|`` of the played actions at all other ticks.
        ages_s: Time from the observation of a played element to its tick.
    """

    spec: ActionSpec
    num_ticks: int = 0
    underflows: int = 0
    late_chunks: int = 0
    mismatches: list[float] = field(default_factory=list)
    jumps: list[float] = field(default_factory=list)
    seam_steps: list[float] = field(default_factory=list)
    chunk_steps: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start between episodes."""
        self._jerks: list[float] = []
        self.begin()

    def begin(self) -> None:
        """Begin an episode: nothing before is compared with what comes."""
        self._played: dict[int, FloatArray | None] = {}
        self._line: list[FloatArray] = []
        self._seam: Seam | None = None
        self._checked: ActionChunk | None = None

    def on_seam(self, seam: Seam | None) -> None:
        """Note the seam of an accepted chunk, None for one that starts from rest."""
        self._seam = seam
        if seam is not None and seam.old is not None:
            self.jumps.append(self._distance(seam.new, seam.old))

    def on_tick(self, tick_ns: int, step: Step | None) -> None:
        """Note what was played at a tick, None for nothing."""
        self.num_ticks += 1
        if step is None:
            self.underflows += bool(self._played)
            if self._played:
                self._played[tick_ns] = None
            self._line = []
            return
        self._check_promise(tick_ns, step)
        self._played[tick_ns] = step.action
        self.ages_s.append((tick_ns - step.chunk.stamp_ns) * 1e-9)
        if self._line:
            is_seam = self._seam is not None and tick_ns == self._seam.tick_ns
            steps = self.seam_steps if is_seam else self.chunk_steps
            steps.append(self._distance(step.action, self._line[-1]))
        self._line = [*self._line[-2:], step.action]
        if len(self._line) == 3:
            bend = self._line[2] - 2.0 * self._line[1] + self._line[0]
            # An increment per period is a velocity, its second difference a jerk.
            jerk = float(np.linalg.norm(bend[:3])) / self.spec.control_period_s**3
            self._jerks.append(jerk)

    def summary(self) -> dict[str, float]:
        """Figures over everything seen; NaN where nothing was."""
        scale = quantile(self.chunk_steps, 0.99)
        return {
            "ticks": float(self.num_ticks),
            "underflows": float(self.underflows),
            "late_chunks": float(self.late_chunks),
            "prefix_mismatch": max(self.mismatches, default=0.0),
            "boundary_jump_max": quantile(self.jumps, 1.0),
            "boundary_jump_p95": quantile(self.jumps, 0.95),
            "seam_step_max": quantile(self.seam_steps, 1.0),
            "seam_step_p95": quantile(self.seam_steps, 0.95),
            "chunk_step_p99": scale,
            "boundary_jump_ratio": _ratio(quantile(self.jumps, 0.95), scale),
            "seam_step_ratio": _ratio(quantile(self.seam_steps, 0.95), scale),
            "jerk_p95_m_per_s3": quantile(self._jerks, 0.95),
            "observation_age_p50_s": quantile(self.ages_s, 0.5),
            "observation_age_p99_s": quantile(self.ages_s, 0.99),
        }

    def _check_promise(self, tick_ns: int, step: Step) -> None:
        chunk = step.chunk
        if not RULES[chunk.mode].is_locked or chunk is self._checked:
            return
        if step.index < chunk.delay_ticks or chunk.delay_ticks == 0:
            return
        self._checked = chunk
        ticks = (chunk.stamp_ns + index * chunk.period_ns for index in range(1, chunk.delay_ticks))
        self.mismatches.append(
            prefix_mismatch(chunk, [self._played.get(tick) for tick in ticks if tick < tick_ns])
        )

    def _distance(self, one: FloatArray, other: FloatArray) -> float:
        gap = self.spec.to_normalised(one) - self.spec.to_normalised(other)
        return float(np.linalg.norm(gap[:GRIPPER_INDEX]))


def quantile(values: Sequence[float], share: float) -> float:
    """Smallest value that covers `share` of the values, NaN when there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale > 0.0 else math.nan
