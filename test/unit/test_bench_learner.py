# SPDX-License-Identifier: Apache-2.0
"""What `bench learner` makes of its measurements, and that every system of ours can be timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_rl_ros.tools.bench_learner import Measurement, pipeline, summary
from vla_rl_ros.tools.learner_systems import UPDATES_PER_CALL, make_ours, measure


def measured(system: str, number: int, updates_per_s: float) -> Measurement:
    return Measurement(
        case="vector", system=system, critics=2, round=number, updates_per_s=updates_per_s,
        updates_per_cpu_s=updates_per_s, first_call_s=0.0,
    )  # fmt: skip


def test_ratios_compare_neighbours_in_time() -> None:
    # A machine that gets twice as slow changes speeds, not the ratio.
    rows = [
        measured(system, number, speed / (1 + number))
        for number in range(2)
        for system, speed in (("ours", 300.0), ("sb3", 100.0), ("sbx", 200.0))
    ]
    figures = summary(rows)
    assert figures["updates_per_s"]["vector_e2"] == {"ours": 225.0, "sb3": 75.0, "sbx": 150.0}
    assert figures["ratio_sb3"] == {"vector_e2": 3.0}
    assert figures["ratio_sbx"] == {"vector_e2": 1.5}


def test_absent_peers_leave_no_ratio() -> None:
    figures = summary([measured("ours", 0, 10.0)])
    assert figures["ratio_sb3"] == figures["ratio_sbx"] == {}


def test_speed_counts_updates_and_not_calls() -> None:
    done = []
    found = measure(lambda: done.append(sum(range(20_000))), duration_s=0.01)
    assert len(done) >= 5
    assert found["updates_per_s"] > UPDATES_PER_CALL


@pytest.mark.slow
def test_our_system_runs_as_it_is_timed(tmp_path: Path) -> None:
    make_ours(num_critics=2, obs_dim=8, execution="eager", directory=tmp_path)()


def test_pipeline_reports_positive_figures() -> None:
    figures = pipeline(repeats=5)
    assert set(figures) >= {
        "replay_samples_per_s",
        "actor_step_p99_us",
        "weights_to_action_p99_ms",
    }
    assert all(value > 0.0 for value in figures.values())
