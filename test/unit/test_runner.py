# SPDX-License-Identifier: Apache-2.0
"""The process runner with real processes: order, respawn, deadlines, nobody left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from vla_rl_ros.tools.child import Command, RespawnBudget
from vla_rl_ros.tools.runner import read_plan, write_plan

# Notes its start and, on SIGINT, its end; `stubborn` ignores every polite request, `slow` takes
# longer than others have after the last one.
CHILD = """
import os, signal, sys
name, log, kind = sys.argv[1:]
def note(word):
    with open(log, "a") as file:
        file.write(f"{word} {name} {os.getpid()} {os.getsid(0)}\\n")
def end(*_):
    note("stop")
    sys.exit(0)
signal.signal(signal.SIGINT, signal.SIG_IGN if kind in ("stubborn", "slow") else end)
signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "stubborn" else signal.SIG_DFL)
if kind == "slow":
    signal.signal(signal.SIGTERM, lambda *_: signal.setitimer(signal.ITIMER_REAL, 4.5))
    signal.signal(signal.SIGALRM, end)
note("start")
if kind.isdigit():
    print("something went wrong", flush=True)
    sys.exit(int(kind))
while True:
    signal.pause()
"""


class Graph:
    """A runner process, and the notes of its children."""

    def __init__(self, folder: Path) -> None:
        self.notes_path = folder / "notes"
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def command(self, name: str, kind: str = "plain", **fields: object) -> Command:
        # -S: children need no packages, and start three times faster.
        argv = (sys.executable, "-S", "-c", CHILD, name, str(self.notes_path), kind)
        return Command(name=name, argv=argv, **fields)

    def start(self, *commands: Command, owner: int | None = None) -> None:
        plan = self.folder / "plan.json"
        write_plan(plan, commands, self.folder / "logs")
        extra = [] if owner is None else ["--owner", str(owner)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vla_rl_ros.tools.runner", str(plan), *extra],
            stderr=subprocess.PIPE,
            text=True,
        )

    def notes(self, word: str) -> list[str]:
        text = self.notes_path.read_text() if self.notes_path.exists() else ""
        return [line.split()[1] for line in text.splitlines() if line.startswith(word)]

    def pids(self) -> dict[str, int]:
        rows = [line.split() for line in self.notes_path.read_text().splitlines()]
        return {row[1]: int(row[2]) for row in rows if row[0] == "start"}

    def wait_started(self, count: int) -> None:
        assert until(lambda: len(self.notes("start")) == count, 10.0), self.notes("start")

    def stop(self, signum: signal.Signals = signal.SIGINT) -> tuple[int, str, float]:
        assert self.process is not None
        begin_s = time.monotonic()
        self.process.send_signal(signum)
        said = self.process.communicate(timeout=10)[1]
        return self.process.returncode, said, time.monotonic() - begin_s

    def wait(self) -> tuple[int, str]:
        assert self.process is not None
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_starts_in_order_and_stops_by_stage(graph: Graph, signum: signal.Signals) -> None:
    stages = {"sim": 4, "arm": 3, "camera": 2, "gate": 1}
    graph.start(*(graph.command(name, stop_stage=stage) for name, stage in stages.items()))
    graph.wait_started(4)
    code, said, duration_s = graph.stop(signum)
    assert (code, graph.notes("stop")) == (0, ["gate", "camera", "arm", "sim"])
    assert "stopped 4 processes" in said
    assert duration_s < 5.0


def test_the_next_process_waits_until_the_one_before_serves(graph: Graph, tmp_path: Path) -> None:
    socket = tmp_path / "scene.sock"
    graph.start(graph.command("sim", ready_path=str(socket)), graph.command("arm"))
    graph.wait_started(1)
    socket.touch()
    graph.wait_started(2)
    assert graph.notes("start") == ["sim", "arm"]
    assert graph.stop()[0] == 0


def test_a_process_that_dies_while_starting_ends_the_start(graph: Graph) -> None:
    graph.start(graph.command("sim", kind="1", ready_path="/nowhere"), graph.command("arm"))
    code, said = graph.wait()
    assert code == 1
    assert "sim ended with code 1 while starting" in said
    assert "something went wrong" in said
    assert graph.notes("start") == ["sim"]


def test_ctrl_c_of_the_terminal_does_not_reach_the_children(graph: Graph) -> None:
    graph.start(graph.command("arm"))
    graph.wait_started(1)
    session = int(graph.notes_path.read_text().split()[3])
    assert session == graph.pids()["arm"] != os.getsid(0)
    assert graph.stop()[0] == 0


def test_a_critical_death_stops_everything_with_a_sentence(graph: Graph) -> None:
    graph.start(graph.command("arm", critical=True), graph.command("camera", respawn=True))
    graph.wait_started(2)
    os.kill(graph.pids()["arm"], signal.SIGKILL)
    code, said = graph.wait()
    assert code == 1
    assert "arm ended with code -9, and nothing works without it" in said
    assert graph.notes("stop") == ["camera"]


def test_a_camera_is_started_again_but_not_for_ever(graph: Graph) -> None:
    graph.start(graph.command("arm"), graph.command("camera", kind="3", respawn=True))
    code, said = graph.wait()
    assert code == 1
    assert graph.notes("start").count("camera") == 4
    assert said.count("camera ended with code 3 and is started again") == 3
    assert "camera died again and again" in said
    assert said.count("something went wrong") >= 1
    assert graph.notes("stop") == ["arm"]


def test_deaths_far_apart_are_forgiven() -> None:
    budget = RespawnBudget(limit=2, window_s=30.0)
    assert [budget.allows(t) for t in (0.0, 20.0, 40.0, 45.0, 100.0)] == [
        True,
        True,
        True,
        False,
        True,
    ]


def test_what_the_supervisor_logs_is_shown_line_by_line(graph: Graph) -> None:
    graph.start(graph.command("supervisor", kind="3", respawn=True, echo=True))
    said = graph.wait()[1]
    assert said.count("[runner] something went wrong") == 4


def test_a_log_that_is_removed_changes_nothing_else(graph: Graph) -> None:
    graph.start(graph.command("supervisor", echo=True), graph.command("arm", stop_stage=3))
    graph.wait_started(2)
    (graph.folder / "logs/supervisor.log").unlink()
    code, said, _ = graph.stop()
    assert (code, graph.notes("stop")) == (0, ["supervisor", "arm"])
    assert "stopped 2 processes" in said


def test_a_refused_parameter_is_not_tried_again(graph: Graph) -> None:
    graph.start(graph.command("camera", kind="2", respawn=True))
    code, said = graph.wait()
    assert (code, graph.notes("start")) == (1, ["camera"])
    assert "refused its parameters" in said


def test_a_window_may_be_closed(graph: Graph) -> None:
    graph.start(graph.command("arm", critical=True), graph.command("viewer", kind="0"))
    graph.wait_started(2)
    assert until(lambda: not is_alive(graph.pids()["viewer"]), 10.0)
    assert graph.stop()[0] == 0
    assert graph.notes("stop") == ["arm"]


def test_a_stubborn_process_is_killed_in_time_and_told_of(graph: Graph) -> None:
    graph.start(
        graph.command("gate", kind="stubborn", stop_stage=1),
        graph.command("arm", stop_stage=3),
    )
    graph.wait_started(2)
    code, said, duration_s = graph.stop()
    assert code == 1
    assert "gate ended with code -9 when it was stopped" in said
    assert graph.notes("stop") == ["arm"]
    assert duration_s < 5.0


def test_who_has_something_to_save_is_waited_for_when_the_others_are_killed(
    graph: Graph,
) -> None:
    graph.start(
        graph.command("learner", kind="slow", save_s=20.0),
        graph.command("gate", kind="stubborn", stop_stage=1),
        graph.command("arm", stop_stage=3),
    )
    graph.wait_started(3)
    code, said, duration_s = graph.stop()
    assert code == 1
    assert "gate ended with code -9" in said
    assert "waits up to 20 s for what learner may have to save" in said
    assert graph.notes("stop") == ["arm", "learner"]
    assert duration_s < 8.0


def test_who_saves_for_ever_is_killed_in_the_end(graph: Graph) -> None:
    graph.start(graph.command("learner", kind="stubborn", save_s=0.5))
    graph.wait_started(1)
    code, said, duration_s = graph.stop()
    assert code == 1
    assert "learner ended with code -9" in said
    assert duration_s < 8.0


def test_a_second_ctrl_c_does_not_cut_the_stop_short(graph: Graph) -> None:
    graph.start(graph.command("gate", stop_stage=1), graph.command("arm", stop_stage=3))
    graph.wait_started(2)
    assert graph.process is not None
    for _ in range(5):
        graph.process.send_signal(signal.SIGINT)
    assert graph.stop()[0] == 0
    assert graph.notes("stop") == ["gate", "arm"]


def test_nobody_survives_a_killed_runner(graph: Graph) -> None:
    graph.start(graph.command("arm"), graph.command("camera"))
    graph.wait_started(2)
    assert graph.process is not None
    graph.process.kill()
    assert until(lambda: not any(is_alive(pid) for pid in graph.pids().values()), 10.0)


def test_the_runner_stops_everything_when_its_owner_is_killed(graph: Graph) -> None:
    plan = graph.folder / "plan.json"
    write_plan(plan, [graph.command("arm")], graph.folder / "logs")
    start = (
        "import os, subprocess, sys, time\n"
        "runner = [sys.executable, '-m', 'vla_rl_ros.tools.runner', sys.argv[1]]\n"
        "subprocess.Popen([*runner, '--owner', str(os.getpid())], start_new_session=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", start, str(plan)], stderr=subprocess.DEVNULL)
    graph.wait_started(1)
    owner.kill()
    owner.wait()
    assert until(lambda: graph.notes("stop") == ["arm"], 10.0)


def test_a_plan_survives_the_file(tmp_path: Path) -> None:
    commands = [Command(name="arm", argv=("a", "b"), critical=True, stop_stage=3, nice=5)]
    write_plan(tmp_path / "plan.json", commands, tmp_path)
    assert read_plan(tmp_path / "plan.json") == (commands, tmp_path)
