# SPDX-License-Identifier: Apache-2.0
"""Which clock a stamp comes from, and what it comes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.hardware.exposure_stamp import (
    ClockDomain,
    FrameTiming,
    PlaybackClock,
    StampSource,
    live_stamp,
)

MS = 1_000_000
ARRIVAL_NS = 1_700_000_000_000_000_000
PERIOD_NS = 33 * MS


def timing(**changes) -> FrameTiming:
    values = {
        "arrival_ns": ARRIVAL_NS,
        "timestamp_ns": ARRIVAL_NS - 10 * MS,
        "domain": ClockDomain.GLOBAL,
        "period_ns": PERIOD_NS,
        **changes,
    }
    return FrameTiming(**values)


@pytest.mark.parametrize(
    ("changes", "age_ms", "source"),
    [
        ({"readout_us": 9_000, "mid_exposure_us": 1_000}, 18.0, StampSource.MID_EXPOSURE),
        # The camera's 32 bit counter wrapped between the two.
        ({"readout_us": 3_000, "mid_exposure_us": 2**32 - 5_000}, 18.0, StampSource.MID_EXPOSURE),
        # An offset that no exposure can have is not believed.
        ({"readout_us": 1_000, "mid_exposure_us": 9_000}, 26.5, StampSource.HALF_PERIOD),
        ({"readout_us": 9_000, "exposure_us": 10_000}, 15.0, StampSource.HALF_EXPOSURE),
        # An exposure longer than the frame is cut to the frame.
        ({"exposure_us": 10_000_000}, 26.5, StampSource.HALF_EXPOSURE),
        ({}, 26.5, StampSource.HALF_PERIOD),
        ({"domain": ClockDomain.SYSTEM}, 26.5, StampSource.HOST),
        ({"domain": ClockDomain.HARDWARE, "timestamp_ns": 5 * MS}, 16.5, StampSource.ARRIVAL),
        # A mapping that has not settled: in the future, or long ago.
        ({"timestamp_ns": ARRIVAL_NS + 90 * MS}, 16.5, StampSource.ARRIVAL),
        ({"timestamp_ns": ARRIVAL_NS - 9_000 * MS}, 16.5, StampSource.ARRIVAL),
    ],
)
def test_the_best_clock_wins(changes, age_ms: float, source: StampSource) -> None:
    stamp_ns, found = live_stamp(timing(**changes))
    assert found is source
    assert (ARRIVAL_NS - stamp_ns) / MS == age_ms


def test_a_live_stamp_is_never_in_the_future() -> None:
    exact = {"readout_us": 1, "mid_exposure_us": 1}
    stamp_ns, _ = live_stamp(timing(timestamp_ns=ARRIVAL_NS + MS, **exact))
    assert stamp_ns == ARRIVAL_NS


def test_playback_keeps_the_spacing_of_the_recording() -> None:
    clock = PlaybackClock()
    stamps = [
        clock.stamp(timing(timestamp_ns=7 + k * PERIOD_NS, arrival_ns=ARRIVAL_NS + k * 34 * MS))[0]
        for k in range(5)
    ]
    assert stamps == [ARRIVAL_NS + k * PERIOD_NS for k in range(5)]


def test_playback_is_anchored_again_when_the_recording_starts_over() -> None:
    clock = PlaybackClock()
    clock.stamp(timing(timestamp_ns=100 * MS))
    later_ns = ARRIVAL_NS + PERIOD_NS
    assert clock.stamp(timing(timestamp_ns=0, arrival_ns=later_ns))[0] == later_ns


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000 * MS), st.integers(1, 500 * MS)), min_size=2, max_size=30
    )
)
def test_playback_never_runs_backwards_nor_ahead(frames: list[tuple[int, int]]) -> None:
    clock, arrival_ns, last_ns = PlaybackClock(), ARRIVAL_NS, 0
    for recorded_ns, wait_ns in frames:
        arrival_ns += wait_ns
        stamp_ns, _ = clock.stamp(timing(timestamp_ns=recorded_ns, arrival_ns=arrival_ns))
        assert last_ns <= stamp_ns <= arrival_ns
        last_ns = stamp_ns
