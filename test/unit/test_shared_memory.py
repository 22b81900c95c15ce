# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave in shared memory: whose it is, what goes, what is kept."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from vla_rl_ros.tools import shared_memory
from vla_rl_ros.tools.child import Command
from vla_rl_ros.tools.runner import write_plan
from vla_rl_ros.tools.shared_memory import SHM, DeadPorts, mapped_segments, remove_dead

# Opens a port as Fast DDS does, notes whether it got it, and maps it.
READER = """
import fcntl, mmap, signal, sys
port, log = sys.argv[1:]
lock = open(port + "_el", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    word = "got"
except OSError:
    word = "refused"
with open(port, "wb") as file:
    file.truncate(4096)
with open(port, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096)
with open(log, "a") as file:
    file.write(word + "\\n")
signal.pause()
"""


def leave(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_only_segments_whose_owner_is_dead_are_removed(tmp_path: Path) -> None:
    for name in ("fastdds_dead", "fastdds_alive", "fastdds_foreign"):
        leave(tmp_path, name, f"{name}_el")
    with (tmp_path / "fastdds_alive_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_dead(["fastdds_dead", "fastdds_alive"], tmp_path) == ["fastdds_dead"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "fastdds_alive",
        "fastdds_alive_el",
        "fastdds_foreign",
        "fastdds_foreign_el",
    ]


def test_nobody_can_take_what_is_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "fastdds_port1", "sem.fastdds_port1_mutex", "fastdds_port1_el")
    lock, seen = tmp_path / "fastdds_port1_el", []
    unlink = Path.unlink

    def watched(path: Path) -> None:
        seen.append((path.name, is_locked(lock)))
        unlink(path)

    monkeypatch.setattr(Path, "unlink", watched)
    assert remove_dead(["fastdds_port1"], tmp_path) == ["fastdds_port1"]
    assert seen == [
        ("fastdds_port1", True),
        ("sem.fastdds_port1_mutex", True),
        ("fastdds_port1_el", True),
    ]


def test_a_port_without_a_reader_stays_as_long_as_a_writer_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "fastdds_port1", "fastdds_port2")
    monkeypatch.setattr(shared_memory, "mapped_segments", lambda _: {"fastdds_port1"})
    assert remove_dead(["fastdds_port1", "fastdds_port2"], tmp_path) == ["fastdds_port2"]
    assert [path.name for path in tmp_path.iterdir()] == ["fastdds_port1"]


def test_ports_of_the_dead_are_kept_until_they_are_released(tmp_path: Path) -> None:
    names = ["fastdds_port1", "fastdds_port2", "fastdds_abc"]
    for name in names:
        leave(tmp_path, name, f"{name}_el")
    kept = DeadPorts(tmp_path)
    with (tmp_path / "fastdds_port2_el").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert kept.keep([*names, "fastdds_port3"]) == ["fastdds_port1"]
        assert kept.keep(names) == []
    assert is_locked(tmp_path / "fastdds_port1_el")
    assert not is_locked(tmp_path / "fastdds_port2_el")
    assert remove_dead(["fastdds_port1"], tmp_path) == []
    kept.release()
    assert remove_dead(["fastdds_port1"], tmp_path) == ["fastdds_port1"]


def test_of_many_dead_ports_the_oldest_are_let_go(tmp_path: Path) -> None:
    kept = DeadPorts(tmp_path)
    for number in range(60):
        leave(tmp_path, f"fastdds_port{number}_el")
        kept.keep([f"fastdds_port{number}"])
    assert not is_locked(tmp_path / "fastdds_port0_el")
    assert is_locked(tmp_path / "fastdds_port59_el")
    kept.release()


def test_processes_that_are_gone_have_no_segments() -> None:
    assert mapped_segments([2**22 + 1, os.getpid()]) is not None


@pytest.fixture
def port() -> Iterator[Path]:
    """A port that no Fast DDS opens: its number is beyond those of UDP."""
    path = SHM / f"fastdds_port9{os.getpid():07d}"
    yield path
    for each in (path, path.with_name(f"{path.name}_el")):
        each.unlink(missing_ok=True)


def test_a_process_that_is_started_again_does_not_get_the_port_of_the_dead_one(
    tmp_path: Path, port: Path
) -> None:
    notes = tmp_path / "notes"
    reader = (sys.executable, "-S", "-c", READER, str(port), str(notes))
    pause = (sys.executable, "-S", "-c", "import signal; signal.pause()")
    commands = [
        Command(name="reader", argv=reader, respawn=True),
        Command(name="first", argv=pause),
        Command(name="second", argv=pause),
    ]
    write_plan(tmp_path / "plan.json", commands, tmp_path / "logs")
    runner = subprocess.Popen(
        [sys.executable, "-m", "vla_rl_ros.tools.runner", str(tmp_path / "plan.json")],
        stderr=subprocess.PIPE,
        text=True,
    )

    def noted() -> list[str]:
        return notes.read_text().split() if notes.exists() else []

    try:
        assert until(lambda: noted() == ["got"], 10.0)
        assert runner.stderr is not None
        # The runner looks at who lives once it has told of a death, hence before the next one.
        for name in ("first", "second"):
            os.kill(child_of(runner.pid, pause, name == "second"), signal.SIGTERM)
            while f"{name} ended" not in runner.stderr.readline():
                pass
        os.kill(child_of(runner.pid, reader, False), signal.SIGKILL)
        assert until(lambda: noted() == ["got", "refused"], 10.0)
        runner.send_signal(signal.SIGINT)
        runner.communicate(timeout=10)
        assert not port.exists()
    finally:
        runner.kill()
        runner.communicate()


def child_of(pid: int, argv: tuple[str, ...], is_last: bool) -> int:
    """Process id of the runner's first or last child with a command line."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    found = [
        int(child)
        for child in text.split()
        if Path(f"/proc/{child}/cmdline").read_text().split("\0")[:-1] == list(argv)
    ]
    return found[-1 if is_last else 0]
