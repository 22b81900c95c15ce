# SPDX-License-Identifier: Apache-2.0
"""The whole graph as processes, with fake devices: it stops completely, and mends itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.tools.graph import GraphEndedError, RunningGraph, run_graph
from vla_rl_ros.tools.shared_memory import mapped_segments, remove_dead

pytestmark = [pytest.mark.graph, pytest.mark.ros, pytest.mark.timeout(120)]

BRINGUP_TIMEOUT_S = 60.0


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[RunningGraph]:
    with run_graph(GraphOptions(backend=Backend.FAKE, out=tmp_path)) as running:
        yield running


@pytest.fixture
def observer(graph: RunningGraph) -> Iterator[GraphObserver]:
    with GraphObserver() as made:
        wait_for_phase(made, graph, Phase.IDLE)
        yield made


def wait_for_phase(observer: GraphObserver, graph: RunningGraph, phase: Phase) -> None:
    observer.wait_until(
        lambda: observer.episode is not None and observer.episode.phase is phase,
        BRINGUP_TIMEOUT_S,
        f"phase {phase.value}",
        graph.check,
    )


def children(graph: RunningGraph) -> dict[str, psutil.Process]:
    """Processes of the graph by the last word of their module."""
    found = {}
    for child in psutil.Process(graph.runner_pid).children():
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if "-m" not in words:
            # Not yet what it will be.
            continue
        module = words[words.index("-m") + 1].rpartition(".")[2]
        renamed = [word.partition(":=")[2] for word in words if word.startswith("__node:=")]
        found[renamed[0] if renamed else module] = child
    return found


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_running_episode_stops_everything_and_leaves_nothing(
    graph: RunningGraph, observer: GraphObserver, signum: signal.Signals
) -> None:
    observer.trigger("supervisor/start_episode")
    wait_for_phase(observer, graph, Phase.RUNNING)
    processes = children(graph)
    assert {"arm", "camera_wrist", "camera_front", "intervention", "supervisor"} <= set(processes)
    segments = mapped_segments(process.pid for process in processes.values())
    assert segments
    observer.close()
    begin_s = time.monotonic()
    os.kill(graph.runner_pid, signum)
    assert until(lambda: graph.returncode is not None, 10.0)
    assert time.monotonic() - begin_s < 5.0, graph.said()
    assert graph.returncode == 0, graph.said()
    assert not any(process.is_running() for process in processes.values())
    # Whoever else is in this domain, this process for one, keeps segments of its own.
    assert remove_dead(segments) == []


def test_the_run_directory_lives_as_long_as_the_graph(tmp_path: Path) -> None:
    options = GraphOptions(backend=Backend.FAKE, out=tmp_path, exclude=frozenset({"recorder"}))
    with run_graph(options) as graph:
        assert graph.run_dir.stat().st_mode & 0o777 == 0o700
        assert os.environ["VLA_RL_RUN_DIR"] == str(graph.run_dir)
    assert not graph.run_dir.exists()
    assert os.environ.get("VLA_RL_RUN_DIR") != str(graph.run_dir)


def test_what_may_die_is_started_and_brought_up_again_and_the_next_episode_runs(
    graph: RunningGraph, observer: GraphObserver
) -> None:
    mortal = ("camera_front", "recorder", "vla_inference", "residual_actor", "supervisor")
    old = children(graph)
    for name in mortal:
        old[name].kill()

    def are_new() -> bool:
        now = children(graph)
        return all(name in now and now[name].pid != old[name].pid for name in mortal)

    assert until(are_new, 20.0, period_s=0.01)
    begun = (Phase.RESETTING, Phase.READY, Phase.RUNNING)
    deadline_s = time.monotonic() + BRINGUP_TIMEOUT_S
    while observer.episode is None or observer.episode.phase not in begun:
        assert time.monotonic() < deadline_s, (observer.episode, observer.messages)
        # The middleware takes ten seconds to notice a death; requests to the dead are lost, and
        # answers of the newly born may be.
        with contextlib.suppress(VlaRlError):
            observer.trigger("supervisor/start_episode", timeout_s=3.0)
        observer.spin(0.1)
    wait_for_phase(observer, graph, Phase.RUNNING)


def test_a_killed_arm_process_stops_the_graph_with_a_sentence(
    graph: RunningGraph, observer: GraphObserver
) -> None:
    processes = children(graph)
    processes["arm"].kill()
    assert until(lambda: graph.returncode is not None, 10.0)
    assert graph.returncode == 1
    with pytest.raises(GraphEndedError, match="arm ended with code -9, and nothing works"):
        graph.check()
    assert not any(process.is_running() for process in processes.values())
