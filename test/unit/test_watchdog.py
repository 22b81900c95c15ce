# SPDX-License-Identifier: Apache-2.0
"""Silence leads to hold, then to a stop that only a reset leaves."""

from __future__ import annotations

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.watchdog import CommandWatchdog, WatchdogState


def make() -> CommandWatchdog:
    return CommandWatchdog(hold_after_s=0.1, stop_after_s=0.5)


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (0.0, WatchdogState.RUN),
        (0.099, WatchdogState.RUN),
        (0.1, WatchdogState.HOLD),
        (0.49, WatchdogState.HOLD),
        (0.5, WatchdogState.STOP),
        (99.0, WatchdogState.STOP),
    ],
)
def test_state_follows_the_age_of_the_last_command(age_s: float, state: WatchdogState) -> None:
    watchdog = make()
    watchdog.feed(0.0)
    assert watchdog.state(age_s) is state


def test_nothing_runs_before_the_first_command() -> None:
    assert make().state(1e9) is WatchdogState.NEVER


def test_hold_ends_with_a_fresh_command_but_stop_is_latched() -> None:
    watchdog = make()
    watchdog.feed(0.0)
    assert watchdog.state(0.2) is WatchdogState.HOLD
    watchdog.feed(0.25)
    assert watchdog.state(0.26) is WatchdogState.RUN
    assert watchdog.state(0.9) is WatchdogState.STOP
    watchdog.feed(0.95)
    assert watchdog.state(0.96) is WatchdogState.STOP
    watchdog.reset()
    assert watchdog.state(1.0) is WatchdogState.NEVER


def test_ages_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="hold_after_s"):
        CommandWatchdog(hold_after_s=0.5, stop_after_s=0.1)
