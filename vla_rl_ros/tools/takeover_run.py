# SPDX-License-Identifier: Apache-2.0
"""Runs the graph for `bench takeover` and moves the mouse; what is measured is told there.

What is made of what was heard is `tools/takeover_figures.py`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.intervention import Source
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop_axes import increment_of
from vla_rl_ros.core.teleop_config import TeleopConfig
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.ros.graph_options import GraphOptions
from vla_rl_ros.sim.hid_mouse import HidMouse
from vla_rl_ros.tools.stand_in import simulated_mouse
from vla_rl_ros.tools.takeover_figures import (
    Measured,
    num_changes,
    response_ms,
    rest_ms,
)
from vla_rl_ros.tools.takeover_hand import Hand
from vla_rl_ros.tools.takeover_jump import Stamped, jump_at

if TYPE_CHECKING:
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.ros.takeover_probe import TakeoverProbe

_EPISODE_S = 60.0
_USABLE_S = 14.0
"""Of an episode of 25 s; what begins before this time ends before its limit."""
_DEFLECTION, _TURN = 0.3, 0.5
_CONFIG, _SPEC = TeleopConfig(), ActionSpec()
_PERIOD_NS = round(_SPEC.control_period_s * 1e9)
_SETTLE_S = 0.3


def measure(
    options: GraphOptions, counts: tuple[int, int, int], model: str, seed: int
) -> Measured:
    """Run the graph and everything that is measured on it.

    Args:
        options: Of the graph.
        counts: Takeovers, presses, times to unplug.
        model: Of the mouse.
        seed: Of the pushes.
    """
    found = Measured()
    with _running(options, model) as bench:
        bench.take_over(found, counts[0], np.random.default_rng(seed))
        bench.press(found, counts[1])
        bench.unplug(found, counts[2])
    return found


@contextlib.contextmanager
def _running(options: GraphOptions, model: str) -> Iterator[_Bench]:
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.ros.takeover_probe import TakeoverProbe
    from vla_rl_ros.tools.graph import run_graph
    from vla_rl_ros.tools.session import wait_for_bringup

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mouse")))
        path = stack.enter_context(simulated_mouse(folder))
        mouse = HidMouse(path, model)
        mouse.plug()
        stack.callback(mouse.unplug)
        _tell("bringing the graph up")
        graph = stack.enter_context(run_graph(options))
        observer = stack.enter_context(GraphObserver())
        wait_for_bringup(observer, graph.check)
        hand = Hand(mouse, _CONFIG.dead_zone)
        stack.callback(hand.stop)
        yield _Bench(observer, TakeoverProbe(observer), mouse, hand)


class _Bench:
    """A running graph with a hand on it."""

    def __init__(
        self, observer: GraphObserver, probe: TakeoverProbe, mouse: HidMouse, hand: Hand
    ) -> None:
        self._observer, self._probe, self._mouse, self._hand = observer, probe, mouse, hand
        self._began_s = 0.0

    def take_over(self, found: Measured, times: int, rng: np.random.Generator) -> None:
        """Take over from the policy, turn to and fro, let go, wait until it drives again."""
        for index in range(times):
            self._run_episode(Source.VLA)
            self._observer.spin(float(rng.uniform(0.2, 0.5)))
            first = len(self._hand.changes)
            pushes: list[FloatArray] = []
            for _ in range(6):
                axes = np.zeros(6)
                axes[:3] = _DEFLECTION * rng.choice([-1.0, 0.0, 1.0], 3)
                axes[2] = abs(axes[2])
                axes[5] = _TURN * (1.0 if len(pushes) % 2 else -1.0)
                pushes.append(axes)
                self._hand.push(axes)
                self._observer.spin(float(rng.uniform(0.13, 0.3)))
            self._hand.let_go()
            self._wait_for_row(Source.HOLD)
            self._wait_for_row(Source.VLA)
            self._observer.spin(_SETTLE_S)
            self._judge_pushes(found, first, pushes)
            self._judge_hand_back(found)
            _tell(f"takeover {index + 1} of {times}")

    def press(self, found: Measured, times: int) -> None:
        """Press the button of the gripper as fast as fingers can."""
        button = next(iter(self._mouse.model.buttons))
        done = 0
        while done < times:
            self._run_episode()
            self._hand.push(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.1]))
            self._wait_for_row(Source.HUMAN)
            self._observer.spin(_SETTLE_S)
            row = self._probe.rows[-1][1]
            first = (len(self._probe.rows), len(self._probe.widths_m), row.executed[6])
            batch = min(times - done, 60)
            for _ in range(batch):
                self._mouse.press(button)
                self._observer.spin(0.06)
                self._mouse.press()
                self._observer.spin(0.06)
            self._observer.spin(2 * _SETTLE_S)
            self._hand.let_go()
            rows = [row.executed[6] for _, row in self._probe.rows[first[0] :]]
            widths = [width_m for _, width_m in self._probe.widths_m[first[1] :]]
            found.presses += batch
            found.seen += num_changes(rows, first[2])
            found.told += num_changes(widths, 0.08 * first[2])
            done += batch
            _tell(f"presses {done} of {times}")

    def unplug(self, found: Measured, times: int) -> None:
        """Pull the plug while it is pushed, and plug it in again."""
        for index in range(times):
            self._run_episode()
            self._hand.push(np.array([0.0, 0.0, 0.2, 0.0, 0.0, _TURN * (-1.0) ** index]))
            self._wait_for_row(Source.HUMAN)
            self._observer.spin(_SETTLE_S)
            begin_ns = time.time_ns()
            self._mouse.unplug()
            self._hand.let_go()
            # Less than the policy needs to go on.
            self._wait_for_row(Source.HOLD)
            until_ns = self._probe.rows[-1][0]
            seen = [pair for pair in self._probe.references if pair[0] <= until_ns]
            found.unplug_ms.append(rest_ms(begin_ns, seen))
            self._mouse.plug()
            self._observer.wait_until(
                lambda: self._mouse.is_connected, 10.0, "the gate to find the mouse again"
            )
            _tell(f"unplugged {index + 1} of {times}")

    def _judge_pushes(self, found: Measured, first: int, pushes: list[FloatArray]) -> None:
        probe = self._probe
        for index, (report_ns, _) in enumerate(self._hand.changes[first : first + len(pushes)]):
            commanded = increment_of(pushes[index], _CONFIG, _SPEC)
            took_ms = response_ms(report_ns, commanded[5], probe.targets, probe.references)
            if took_ms is None:
                found.missed += 1
                continue
            (found.response_ms if index else found.takeover_ms).append(took_ms)
            if index == 0:
                change_ns = report_ns + round(took_ms * 1e6)
                before = [pair for pair in probe.targets if pair[0] <= report_ns]
                self._note_jump(found, "takeover", change_ns, commanded, before)
        report_ns = self._hand.changes[-1][0]
        target_ns = next((ns for ns, _ in probe.targets if ns > report_ns), report_ns)
        self._note_jump(found, "release", target_ns, np.zeros(6), probe.targets)

    def _judge_hand_back(self, found: Measured) -> None:
        """The first action of the policy after the last hold."""
        rows = self._probe.rows
        holds = [n for n, (_, row) in enumerate(rows) if row.source is Source.HOLD]
        if not holds or holds[-1] + 1 >= len(rows):
            return
        sent_ns, row = rows[holds[-1] + 1]
        # The target of that row may have been sent before the row was.
        targets = [pair for pair in self._probe.targets if pair[0] <= rows[holds[-1]][0]]
        self._note_jump(found, "hand_back", sent_ns, row.base + row.residual, targets)

    def _note_jump(
        self,
        found: Measured,
        name: str,
        change_ns: int,
        commanded: FloatArray,
        targets: Stamped,
    ) -> None:
        jump = jump_at(change_ns, commanded, self._probe.references, targets, _PERIOD_NS)
        if jump is None:
            found.unseen += 1
        else:
            found.jumps[name].append(jump)

    def _run_episode(self, source: Source | None = None) -> None:
        """Have an episode run, one that has enough of its time left."""
        state = self._observer.episode
        is_running = state is not None and state.phase is Phase.RUNNING
        if is_running and time.monotonic() - self._began_s > _USABLE_S:
            from vla_rl_ros.ros.latency_probe import end_episode

            end_episode(self._observer, _EPISODE_S)
            self._observer.wait_until(lambda: not self._is(Phase.RUNNING), _EPISODE_S, "the end")
            is_running = False
        if not is_running:
            self._observer.wait_until(lambda: self._is(Phase.IDLE), _EPISODE_S, "an idle cell")
            self._observer.trigger("supervisor/start_episode")
            self._observer.wait_until(lambda: self._is(Phase.RUNNING), _EPISODE_S, "a start")
            self._began_s = time.monotonic()
        if source is not None:
            self._wait_for_row(source)

    def _is(self, phase: Phase) -> bool:
        state = self._observer.episode
        return state is not None and state.phase is phase

    def _wait_for_row(self, source: Source) -> None:
        begin = len(self._probe.rows)

        def has_come() -> bool:
            return any(row.source is source for _, row in self._probe.rows[begin:])

        self._observer.wait_until(has_come, 20.0, f"a row of source {source.value}")


def _tell(sentence: str) -> None:
    print(f"[bench] {sentence}", file=sys.stderr, flush=True)
