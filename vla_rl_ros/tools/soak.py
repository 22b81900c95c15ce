# SPDX-License-Identifier: Apache-2.0
"""Long runs of the timing core alone: does the plan ever run dry, is every promise kept?

No robot and no network: a stand-in policy whose chunks disagree with each other as those of a
multi-modal policy do, at 20 Hz, behind a server with jitter and spikes. Called by `bench seams`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_rl_ros.core.chunking import Step, hold_action
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import GRIPPER_INDEX, STATE_DIM, ActionSpec
from vla_rl_ros.core.types import FloatArray, Mode
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.tools.lockstep import InjectedDelay, LockStep, make_session
from vla_rl_ros.tools.seam_cells import jsonable, seam_row

CONTROL_PERIOD_S = 0.05
HORIZON = 50
"""As a full-size PI0 answers."""
LATENCIES_S = (0.02, 0.1, 0.2, 0.3)
JITTER_S = 0.05
OVERHEAD_S = 0.005
"""From a tick to the begin of its inference and from its end to the actor."""
SPIKE_S = 0.6
SPIKE_SHARE = 0.005
_SWING_PERIOD_TICKS = 80
_RETURN_TICKS = 10.0


class SwingPolicy:
    """Swings along six axes, and cannot decide on which side of the way.

    Each chunk keeps to one side, drawn anew; a chunk that knows what is promised leaves from there
    and changes sides smoothly.
    """

    horizon = HORIZON
    cameras: tuple[str, ...] = ()
    needs_objects = False
    anchor = Anchor.MEASURED
    conditionings = frozenset({Conditioning.NONE, Conditioning.LOCK})
    max_locked = HORIZON

    def __init__(self, seed: int) -> None:
        """Seed the choice of sides."""
        self._rng = np.random.default_rng(seed)
        self._spec = ActionSpec(control_period_s=CONTROL_PERIOD_S)
        self._period_ns = round(CONTROL_PERIOD_S * 1e9)

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """The swing from the tick of the observation on, shape (HORIZON, 7)."""
        rows = np.arange(HORIZON)
        angle = (
            2.0 * np.pi * (observation.stamp_ns // self._period_ns + rows) / _SWING_PERIOD_TICKS
        )
        side = 0.25 * self._rng.choice((-1.0, 1.0), GRIPPER_INDEX)
        motion = 0.5 * np.sin(angle[:, None] + np.arange(GRIPPER_INDEX)) + side
        normalised = np.concatenate([motion, np.ones((HORIZON, 1))], axis=1)
        if prefix is not None and prefix.num_locked:
            locked = self._spec.to_normalised(prefix.actions[: prefix.num_locked])
            last = prefix.num_locked - 1
            gap = locked[-1] - normalised[last]
            decay = np.exp(-np.maximum(0.0, rows - last) / _RETURN_TICKS)
            normalised += decay[:, None] * gap
            normalised[: len(locked)] = locked
        return self._spec.to_si(normalised)

    def reset(self) -> None:
        """Nothing to forget."""


class NoWorld:
    """Does what it is told and never ends."""

    def __init__(self) -> None:
        """Start with an open gripper."""
        self._hold = hold_action(1.0)

    def observe(self, stamp_ns: int, last_action: FloatArray | None) -> PolicyObservation:
        """The time."""
        return PolicyObservation(
            stamp_ns=stamp_ns,
            images={},
            state=np.zeros(STATE_DIM),
            instruction="",
            task="",
            last_action=last_action,
        )

    def execute(self, step: Step | None, stamp_ns: int) -> FloatArray:
        """The element, or standing still."""
        return self._hold if step is None else step.action

    def advance(self) -> bool:
        """Go on."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """One long run.

    Attributes:
        mode: Mode of execution.
        latency_s: Shortest time of an answer.
        num_ticks: Length.
        seed: Of latencies and policy.
    """

    mode: str
    latency_s: float
    num_ticks: int
    seed: int


def run_soak(soak: Soak) -> dict[str, Any]:
    """Run it; returns its row."""
    policy = SwingPolicy(soak.seed)
    usual_s = OVERHEAD_S + soak.latency_s
    delay = InjectedDelay(
        base_periods=usual_s / CONTROL_PERIOD_S,
        jitter_periods=JITTER_S / CONTROL_PERIOD_S,
        spike_share=SPIKE_SHARE,
        spike_periods=SPIKE_S / CONTROL_PERIOD_S,
    )
    delay_ticks = int(np.ceil((usual_s + JITTER_S) / CONTROL_PERIOD_S))
    session = make_session(soak.mode, delay_ticks, policy, CONTROL_PERIOD_S)
    runner = LockStep(session, policy, NoWorld(), round(CONTROL_PERIOD_S * 1e9))
    begin_s = time.perf_counter()
    runner.run(delay, np.random.default_rng(soak.seed), soak.num_ticks)
    row = {
        "kind": "soak",
        "mode": soak.mode,
        "latency_ms": 1e3 * soak.latency_s,
        "jitter_ms": 1e3 * JITTER_S,
        "spike_share": SPIKE_SHARE,
        "spike_ms": 1e3 * SPIKE_S,
        "control_period_s": CONTROL_PERIOD_S,
        "seed": soak.seed,
        "chunks": session.requests.num_conditioned,
        **seam_row(runner, delay_ticks, CONTROL_PERIOD_S),
        "wall_s": time.perf_counter() - begin_s,
    }
    return {name: jsonable(value) for name, value in row.items()}


def soak_summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The worst of the soak rows of ``prefix_lock``, and the jumps of ``naive`` beside them."""
    locked = [row for row in rows if row["mode"] == Mode.PREFIX_LOCK.value]
    naive = [row for row in rows if row["mode"] == Mode.NAIVE.value]
    return {
        "ticks": sum(row["ticks"] for row in locked),
        "chunks": sum(row["chunks"] for row in locked),
        "underflows": sum(row["underflows"] for row in locked),
        "prefix_mismatch": max(row["prefix_mismatch"] for row in locked),
        "delay_hit_share": min(row["delay_hit_share"] for row in locked),
        "late_chunks": sum(row["late_chunks"] for row in locked),
        "boundary_jump_ratio": max(row["boundary_jump_ratio"] for row in locked),
        "boundary_jump_max_ratio": max(row["boundary_jump_max_ratio"] for row in locked),
        "naive_boundary_jump_ratio": max(row["boundary_jump_ratio"] for row in naive),
    }
