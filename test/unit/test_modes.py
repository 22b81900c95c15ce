# SPDX-License-Identifier: Apache-2.0
"""Settings that fit a policy and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from unit.timing_cases import traits

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.modes import (
    AsyncSettings,
    PolicyTraits,
    ensemble_mean,
    lock_rows,
    weighted_mean,
)
from vla_rl_ros.core.prefix import Conditioning, Prefix

DEAF = PolicyTraits(horizon=16, conditionings=frozenset({Conditioning.NONE}), max_locked=16)


@pytest.mark.parametrize(
    ("budget_s", "period_s", "ticks"),
    [
        (0.0, 0.1, 0),
        (0.05, 0.1, 1),
        (0.1, 0.1, 1),
        (0.35, 0.05, 7),
        (0.36, 0.05, 8),
        (0.1, 0.02, 5),
    ],
)
def test_budget_in_ticks(budget_s: float, period_s: float, ticks: int) -> None:
    settings = AsyncSettings(latency_budget_s=budget_s, control_period_s=period_s)
    assert settings.budget_ticks == ticks


def test_pace_follows_the_budget_unless_it_is_set() -> None:
    fast = AsyncSettings(latency_budget_s=0.4)
    assert fast.ticks_per_request(traits()) == 4
    assert AsyncSettings(execute_ticks=6).ticks_per_request(traits()) == 6
    assert AsyncSettings(mode="sync").ticks_per_request(traits()) == 16
    assert AsyncSettings(mode="ensemble", execute_ticks=6).ticks_per_request(traits()) == 1


@pytest.mark.parametrize(
    ("settings", "policy", "words"),
    [
        ({"mode": "rtc"}, DEAF, "mode='rtc'"),
        ({"execute_ticks": 2, "latency_budget_s": 0.3}, traits(), "execute_ticks=2"),
        ({"latency_budget_s": 0.9}, traits(), "settings.horizon=16"),
        ({"execute_ticks": 16}, traits(), "settings.horizon=16"),
        ({"latency_budget_s": 0.4}, traits(max_locked=3), "max_locked"),
        ({"mode": "sync", "execute_ticks": 17}, traits(), "execute_ticks=17"),
        ({"mode": "guess"}, traits(), "mode"),
        ({"control_period_s": 0.01}, traits(), "control_period_s"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    settings: dict[str, object], policy: PolicyTraits, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        AsyncSettings(**settings).check(policy)


def test_the_longest_delay_leaves_s_elements_and_what_the_policy_can_do() -> None:
    settings = AsyncSettings(execute_ticks=4, latency_budget_s=0.2)
    settings.check(traits(max_locked=8))
    assert settings.max_delay(traits()) == 12
    assert settings.max_delay(traits(max_locked=8)) == 8
    # Nothing is asked of a policy that cannot be told, so nothing limits it.
    assert settings.max_delay(DEAF) == 12
    assert AsyncSettings(execute_ticks=3).max_delay(traits(3)) == 1


def test_a_policy_that_cannot_be_told_is_locked_by_the_runtime_alone() -> None:
    settings = AsyncSettings()
    assert settings.conditioning(traits()) is Conditioning.LOCK
    assert settings.conditioning(DEAF) is Conditioning.NONE
    settings.check(DEAF)


def test_locked_rows_are_bit_identical_and_the_answer_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    answer, promised = rng.normal(size=(4, 7)), rng.normal(size=(6, 7))
    before = answer.tobytes()
    prefix = Prefix(actions=promised, num_locked=2, conditioning=Conditioning.LOCK)
    locked = lock_rows(answer, prefix)
    assert locked[:2].tobytes() == promised[:2].tobytes()
    assert locked[2:].tobytes() == answer[2:].tobytes()
    assert answer.tobytes() == before
    beyond = Prefix(actions=promised, num_locked=6, conditioning=Conditioning.LOCK)
    assert lock_rows(answer, beyond).tobytes() == promised[:4].tobytes()


def test_means() -> None:
    assert weighted_mean(np.zeros(7), np.ones(7)) == pytest.approx(np.full(7, 0.7))
    votes = np.stack([np.zeros(7), np.ones(7)])
    assert ensemble_mean(votes)[0] == pytest.approx(np.exp(-0.01) / (1 + np.exp(-0.01)))
    assert ensemble_mean(votes[:1]) == pytest.approx(np.zeros(7))
