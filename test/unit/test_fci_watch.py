# SPDX-License-Identifier: Apache-2.0
"""Counting control commands that stay out."""

from __future__ import annotations

import pytest

from vla_rl_ros.sim.fci_watch import CommandWatch


def test_nothing_is_missed_before_the_first_command():
    watch = CommandWatch(limit=1)
    watch.start()
    for _ in range(50):
        watch.note(is_received=False)
    assert watch.num_missed == 0
    assert not watch.is_limit_exceeded
    assert not watch.is_client_attentive


def test_the_success_rate_is_that_of_the_last_hundred():
    watch = CommandWatch()
    watch.start()
    assert watch.success_rate == 1.0
    for tick in range(500):
        watch.note(is_received=tick % 4 != 3)
    assert watch.success_rate == pytest.approx(0.75)
    for _ in range(100):
        watch.note(is_received=True)
    assert watch.success_rate == 1.0
    assert watch.num_missed == 125


def test_only_an_unbroken_run_beyond_the_limit_counts():
    watch = CommandWatch(limit=20)
    watch.start()
    watch.note(is_received=True)
    for _ in range(20):
        watch.note(is_received=False)
    assert not watch.is_limit_exceeded
    watch.note(is_received=True)
    for _ in range(21):
        watch.note(is_received=False)
    assert watch.is_limit_exceeded


def test_without_a_limit_a_silent_client_is_only_no_longer_waited_for():
    watch = CommandWatch()
    watch.start()
    watch.note(is_received=True)
    assert watch.is_client_attentive
    for _ in range(1000):
        watch.note(is_received=False)
    assert not watch.is_limit_exceeded
    assert not watch.is_client_attentive
    watch.note(is_received=True)
    assert watch.is_client_attentive
