# SPDX-License-Identifier: Apache-2.0
"""When a camera counts as stalled and when it is restarted; time is an argument."""

from __future__ import annotations

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.hardware.camera_health import (
    CameraHealth,
    CameraStatus,
    HealthSettings,
    RestartPolicy,
)

MS = 1_000_000
SETTINGS = HealthSettings(
    rate_hz=10.0, stall_after_s=0.5, restart_after_s=2.0, first_backoff_s=1.0, max_backoff_s=5.0
)


def restart_times(policy: RestartPolicy, until_s: int, *, is_opening: bool) -> list[float]:
    """Step through time in tenths; every restart opens the camera, or fails to."""
    times = []
    for tick in range(until_s * 10):
        now_s = tick / 10
        if policy.must_restart(now_s):
            times.append(now_s)
            policy.opened(now_s) if is_opening else policy.lost(now_s)
    return times


def test_a_silent_camera_is_restarted_with_growing_pauses() -> None:
    policy = RestartPolicy(SETTINGS)
    policy.opened(0.0)
    assert restart_times(policy, 25, is_opening=True) == [2.0, 4.0, 6.0, 10.0, 15.0, 20.0]


def test_a_lost_camera_is_looked_for_with_growing_pauses() -> None:
    policy = RestartPolicy(SETTINGS)
    policy.opened(0.0)
    policy.lost(0.0)
    assert policy.until_due_s(0.0) == 1.0
    assert restart_times(policy, 20, is_opening=False) == [1.0, 3.0, 7.0, 12.0, 17.0]


def test_a_frame_resets_the_pause() -> None:
    policy = RestartPolicy(SETTINGS)
    policy.opened(0.0)
    restart_times(policy, 12, is_opening=True)
    policy.delivered(12.0)
    assert not policy.must_restart(13.9)
    assert policy.must_restart(14.0)


def test_restart_can_be_switched_off_but_a_lost_device_is_still_looked_for() -> None:
    policy = RestartPolicy(HealthSettings(restart_after_s=0.0))
    policy.opened(0.0)
    policy.delivered(1.0)
    assert not policy.must_restart(1e6)
    policy.lost(1e6)
    assert policy.must_restart(1e6 + 1.0)


def test_silence_becomes_one_stall_and_a_frame_ends_it() -> None:
    health = CameraHealth(SETTINGS)
    health.opened(0.0)
    for now_s in (0.1, 0.5, 0.6, 0.7):
        health.silent(now_s)
    report = health.report(0.7)
    assert (report.status, report.num_stalls) == (CameraStatus.STALLED, 1)
    assert report.silence_s == pytest.approx(0.7)
    health.delivered(0.8, 0, 5 * MS)
    assert health.report(0.8).status is CameraStatus.STREAMING


def test_a_reader_that_hangs_shows_as_stalled() -> None:
    health = CameraHealth(SETTINGS)
    health.delivered(1.0, 0, 0)
    assert health.report(1.6).status is CameraStatus.STALLED


def test_figures_of_a_stream_with_a_gap() -> None:
    health = CameraHealth(SETTINGS)
    health.opened(0.0)
    for index in (0, 1, 2, 5, 6):
        stamp_ns = index * 100 * MS
        health.delivered(index * 0.1, stamp_ns, stamp_ns + 7 * MS)
    health.repeated(0.6)
    report = health.report(0.6)
    assert (report.num_frames, report.num_missing, report.num_repeated) == (5, 2, 1)
    assert report.rate_hz == pytest.approx(4 / 0.6)
    assert report.stamp_age_p50_ms == pytest.approx(7.0)


def test_frames_lost_by_a_restart_do_not_count_as_missing() -> None:
    health = CameraHealth(SETTINGS)
    health.delivered(0.0, 0, 0)
    health.lost(0.1, "unplugged")
    health.restarted(9.0)
    health.delivered(9.1, 9_000 * MS, 9_000 * MS)
    report = health.report(9.1)
    assert (report.num_missing, report.num_restarts, report.num_stalls) == (0, 1, 1)
    assert report.sentence == "unplugged"


def test_repeated_frames_are_no_sign_of_life() -> None:
    health = CameraHealth(SETTINGS)
    health.delivered(0.0, 0, 0)
    health.repeated(0.6)
    assert health.report(0.6).status is CameraStatus.STALLED
    assert health.report(0.6).num_stalls == 1


@pytest.mark.parametrize(
    "values",
    [
        {"rate_hz": 0.0},
        {"stall_after_s": 0.0},
        {"restart_after_s": -1.0},
        {"first_backoff_s": 2.0, "max_backoff_s": 1.0},
    ],
)
def test_senseless_settings_are_refused(values) -> None:
    with pytest.raises(ConfigError):
        HealthSettings(**values)
