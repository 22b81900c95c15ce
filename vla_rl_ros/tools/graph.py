# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a graph, with or without a program beside them.

`run_graph` gives command lines a running graph to talk to; the graph itself is run by a process of
its own (`tools/runner.py`), which stops everything in order even when its owner is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from vla_rl_ros.core.errors import VlaRlError
from vla_rl_ros.ros.graph_options import GraphOptions
from vla_rl_ros.ros.processes import (
    ProcessSpec,
    build_graph,
    graph_environment,
    parameter_file,
    ros_arguments,
)
from vla_rl_ros.tools.child import Command
from vla_rl_ros.tools.runner import Runner, write_plan

_PREFIX = "vla_rl_ros"
STOP_TIMEOUT_S = 8.0
"""Patience with a runner, beside what its processes may need to save."""


class GraphEndedError(VlaRlError, RuntimeError):
    """The graph stopped by itself; the sentence says why."""


class RunningGraph:
    """A graph that another process runs.

    Attributes:
        log_dir: Logs of all processes.
        run_dir: Where simulator, cameras and `sim_cell` meet.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log_dir: Path,
        run_dir: Path,
        *,
        save_s: float = 0.0,
    ) -> None:
        """Take over the runner's process.

        Args:
            process: The runner.
            log_dir: As the attribute.
            run_dir: As the attribute.
            save_s: The longest that one of its processes may take to save when it is stopped.
        """
        self._process = process
        self._stop_timeout_s = STOP_TIMEOUT_S + save_s
        self.log_dir = log_dir
        self.run_dir = run_dir

    @property
    def runner_pid(self) -> int:
        """Process id of the runner, parent of every process of the graph."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code of the runner, None while it runs; 0 when everything ended properly."""
        return self._process.poll()

    def check(self) -> None:
        """Do nothing while the graph runs.

        Raises:
            GraphEndedError: It has stopped, with what the runner said.
        """
        if self._process.poll() is not None:
            raise GraphEndedError(f"the graph has stopped:\n{self.said()}")

    def said(self) -> str:
        """What the runner has told so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.log_dir / "runner.log").read_text(encoding="utf-8").strip()
        return ""

    def stop(self) -> int:
        """Stop everything, arm last.

        Returns:
            0 when every process ended properly, 1 otherwise.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            # Its children are told to end by the kernel when it is gone.
            self._process.kill()
            return self._process.wait()


@contextlib.contextmanager
def run_graph(options: GraphOptions) -> Iterator[RunningGraph]:
    """Run a graph for the time of a with block; a ROS context made inside joins it.

    The environment of the calling process is that of the graph meanwhile. Enter the block before
    the first `rclpy.init`.

    Args:
        options: What to run.

    Raises:
        ConfigError: No graph can be built from these options.
    """
    with _run_dir() as run_dir:
        environment = graph_environment(run_dir)
        log_dir = options.out.resolve() / "logs"
        commands = graph_commands(options, run_dir, log_dir)
        plan = log_dir / "plan.json"
        write_plan(plan, commands, log_dir)
        before = dict(os.environ)
        os.environ.update(environment)
        argv = [sys.executable, "-m", "vla_rl_ros.tools.runner", str(plan)]
        with (log_dir / "runner.log").open("wb") as log:
            process = subprocess.Popen(
                [*argv, "--owner", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        save_s = max((command.save_s for command in commands), default=0.0)
        graph = RunningGraph(process, log_dir, run_dir, save_s=save_s)
        try:
            yield graph
        finally:
            graph.stop()
            os.environ.clear()
            os.environ.update(before)


def run_until_signal(options: GraphOptions, say: Callable[[str], None]) -> int:
    """Run a graph in this process until SIGINT or SIGTERM.

    Args:
        options: What to run.
        say: Told what the operator should know.

    Returns:
        0 when everything ended properly.
    """
    with _run_dir() as run_dir:
        log_dir = options.out.resolve() / "logs"
        commands = graph_commands(options, run_dir, log_dir)
        write_plan(log_dir / "plan.json", commands, log_dir)
        environment = graph_environment(run_dir)
        runner = Runner(commands, log_dir=log_dir, environment=environment, say=say)
        return runner.run()


def graph_commands(options: GraphOptions, run_dir: Path, log_dir: Path) -> list[Command]:
    """Command lines of a graph; writes the parameter file of each process beside its log."""
    log_dir.mkdir(parents=True, exist_ok=True)
    return [_command(spec, run_dir, log_dir) for spec in build_graph(options)]


def write_parameters(spec: ProcessSpec, folder: Path) -> Path:
    """Write the ROS parameter file of a process; returns its path."""
    path = folder / f"{spec.name}.params.yaml"
    path.write_text(yaml.safe_dump(parameter_file(spec), sort_keys=False), encoding="utf-8")
    return path


def _command(spec: ProcessSpec, run_dir: Path, log_dir: Path) -> Command:
    argv = [sys.executable, "-m", spec.module, *spec.arguments]
    if spec.is_ros:
        argv += ros_arguments(spec, write_parameters(spec, log_dir))
    return Command(
        name=spec.name,
        argv=tuple(argv),
        respawn=spec.respawn,
        critical=spec.critical,
        stop_stage=int(spec.stop_stage),
        save_s=spec.save_s,
        ready_path=str(run_dir / spec.ready_path) if spec.ready_path else "",
        nice=spec.nice,
        echo=spec.echo,
    )


@contextlib.contextmanager
def _run_dir() -> Iterator[Path]:
    """A private directory for sockets and mapped files, removed at the end.

    Its name carries the owner's process id, so that what a killed owner left is known as stale.
    """
    # Short, because the path of a unix socket may have 107 bytes.
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not base.is_dir():
        base = Path(tempfile.gettempdir())
    _remove_stale(base)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}.{os.getpid()}.", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_stale(base: Path) -> None:
    for path in base.glob(f"{_PREFIX}.*.*"):
        pid = path.name.split(".")[1]
        is_stale = pid.isdigit() and not Path(f"/proc/{pid}").exists()
        # Another start may remove it at the same time.
        with contextlib.suppress(FileNotFoundError):
            if is_stale and path.stat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
