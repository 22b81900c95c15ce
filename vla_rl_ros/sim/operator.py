# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the operator: sees late, moves with a trembling hand, helps and lets go again.

What a person brings to the loop is not what he can do (a scripted expert does that) but when and
how: he acts on what he saw a third of a second ago, knows meanwhile only what his own hand did,
pushes a spring-loaded knob that is never quite still, notices after a while that nothing goes on,
corrects, and gives the arm back. Called by `tools/stand_in.py`, which turns his pushes into HID
reports; knows no clock and no ROS.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.spec import GRIPPER_INDEX, is_open_command
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.sight import Sight, remaining_m

_SEEN_OPEN_M, _SEEN_CLOSED_M = 0.065, 0.05
_FINGERS_S = 1.2
"""Time for which a person believes his own press rather than the fingers, which are slow."""
_LEAST_PATIENCE_S = 0.8
_NEAR_M = 0.025

Skill = Callable[[str, Sight, bool, int], FloatArray]
"""What he would do for a task about a sight, with the hand told to be open or not, so many ticks
after he began: SI action, shape (7,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonSettings:
    """How a person differs from a script.

    Attributes:
        reaction_s: Age of what he acts on.
        tremor: Standard deviation of his hand, in full deflections, while he pushes.
        tremor_s: Time over which the tremor is the same.
        response: Part of a commanded increment that the arm makes, as he has learned it.
        gain: Part of what a script would do at once; who sees late has to be gentle.
        patience_s: How long nothing may go on before he helps.
        progress_m: What counts as going on.
        setback_m: How much worse it may get before he helps.
        least_s: How long he helps at least.
        most_s: How long he helps at most before he looks again.
        relief: Part of the remaining way after which he lets go.
        distrust: Factor on patience and relief for each time he has helped in this episode.
        alarm_m: Way that is left at which it is done for him.
    """

    reaction_s: float = 0.3
    tremor: float = 0.03
    tremor_s: float = 0.15
    response: float = 0.7
    gain: float = 0.5
    patience_s: float = 2.5
    progress_m: float = 0.004
    setback_m: float = 0.08
    least_s: float = 0.8
    most_s: float = 6.0
    relief: float = 0.4
    distrust: float = 0.5
    alarm_m: float = 0.004


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Push:
    """What his hand does now.

    Attributes:
        increment: What he wants per tick, base frame, SI, shape (6,); zeros with a hand off the
            device.
        tremor: To be added to the deflection of the device, shape (6,); zeros likewise.
        is_pressing: Whether he presses the button of the gripper.
    """

    increment: FloatArray
    tremor: FloatArray
    is_pressing: bool = False


HANDS_OFF = Push(increment=np.zeros(6), tremor=np.zeros(6))


@dataclass(slots=True)
class _Watch:
    """How it goes while somebody else drives."""

    best_m: float = math.inf
    best_s: float = 0.0

    def needs_help(
        self, left_m: float, now_s: float, settings: PersonSettings, trust: float
    ) -> bool:
        if left_m < self.best_m - settings.progress_m:
            self.best_m, self.best_s = left_m, now_s
            return False
        is_stuck = now_s - self.best_s > max(_LEAST_PATIENCE_S, trust * settings.patience_s)
        is_worse = left_m > self.best_m + settings.setback_m
        return left_m > settings.alarm_m and (is_stuck or is_worse)


@dataclass(slots=True)
class Person:
    """One operator at one task.

    Attributes:
        skill: What he can do.
        settings: How he does it.
        always: Whether he drives all the time, to show how it is done.
        num_helped: Times he took over.
    """

    skill: Skill
    rng: np.random.Generator
    settings: PersonSettings = field(default_factory=PersonSettings)
    always: bool = False
    num_helped: int = 0
    _task: str = ""
    _sights: deque[Sight] = field(default_factory=lambda: deque(maxlen=256))
    _moves: deque[tuple[float, FloatArray]] = field(default_factory=lambda: deque(maxlen=256))
    _watch: _Watch = field(default_factory=_Watch)
    _tremor: FloatArray = field(default_factory=lambda: np.zeros(6))
    _act_s: float | None = None
    _helps_since_s: float | None = None
    _help_left_m: float = 0.0
    _is_open: bool | None = None
    _pressed_s: float = -math.inf
    _begin_s: float | None = None
    _num_before: int = 0

    def begin(self, task: str) -> None:
        """An episode begins; he knows nothing of the last one."""
        self._task = task
        self._sights.clear()
        self._moves.clear()
        self._watch = _Watch()
        self._act_s = self._helps_since_s = self._is_open = self._begin_s = None
        self._pressed_s = -math.inf
        self._num_before = 0

    @property
    def is_helping(self) -> bool:
        """Whether he has his hand on the device."""
        return self._helps_since_s is not None

    def see(self, sight: Sight) -> None:
        """Something to look at."""
        self._sights.append(sight)

    def act(self, now_s: float, period_s: float) -> Push:
        """What his hand does now.

        Args:
            now_s: Present time, of the same clock as `Sight.time_s`.
            period_s: Time one increment takes, the control period.
        """
        elapsed_s = 0.0 if self._act_s is None else now_s - self._act_s
        self._act_s = now_s
        seen = self._seen(now_s)
        if seen is None:
            return HANDS_OFF
        if self._begin_s is None:
            self._begin_s = now_s
        self._look_at_fingers(seen, now_s)
        if not self._decide(seen, now_s):
            return HANDS_OFF
        view = self._imagined(seen, now_s)
        tick = int((now_s - self._begin_s) / period_s)
        wanted = self.skill(self._task, view, bool(self._is_open), tick)
        increment = self.settings.gain * wanted[:GRIPPER_INDEX]
        self._note_move(now_s, increment * elapsed_s / period_s)
        is_pressing = self._presses(is_open_command(wanted), now_s)
        return Push(
            increment=increment,
            tremor=self._trembled(elapsed_s),
            is_pressing=is_pressing,
        )

    def _seen(self, now_s: float) -> Sight | None:
        """The newest sight that has reached his mind."""
        seen = None
        while self._sights and self._sights[0].time_s <= now_s - self.settings.reaction_s:
            seen = self._sights.popleft()
        if seen is not None:
            self._sights.appendleft(seen)
        return seen

    def _look_at_fingers(self, seen: Sight, now_s: float) -> None:
        if now_s - self._pressed_s < _FINGERS_S and self._is_open is not None:
            return
        if seen.width_m > _SEEN_OPEN_M:
            self._is_open = True
        elif seen.width_m < _SEEN_CLOSED_M:
            self._is_open = False
        elif self._is_open is None:
            self._is_open = True

    def _decide(self, seen: Sight, now_s: float) -> bool:
        """Whether he has his hand on the device."""
        if self.always:
            self._helps_since_s = self._helps_since_s or now_s
            return True
        left_m = remaining_m(self._task, seen)
        trust = self.settings.distrust**self._num_before
        if self._helps_since_s is None:
            if self._watch.needs_help(left_m, now_s, self.settings, trust):
                self._helps_since_s, self._help_left_m = now_s, left_m
                self.num_helped += 1
        else:
            since_s = now_s - self._helps_since_s
            is_relieved = left_m < trust * self.settings.relief * self._help_left_m
            if since_s > self.settings.most_s or (since_s > self.settings.least_s and is_relieved):
                self._helps_since_s = None
                self._num_before += 1
                self._watch = _Watch()
        return self.is_helping

    def _imagined(self, seen: Sight, now_s: float) -> Sight:
        """The sight as it must be by now, after what his own hand did since."""
        moved = np.zeros(6)
        for moved_s, move in self._moves:
            if moved_s > seen.time_s:
                moved += self.settings.response * move
        shift = moved[:3]
        objects = dict(seen.objects)
        for name in ("cube", "peg"):
            held = objects.get(name)
            is_held = held is not None and not self._is_open
            if is_held and held is not None:
                near = math.dist(held.position_m, seen.tcp.position_m) < (
                    _NEAR_M if name == "cube" else 4 * _NEAR_M
                )
                if near:
                    objects[name] = Pose(held.position_m + shift, held.quat_xyzw)
        tcp = offset_pose(seen.tcp, shift, moved[3:])
        return replace(seen, time_s=now_s, tcp=tcp, objects=objects)

    def _note_move(self, now_s: float, move: FloatArray) -> None:
        self._moves.append((now_s, np.array(move)))

    def _presses(self, wants_open: bool, now_s: float) -> bool:
        """Press once where the hand is not as he wants it; then wait for the fingers."""
        if wants_open == self._is_open or now_s - self._pressed_s < _FINGERS_S:
            return False
        self._is_open, self._pressed_s = wants_open, now_s
        return True

    def _trembled(self, elapsed_s: float) -> FloatArray:
        """First-order noise of the given spread, whatever the step."""
        keep = math.exp(-elapsed_s / self.settings.tremor_s)
        fresh = self.rng.normal(size=6) * self.settings.tremor
        self._tremor = keep * self._tremor + math.sqrt(1.0 - keep * keep) * fresh
        return self._tremor
