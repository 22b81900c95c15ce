# SPDX-License-Identifier: Apache-2.0
"""A process that stands in for the operator: looks at the simulated cell, moves a SpaceMouse.

It reads what a person would see (objects, hand, fingers, the phase of the episode) and speaks to
the graph through HID reports only, in no way that a person with a SpaceMouse could not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop_axes import axes_of, with_dead_zone
from vla_rl_ros.core.teleop_config import TeleopConfig
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.sim.hid_mouse import MODELS, HidMouse, build_stub, stub_environment
from vla_rl_ros.sim.operator import Person, PersonSettings, Push
from vla_rl_ros.sim.sight import Sight

if TYPE_CHECKING:
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.tools.graph import RunningGraph

REPORT_S = 0.016
"""A SpaceMouse reports this often while it is pushed."""
DEFAULT_MODEL = "wireless"
_PRESS_S = 0.1
_STOP_TIMEOUT_S = 5.0


class StandIn:
    """One person with one SpaceMouse in front of one graph."""

    def __init__(
        self, observer: GraphObserver, mouse: HidMouse, person: Person, config: TeleopConfig
    ) -> None:
        """Begin to look.

        Args:
            observer: Joined to the graph.
            mouse: Plugged in.
            person: Who moves it.
            config: How the gate reads the mouse, which a person has learned.
        """
        from vla_rl_ros.ros.sampler import Sampler

        self._observer, self._mouse, self._person = observer, mouse, person
        self._config, self._spec = config, ActionSpec()
        self._sampler = Sampler(observer.node)
        self._tcp = self._sampler.tap("arm/tcp_pose")
        self._fingers = self._sampler.tap("gripper/state")
        self._objects = self._sampler.tap("sim/objects")
        self._is_running = False
        self._up_s = 0.0
        self._was_pushing = False
        observer.on_episode(self._on_episode)

    def step(self) -> None:
        """Look for one period of reports, then move the hand."""
        self._observer.spin(REPORT_S)
        now_s = time.monotonic()
        if not self._is_running:
            self._let_go()
            return
        sight = self._look(now_s)
        if sight is not None:
            self._person.see(sight)
        self._move(self._person.act(now_s, self._spec.control_period_s), now_s)

    def _look(self, now_s: float) -> Sight | None:
        from vla_rl_ros.ros import codecs

        tcp, fingers = self._tcp.newest(), self._fingers.newest()
        objects = self._objects.newest()
        if tcp is None or fingers is None or objects is None:
            return None
        try:
            return Sight(
                time_s=now_s,
                tcp=codecs.decode_pose(tcp),
                width_m=codecs.decode_gripper(fingers).width_m,
                objects=codecs.decode_objects(objects),
            )
        except InvalidCommandError:
            return None

    def _move(self, push: Push, now_s: float) -> None:
        if push.is_pressing:
            self._mouse.press("LEFT")
            self._up_s = now_s + _PRESS_S
        elif self._up_s and now_s > self._up_s:
            self._mouse.press()
            self._up_s = 0.0
        if not self._person.is_helping:
            self._let_go()
            return
        axes = axes_of(push.increment, self._config, self._spec)
        axes = with_dead_zone(axes, self._config.dead_zone)
        self._mouse.push(np.clip(axes + push.tremor, -1.0, 1.0).tolist())
        self._was_pushing = True

    def _let_go(self) -> None:
        if self._up_s:
            self._mouse.press()
            self._up_s = 0.0
        if self._was_pushing:
            self._mouse.push((0.0,) * 6)
            self._was_pushing = False

    def _on_episode(self, state: EpisodeState) -> None:
        is_running = state.phase is Phase.RUNNING
        if is_running and not self._is_running:
            self._person.begin(state.task)
        self._is_running = is_running


def expert_skill(task: str, sight: Sight, is_open: bool, tick: int) -> FloatArray:
    """The skill of the scripted experts."""
    from vla_rl_ros.policies.expert_view import ExpertView
    from vla_rl_ros.policies.experts import expert_action

    view = ExpertView(
        tcp=sight.tcp,
        gripper_width_m=sight.width_m,
        is_gripper_open=is_open,
        objects=sight.objects,
        tick=tick,
    )
    return expert_action(task, view)


@contextlib.contextmanager
def simulated_mouse(directory: Path) -> Iterator[Path]:
    """Let processes that are started inside this block find a simulated mouse.

    Args:
        directory: For library and socket; a short path.

    Returns:
        Path of the socket.

    Raises:
        DeviceError: The stand-in of the HID library cannot be made.
    """
    path = directory / "mouse"
    before = dict(os.environ)
    os.environ.update(stub_environment(build_stub(directory / "hid"), path))
    try:
        yield path
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def operator_process(
    path: Path,
    log: Path,
    *,
    always: bool,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    patience_s: float | None = None,
) -> Iterator[None]:
    """Run a stand-in beside a graph; enter it inside the block of the graph.

    Args:
        path: Of the socket, see `simulated_mouse`.
        log: File for what it says.
        always: Whether he drives all the time.
        model: Key of `sim.hid_mouse.MODELS`.
        seed: Of his tremor.
        patience_s: How long nothing may go on before he helps; his own if left out.
    """
    command = [sys.executable, "-m", "vla_rl_ros.tools.stand_in", str(path)]
    command += ["--model", model, "--seed", str(seed), *(["--always"] if always else [])]
    command += [] if patience_s is None else ["--patience", str(patience_s)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def observed_graph(
    options: GraphOptions, *, has_stand_in: bool, patience_s: float | None = None
) -> Iterator[tuple[RunningGraph, GraphObserver]]:
    """Run a graph, with a stand-in in front of it if wanted.

    Args:
        options: Of the graph.
        has_stand_in: Whether there is one; the gate's device must be a SpaceMouse then. Where
            nobody else drives, he drives all the time.
        patience_s: How long nothing may go on before he helps; his own if left out.

    Raises:
        ConfigError: A stand-in for a real arm, or without a SpaceMouse.
    """
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.tools.graph import run_graph

    if has_stand_in and (options.backend is not Backend.SIM or options.operator != "spacemouse"):
        raise ConfigError("--stand-in needs --sim and a SpaceMouse: nobody simulated moves an arm")
    with contextlib.ExitStack() as stack:
        mouse: Path | None = None
        if has_stand_in:
            # Short, because the path of a unix socket may have 107 bytes.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mouse")))
            mouse = stack.enter_context(simulated_mouse(folder))
        graph = stack.enter_context(run_graph(options))
        observer = stack.enter_context(GraphObserver())
        if mouse is not None:
            log = options.out.resolve() / "logs" / "stand_in.log"
            always = options.operator_mode in ("demonstrate", "shadow")
            person = operator_process(
                mouse, log, always=always, seed=options.seed, patience_s=patience_s
            )
            stack.enter_context(person)
        yield graph, observer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process until SIGTERM or SIGINT."""
    from vla_rl_ros.ros.observer import GraphObserver

    parser = argparse.ArgumentParser(description="Stand in for the operator of a simulated cell.")
    parser.add_argument("socket", type=Path, help="where the simulated mouse is plugged in")
    parser.add_argument("--model", choices=tuple(MODELS), default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0, help="of his tremor")
    parser.add_argument("--patience", type=float, default=PersonSettings().patience_s)
    parser.add_argument("--always", action="store_true", help="drive all the time")
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    person = Person(
        skill=expert_skill,
        rng=np.random.default_rng(options.seed),
        settings=PersonSettings(patience_s=options.patience),
        always=options.always,
    )
    mouse = HidMouse(options.socket, options.model)
    mouse.plug()
    try:
        with GraphObserver("stand_in") as observer:
            someone = StandIn(observer, mouse, person, TeleopConfig())
            while not stopping.is_set():
                someone.step()
    finally:
        mouse.unplug()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
