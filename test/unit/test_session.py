# SPDX-License-Identifier: Apache-2.0
"""Which episodes of a session count."""

from __future__ import annotations

import math

import pytest

from vla_rl_ros.tools import session
from vla_rl_ros.tools.report import EpisodeResult
from vla_rl_ros.tools.session import EpisodePlan, Session, play_episode


class IdleObserver:
    """A graph that is idle again whenever somebody looks."""

    episode = None

    def number(self, _node: str, _key: str) -> float:
        return 1.0


def played(monkeypatch: pytest.MonkeyPatch, *ends: tuple[str, float]) -> Session:
    """A session of one planned episode whose starts end like this."""
    queue = [
        EpisodeResult(episode_id=str(i), task="peg", seed=3, outcome=outcome, duration_s=seconds)
        for i, (outcome, seconds) in enumerate(ends)
    ]
    monkeypatch.setattr(session, "_run_episode", lambda *_: queue.pop(0))
    result = Session()
    plan = EpisodePlan(task="peg", seed=3)
    play_episode(IdleObserver(), plan, result, None, lambda: None, may_recover=True)
    assert not queue
    return result


def test_an_episode_that_never_began_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, ("fault", math.nan), ("success", 3.0))
    assert [result.outcome for result in found.results] == ["success"]
    assert found.summary()["failed_resets"] == 1


def test_a_fault_while_it_ran_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, ("fault", 2.0))
    assert [result.outcome for result in found.results] == ["fault"]
    assert found.summary()["failed_resets"] == 0


def test_a_cell_that_cannot_be_reset_fails_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, *[("fault", math.nan)] * 3)
    assert [result.outcome for result in found.results] == ["fault"]
    assert found.summary()["failed_resets"] == 3


def test_who_cancels_before_the_begin_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, ("aborted", math.nan))
    assert [result.outcome for result in found.results] == ["aborted"]
