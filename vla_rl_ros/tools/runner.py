# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a graph without ROS: start in order, watch, respawn, stop arm last.

Owns all children; one thread, no handlers: signals are blocked and waited for, so a death or a
Ctrl-C is noticed at once and never in the middle of something. Knows nothing of ROS nodes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vla_rl_ros.tools.child import Child, Command, die_with_parent
from vla_rl_ros.tools.shared_memory import DeadPorts, mapped_segments, remove_dead

START_TIMEOUT_S = 30.0
SEGMENT_AGE_S = 20.0
"""Age at which a process has opened what it will, on a busy machine too."""
STOP_DEADLINE_S = 4.0
"""After it everybody is killed who has nothing to save; without those it takes less than 5 s."""
TERM_DEADLINE_S = 3.7
STAGE_WAIT_S = (0.5, 0.5, 1.0, 1.5)
"""Patience with each stage before the next one is told; a stage that hangs does not block it."""
CONFIG_ERROR = 2
"""Exit code of a node that refused its parameters: the next start would end the same way."""
_STOPS = (signal.SIGINT, signal.SIGTERM)
_SIGNALS = (*_STOPS, signal.SIGCHLD)


class Runner:
    """Runs commands until a signal, or until one of them makes going on pointless."""

    def __init__(
        self,
        commands: Sequence[Command],
        *,
        log_dir: Path,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        """Prepare the children.

        Args:
            commands: In the order of their start.
            log_dir: Receives one log per process; created, older logs are replaced.
            environment: Environment of every process.
            say: Told in one sentence each what the operator should know.
        """
        log_dir.mkdir(parents=True, exist_ok=True)
        self._say = say
        self._children = []
        for command in commands:
            log_path = log_dir / f"{command.name}.log"
            log_path.write_bytes(b"")
            self._children.append(Child(command, log_path, environment))
        self._segments: dict[str, set[str]] = {command.name: set() for command in commands}
        self._dead_ports = DeadPorts()
        self._left: list[Child] = []
        self._is_failed = False

    def run(self) -> int:
        """Start, watch until the end, stop.

        Returns:
            0 after SIGINT or SIGTERM when every process ended properly, 1 otherwise.
        """
        for signum in _STOPS:
            # Shells start background jobs with SIGINT ignored; a launcher must hear it.
            if signal.getsignal(signum) is signal.SIG_IGN:
                signal.signal(signum, signal.SIG_DFL)
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._start():
                self._watch()
        finally:
            self._stop()
            # A second Ctrl-C has got what it wanted; it must not spoil the exit code.
            for signum in _STOPS:
                signal.signal(signum, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return int(self._is_failed)

    def _start(self) -> bool:
        for child in self._children:
            child.start(time.monotonic())
            if child.command.ready_path and not self._wait_ready(child):
                return False
        return True

    def _wait_ready(self, child: Child) -> bool:
        path = Path(child.command.ready_path)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if self._is_signalled(timeout_s=0.05):
                return False
            if not child.is_alive:
                self._fail(child, f"ended with code {child.returncode} while starting")
                return False
            if time.monotonic() > deadline_s:
                self._fail(child, f"did not serve within {START_TIMEOUT_S:.0f} s")
                return False
        return True

    def _watch(self) -> None:
        while not self._is_signalled(timeout_s=1.0):
            now_s = time.monotonic()
            dead = [c for c in self._children if not c.is_alive and c not in self._left]
            if not all(self._survives(child, now_s) for child in dead):
                return
            self._note_segments(now_s)
            self._echo()

    def _echo(self) -> None:
        for child in self._children:
            if child.command.echo:
                for line in child.new_lines():
                    self._say(line)

    def _is_signalled(self, timeout_s: float) -> bool:
        """Wait for a child's death or for the time to pass; True when the runner must end."""
        info = signal.sigtimedwait(_SIGNALS, timeout_s)
        return info is not None and info.si_signo != signal.SIGCHLD

    def _survives(self, child: Child, now_s: float) -> bool:
        """React to a dead child: start it again, or say why everything must stop."""
        code = child.returncode
        if child.command.critical:
            self._fail(child, f"ended with code {code}, and nothing works without it")
        elif not child.command.respawn:
            self._say(f"{child.command.name} ended with code {code}; the others go on")
            self._left.append(child)
            return True
        elif code == CONFIG_ERROR:
            self._fail(child, "refused its parameters")
        elif not child.budget.allows(now_s):
            self._fail(child, f"died again and again, last with code {code}")
        else:
            self._say(f"{child.command.name} ended with code {code} and is started again")
            self._bury(child)
            child.start(now_s)
            return True
        return False

    def _bury(self, child: Child) -> None:
        """Keep a new process off the ports of the dead one, and give back its memory."""
        names = self._segments[child.command.name]
        self._dead_ports.keep(names)
        remove_dead(name for name in names if "_port" not in name)

    def _fail(self, child: Child, sentence: str) -> None:
        self._is_failed = True
        lines = [f"{child.command.name} {sentence}; last lines of {child.log_path}:"]
        self._say("\n    ".join([*lines, *child.last_lines()]))

    def _note_segments(self, now_s: float) -> None:
        """Remember which shared memory young processes use, in case they are killed later."""
        for child in self._children:
            if now_s - child.started_s <= SEGMENT_AGE_S:
                self._segments[child.command.name] |= mapped_segments([child.pid])

    def _stop(self) -> None:
        begin_s = time.monotonic()
        living = mapped_segments(child.pid for child in self._children if child.is_alive)
        stages = sorted({child.command.stop_stage for child in self._children})
        for stage in stages:
            members = [c for c in self._children if c.command.stop_stage == stage]
            for child in members:
                child.send(signal.SIGINT)
            wait_s = STAGE_WAIT_S[stage] if stage < len(STAGE_WAIT_S) else STOP_DEADLINE_S
            until_s = min(time.monotonic() + wait_s, begin_s + TERM_DEADLINE_S)
            self._wait_ended(members, until_s)
        for child in self._children:
            child.send(signal.SIGTERM)
        self._kill_late(begin_s + STOP_DEADLINE_S)
        self._echo()
        self._dead_ports.release()
        remove_dead(living.union(*self._segments.values()))
        self._report(time.monotonic() - begin_s)

    def _kill_late(self, deadline_s: float) -> None:
        """Wait for the end of all, and kill who is late; who may have to save is so later."""
        for save_s in sorted({child.command.save_s for child in self._children}):
            waiting = [c for c in self._children if c.is_alive and c.command.save_s >= save_s]
            if save_s and waiting:
                names = ", ".join(child.command.name for child in waiting)
                self._say(f"waits up to {save_s:.0f} s for what {names} may have to save")
            self._wait_ended(self._children, deadline_s + save_s)
            for child in self._children:
                if child.command.save_s <= save_s:
                    child.send(signal.SIGKILL)
        self._wait_ended(self._children, float("inf"))

    def _wait_ended(self, children: Sequence[Child], until_s: float) -> None:
        while any(child.is_alive for child in children) and time.monotonic() < until_s:
            # A second Ctrl-C must not cut the stop short; it is taken and forgotten here.
            signal.sigtimedwait(_SIGNALS, 0.05)

    def _report(self, duration_s: float) -> None:
        for child in self._children:
            if child.was_asked_to_stop and not child.ended_cleanly:
                self._fail(child, f"ended with code {child.returncode} when it was stopped")
        num_started = sum(child.pid > 0 for child in self._children)
        self._say(f"stopped {num_started} processes in {duration_s:.1f} s")


def write_plan(path: Path, commands: Sequence[Command], log_dir: Path) -> None:
    """Write what `main` runs; it stays beside the logs as a record of what ran."""
    rows = [dataclasses.asdict(command) for command in commands]
    plan = {"log_dir": str(log_dir), "commands": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=1), encoding="utf-8")


def read_plan(path: Path) -> tuple[list[Command], Path]:
    """Commands and log directory of a plan."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    rows = [{**row, "argv": tuple(row["argv"])} for row in plan["commands"]]
    return [Command(**row) for row in rows], Path(plan["log_dir"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan; stop everything when the owner dies."""
    parser = argparse.ArgumentParser(prog="python -m vla_rl_ros.tools.runner", description=__doc__)
    parser.add_argument("plan", type=Path, help="file written by write_plan")
    parser.add_argument("--owner", type=int, help="process id of the parent to depend on")
    options = parser.parse_args(arguments)
    if options.owner is not None:
        # From here on its death is a SIGTERM to us; before, it shows in the parent's id.
        die_with_parent()
        if os.getppid() != options.owner:
            return 1
    commands, log_dir = read_plan(options.plan)

    def say(sentence: str) -> None:
        print(f"[runner] {sentence}", file=sys.stderr, flush=True)

    return Runner(commands, log_dir=log_dir, environment=os.environ, say=say).run()


if __name__ == "__main__":
    sys.exit(main())
