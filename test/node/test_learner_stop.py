# SPDX-License-Identifier: Apache-2.0
"""A learner that is stopped: what has ended is stored, what still runs is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from node.learner_bench import SETTINGS, Bench

from vla_rl_ros.learning.online_run import OnlineRun
from vla_rl_ros.learning.rows import TERMINATED

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
    bench.node.trigger_deactivate() if way == "deactivate" else bench.stop()
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


def test_a_learner_on_a_starved_machine_ends_its_step_and_saves(bench, monkeypatch) -> None:
    # A step that takes longer than what is left to others.
    is_in_step, may_go_on = threading.Event(), threading.Event()
    update = OnlineRun.update

    def slow(run: OnlineRun) -> bool:
        is_in_step.set()
        assert may_go_on.wait(20.0)
        return update(run)

    bench.start()
    begin(bench)
    monkeypatch.setattr(OnlineRun, "update", slow)
    assert bench.until(is_in_step.is_set)
    bench.session.verdict(success=True)
    later = threading.Timer(3.5, may_go_on.set)
    later.start()
    bench.stop()
    later.join()
    assert len(bench.stored()) == 21 + 9


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
