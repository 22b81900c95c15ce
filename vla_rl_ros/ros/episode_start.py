# SPDX-License-Identifier: Apache-2.0
"""From the end of one episode to the start of the next: who resets, and whether it worked.

Carries out what `core.reset_plan` decides, with the devices of `cell_reset` and the word of a
person, and lets no episode begin in a scene that is not in its start. Used by the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vla_rl_ros.core.episode import ResetKind, TaskConfig
from vla_rl_ros.core.reset_plan import ResetPlan
from vla_rl_ros.ros.episode_ports import AskHuman, EpisodeOrder, Prepared
from vla_rl_ros.ros.steps import Clock, FalseStartError, StepError, Steps, wait_for

DONE = "then call supervisor/reset_done"
GIVE_UP = "or supervisor/end_episode with false"
# Targets stop with an episode, and the arm half a second later.
REST_TIMEOUT_S = 3.0

SceneCheck = Callable[[str, str, AskHuman], Steps[str]]
"""Steps that answer why a task, given by name, cannot begin in the scene as it is; empty when it
can. They are also given the task that is announced in `episode/state`, which is that one or the
one it undoes, and the way to ask a person."""


class ResetDevices(Protocol):
    """What is used of `cell_reset.CellReset`."""

    def home(self, name: str, task: TaskConfig, seed: int, home_timeout_s: float) -> Steps[None]:
        """Bring arm and gripper to where a task starts."""

    def arrange(self) -> Steps[None]:
        """Draw a simulated scene."""

    def rearm(self) -> Steps[None]:
        """Let the arm accept targets again, where it is; refused while it is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRest:
    """What is known of the arm between two episodes.

    Attributes:
        is_held: Whether a person has stopped it.
        is_following: Whether it still follows or holds a target, or does not say.
    """

    is_held: bool
    is_following: bool


class EpisodeStart:
    """Brings the scene into the start of an episode, or says why it is not."""

    def __init__(
        self,
        devices: ResetDevices,
        plan: ResetPlan,
        check: SceneCheck,
        arm: Callable[[], ArmRest],
        undoing: Callable[[EpisodeOrder], EpisodeOrder],
        *,
        home_timeout_s: float,
        say: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """Bind to the cell.

        Args:
            devices: What moves.
            plan: Told of refused starts; helps a pair that is stuck.
            check: Asked before every episode.
            arm: How the arm rests.
            undoing: Makes the order for the task that undoes another.
            home_timeout_s: For the arm to reach its start.
            say: Tells the operator.
            clock: Monotonic time.
        """
        self._devices, self._plan, self._check, self._arm = devices, plan, check, arm
        self._undoing = undoing
        self._home_timeout_s, self._say, self._clock = home_timeout_s, say, clock

    def steps(self, order: EpisodeOrder, ask: AskHuman) -> Steps[Prepared]:
        """Prepare an episode.

        Args:
            order: The episode.
            ask: The way to ask a person.

        Returns:
            What may begin. Of a pair that is the other task where the scene is in the start of
            that one: an episode may end between the two.

        Raises:
            FalseStartError: The scene is not in its start after all.
            StepError: Something of the cell refused or did not answer.
        """
        try:
            return (yield from self._prepare(order, ask))
        except FalseStartError:
            self._plan.refuse()
            raise

    def _prepare(self, order: EpisodeOrder, ask: AskHuman) -> Steps[Prepared]:
        kind, reason = order.start.reset, order.start.reason
        if kind is ResetKind.NONE:
            yield from self._rearm()
            reason = yield from self._check(order.task, order.task, ask)
            if not reason:
                return Prepared(order=order, reset=kind)
            other = self._undoing(order)
            if not (yield from self._check(other.task, order.task, ask)):
                self._say(f"{other.task} in place of {order.task}: {reason}")
                return Prepared(order=other, reset=kind)
            kind = self._plan.help_kind
        yield from self._reset(order, kind, reason, ask)
        return Prepared(order=order, reset=kind)

    def _reset(
        self, order: EpisodeOrder, kind: ResetKind, reason: str, ask: AskHuman
    ) -> Steps[None]:
        if reason:
            self._say(f"{order.task} is reset by {kind.value} means: {reason}")
        yield from self._devices.home(order.task, order.config, order.seed, self._home_timeout_s)
        if kind is ResetKind.HUMAN:
            yield from self._by_hand(order, ask, reason)
            return
        yield from self._devices.arrange()
        problem = yield from self._check(order.task, order.task, ask)
        if problem:
            raise FalseStartError(f"false start refused: {problem}")

    def _by_hand(self, order: EpisodeOrder, ask: AskHuman, reason: str) -> Steps[None]:
        """The arm is home and stays there; a simulated scene is drawn when the person is done."""
        sentence = f"{reason or order.task}: reset the scene for {order.task}"
        while True:
            yield from ask(f"{sentence}, {DONE}")
            yield from self._devices.arrange()
            problem = yield from self._check(order.task, order.task, ask)
            if not problem:
                return
            sentence = f"false start refused, {problem}: reset the scene for {order.task}"

    def _rearm(self) -> Steps[None]:
        """Make a stopped arm accept targets where it is; nothing moves."""
        is_at_rest = yield from wait_for(
            lambda: not self._arm().is_following, REST_TIMEOUT_S, self._clock
        )
        if self._arm().is_held:
            raise StepError("the arm is held on request; call recover to release it")
        if not is_at_rest:
            raise StepError("the arm does not say that it rests: silence the gate")
        # What was heard may be old: the controller looks again, and refuses while it is held.
        yield from self._devices.rearm()
