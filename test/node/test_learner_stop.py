# SPDX-License-Identifier: Apache-2.0
"""A learner that is stopped: what has ended is stored, what still runs is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from node.learner_bench import SETTINGS, Bench

from vla_rl_ros.learning.online_run import OnlineRun
from vla_rl_ros.learning.rows import TERMINATED
from vla_rl_ros.ros.nodes import learner

pytestmark = pytest.mark.ros


@pytest.fixture
def bench(executor, tmp_path: Path):
    with Bench(executor, tmp_path / "run") as made:
        yield made


def begin(bench: Bench) -> None:
    """Have a learner that has stored an episode and waits for the next one."""
    bench.session.episode()
    assert bench.until(lambda: bench.latest("episodes") == 1.0)
    bench.session.to_present()
    bench.session.begin()
    bench.session.ticks(8)


@pytest.mark.parametrize("way", ["shutdown", "deactivate"])
def test_an_end_that_was_just_told_is_stored_before_the_learner_stops(bench, way: str) -> None:
    bench.start()
    begin(bench)
    bench.session.verdict(success=True)
    if way == "deactivate":
        bench.node.trigger_deactivate()
    # What deactivating has left to the thread, on a busy machine, is done behind this.
    bench.stop()
    rows = bench.stored()
    # Success shows in its last tick, so the outcome was heard, and it has a closing row.
    assert len(rows) == 21 + 9
    assert rows["flags"][-2] & TERMINATED


def test_an_episode_that_runs_is_left_to_the_next_learner_which_stores_all_of_it(bench) -> None:
    bench.start()
    begin(bench)
    bench.stop()
    assert len(bench.stored()) == 21
    bench.start()
    bench.session.ticks(4)
    bench.session.end()
    assert bench.until(lambda: bench.latest("episodes") == 2.0)
    bench.stop()
    assert len(bench.stored()) == 21 + 13


class StarvedStep:
    """A gradient step that lasts until it may end, as on a machine that is busy elsewhere."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        update = OnlineRun.update

        def slow(run: OnlineRun) -> bool:
            self.has_begun.set()
            assert self.may_end.wait(20.0)
            return update(run)

        monkeypatch.setattr(OnlineRun, "update", slow)

    def ends_in(self, delay_s: float) -> threading.Timer:
        later = threading.Timer(delay_s, self.may_end.set)
        later.start()
        return later


def starve(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> StarvedStep:
    """Have a learner that does not end its step and has heard the end of its second episode."""
    bench.start()
    begin(bench)
    step = StarvedStep(monkeypatch)
    assert bench.until(step.has_begun.is_set)
    bench.session.verdict(success=True)
    return step


def test_a_learner_on_a_starved_machine_ends_its_step_and_saves(bench, monkeypatch) -> None:
    # A step that takes longer than what is left to others.
    later = starve(bench, monkeypatch).ends_in(3.5)
    bench.stop()
    later.join()
    assert len(bench.stored()) == 21 + 9


def test_a_deactivated_learner_saves_without_its_executor_waiting_for_it(
    bench, monkeypatch
) -> None:
    step = starve(bench, monkeypatch)
    begin_s = time.monotonic()
    bench.node.trigger_deactivate()
    assert time.monotonic() - begin_s < 5.0
    # Two that learn in one directory would spoil it.
    bench.node.trigger_activate()
    assert not bench.node.is_running
    step.ends_in(0.5).join()
    # The end of the process waits for what deactivating has left to the thread.
    bench.stop()
    assert len(bench.stored()) == 21 + 9


def test_a_learner_that_does_not_end_keeps_its_directory_from_another_one(
    bench, monkeypatch
) -> None:
    monkeypatch.setattr(learner, "_STOP_S", 0.1)
    monkeypatch.setattr(learner, "LEARNER_SAVE_S", 0.2)
    step = starve(bench, monkeypatch)
    bench.node.trigger_deactivate()
    bench.node.trigger_cleanup()
    bench.node.trigger_configure()
    bench.node.trigger_activate()
    assert not bench.node.is_running
    step.may_end.set()


def test_a_learner_that_has_saved_can_be_activated_again(bench, monkeypatch) -> None:
    step = starve(bench, monkeypatch)
    bench.node.trigger_deactivate()
    step.may_end.set()

    def is_active_again() -> bool:
        bench.node.trigger_activate()
        return bench.node.is_running

    assert bench.until(is_active_again)
    assert bench.until(lambda: bench.latest("episodes") == 2.0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_told_to_end_stores_what_has_ended_first(bench, signum: int) -> None:
    command = [sys.executable, "-m", "vla_rl_ros.ros.nodes.learner", "--ros-args"]
    for value in (f"directory:={bench.directory}", f"settings:='{SETTINGS}'"):
        command += ["-p", value]
    command += ["-p", "publish_period_s:=0.2"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    with subprocess.Popen(command, env=environment) as process:
        try:
            begin(bench)
            bench.session.verdict(success=True)
            bench.session.begin()
            bench.session.ticks(3)
            process.send_signal(signum)
            assert process.wait(10.0) == 0
        finally:
            process.kill()
    episodes, counts = np.unique(bench.stored()["episode"], return_counts=True)
    assert counts.tolist() == [21, 9]
    assert len(episodes) == 2
