# SPDX-License-Identifier: Apache-2.0
"""Brings managed nodes up in order and knows how each of them is doing.

`NodeHealth` listens to /diagnostics; `BringUp` talks to the lifecycle services. Both are used by
the supervisor only, from its own thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node

from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.gated_client import GatedClient
from vla_rl_ros.ros.steps import Clock, StepError, Steps, call, pause, together, wait_for

STATE_TIMEOUT_S = 3.0
ASK_TIMEOUT_S = 1.0
RETRY_PAUSE_S = 0.5
HEARD_TIMEOUT_S = 2.0
LOOK_PAUSE_S = 0.25
_UP = {
    State.PRIMARY_STATE_UNCONFIGURED: (
        Transition.TRANSITION_CONFIGURE,
        "configure",
        State.PRIMARY_STATE_INACTIVE,
    ),
    State.PRIMARY_STATE_INACTIVE: (
        Transition.TRANSITION_ACTIVATE,
        "activate",
        State.PRIMARY_STATE_ACTIVE,
    ),
}
_DOWN = {
    State.PRIMARY_STATE_ACTIVE: (Transition.TRANSITION_DEACTIVATE, "deactivate"),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_CLEANUP, "cleanup"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Newest diagnostics of a node.

    Attributes:
        level: Severity.
        message: Sentence for the operator.
        values: Counters and gauges.
        received_s: Monotonic time of arrival.
        error_since_s: When the level became ERROR, None while it is not.
    """

    level: Level
    message: str
    values: dict[str, str]
    received_s: float
    error_since_s: float | None

    @property
    def is_active(self) -> bool:
        """Whether the node says that it works; one that says nothing about it is believed."""
        return self.values.get("lifecycle", "active") == "active"


class NodeHealth:
    """Newest report per node."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self.reports: dict[str, Report] = {}

    def note(self, message: DiagnosticArray, now_s: float) -> None:
        """Take a message of /diagnostics."""
        for status in message.status:
            name = status.name.rsplit("/", 1)[-1]
            raw = status.level[0] if isinstance(status.level, bytes) else status.level
            # STALE is said by aggregators only, and means no less than ERROR.
            level = Level(min(raw, Level.ERROR))
            before = self.reports.get(name)
            error_since_s = before.error_since_s if before else None
            if level is Level.ERROR and error_since_s is None:
                error_since_s = now_s
            self.reports[name] = Report(
                level=level,
                message=status.message,
                values={pair.key: pair.value for pair in status.values},
                received_s=now_s,
                error_since_s=error_since_s if level is Level.ERROR else None,
            )

    def sentence(self, node: str) -> str:
        """What the node itself says about its trouble."""
        report = self.reports.get(node)
        return report.message if report else "it has sent no diagnostics"

    def are_active(self, nodes: Sequence[str]) -> bool:
        """Whether each of `nodes` that was heard says that it works."""
        heard = (self.reports.get(node) for node in nodes)
        return all(report is None or report.is_active for report in heard)

    def trouble(self, nodes: Sequence[str], now_s: float, limit_s: float) -> str:
        """Why the first of `nodes` in trouble cannot work, empty when all can.

        Args:
            nodes: Nodes that are needed. One that was never heard is not in trouble.
            now_s: Monotonic time.
            limit_s: How long silence or an error may last.
        """
        for node in nodes:
            report = self.reports.get(node)
            if report is None:
                continue
            if now_s - report.received_s > limit_s:
                return f"{node} has been silent for {now_s - report.received_s:.1f} s"
            if report.error_since_s is not None and now_s - report.error_since_s > limit_s:
                return f"{node}: {report.message}"
            if not report.is_active:
                return f"{node} is not active"
        return ""


class BringUp:
    """Drives the lifecycle of nodes through their services."""

    def __init__(
        self,
        node: Node,
        names: Sequence[str],
        health: NodeHealth,
        say: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        """Create the clients.

        Args:
            node: Owns the clients.
            names: Managed nodes in the order in which they come up.
            health: Asked for the reason when a node fails.
            say: Told what happens.
            wake: Called when a node has answered and the steps can go on.
        """
        self.names = tuple(names)
        self._health = health
        self._say = say
        self._get = {n: GatedClient(node, GetState, f"{n}/get_state", wake) for n in names}
        self._change = {
            n: GatedClient(node, ChangeState, f"{n}/change_state", wake) for n in names
        }

    def up(self, timeout_s: float, clock: Clock) -> Steps[None]:
        """Configure every node, then activate them in order; active ones stay as they are.

        Configuring loads weights and opens devices but moves nothing, so it needs no order.

        Raises:
            StepError: Names the node that failed and what it says.
        """
        begin_s = clock()
        passive: set[str] = set()
        yield from together(
            self._configured(name, timeout_s, clock, passive) for name in self.names
        )
        for name in self.names:
            if name in passive:
                yield from self.node_up(name, timeout_s, clock)
        # What they say travels another way than what they answered.
        yield from wait_for(lambda: self._health.are_active(self.names), HEARD_TIMEOUT_S, clock)
        self._say(f"all nodes are active after {clock() - begin_s:.1f} s")

    def _configured(
        self, name: str, timeout_s: float, clock: Clock, passive: set[str]
    ) -> Steps[None]:
        state = yield from self.node_up(name, timeout_s, clock, State.PRIMARY_STATE_INACTIVE)
        if state != State.PRIMARY_STATE_ACTIVE:
            passive.add(name)

    def node_up(
        self,
        name: str,
        timeout_s: float,
        clock: Clock,
        goal: int = State.PRIMARY_STATE_ACTIVE,
    ) -> Steps[int]:
        """Configure and activate one node, trying again until the time is up.

        Args:
            name: Node name.
            timeout_s: Patience.
            clock: Monotonic time.
            goal: State at which to stop, inactive or active.

        Returns:
            The state it is in, at least `goal`.

        Raises:
            StepError: As `up`.
        """
        until_s = clock() + timeout_s
        is_told = False
        state = yield from self.state(name, timeout_s, clock)
        while True:
            if state in (goal, State.PRIMARY_STATE_ACTIVE):
                return state
            if state not in _UP:
                raise StepError(f"{name} has been shut down; start its process again")
            transition, verb, after = _UP[state]
            if (yield from self._do(name, transition, max(until_s - clock(), 0.1), clock)):
                state = after
                continue
            sentence = f"{name} could not {verb}: {self._health.sentence(name)}"
            if clock() >= until_s:
                raise StepError(sentence)
            if not is_told:
                self._say(f"{sentence}; trying for {until_s - clock():.0f} s more")
                is_told = True
            yield from pause(RETRY_PAUSE_S, clock)
            state = yield from self.state(name, STATE_TIMEOUT_S, clock)

    def down(self, timeout_s: float, clock: Clock) -> Steps[None]:
        """Deactivate and clean up every node, last first, as far as each one allows it."""
        for name in reversed(self.names):
            try:
                yield from self._node_down(name, timeout_s, clock)
            except StepError as error:  # noqa: PERF203 - the others must come down all the same
                self._say(str(error))

    def _node_down(self, name: str, timeout_s: float, clock: Clock) -> Steps[None]:
        for state, (transition, _) in _DOWN.items():
            if (yield from self.state(name, STATE_TIMEOUT_S, clock)) == state:
                yield from self._do(name, transition, timeout_s, clock)

    def attend(self, is_wanted: Callable[[], bool], timeout_s: float, clock: Clock) -> Steps[None]:
        """Look at each node once, and bring up one whose process was started again.

        Args:
            is_wanted: Asked before each look; nothing is brought up while it says no.
            timeout_s: Patience with a node that comes up.
            clock: Monotonic time.
        """
        for name in self.names:
            yield from pause(LOOK_PAUSE_S, clock)
            if is_wanted() and self._change[name].service_is_ready():
                try:
                    yield from self._attend_one(name, timeout_s, clock)
                except StepError as error:
                    self._say(str(error))

    def _attend_one(self, name: str, timeout_s: float, clock: Clock) -> Steps[None]:
        state = yield from self.state(name, STATE_TIMEOUT_S, clock)
        # An inactive node has stopped itself for a reason: that is left to `recover`.
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            self._say(f"{name} was started again and is brought up")
            yield from self.node_up(name, timeout_s, clock)

    def state(self, name: str, timeout_s: float, clock: Clock) -> Steps[int]:
        """Primary lifecycle state of a node.

        Raises:
            StepError: It does not answer.
        """
        client = self._get[name]
        until_s = clock() + timeout_s
        # A request to a process that just died, or an answer that was sent before both sides knew
        # each other, is lost for good: ask again.
        while (left_s := until_s - clock()) > 0.0:
            with contextlib.suppress(StepError):
                ask_s = min(left_s, ASK_TIMEOUT_S)
                response = yield from call(client, GetState.Request(), ask_s, clock)
                return int(response.current_state.id)
        is_there = client.service_is_ready()
        hint = "its process is there" if is_there else "is its process running?"
        raise StepError(f"{name} does not answer for {timeout_s:.3g} s; {hint}")

    def _do(self, name: str, transition: int, timeout_s: float, clock: Clock) -> Steps[bool]:
        client = self._change[name]
        request = ChangeState.Request(transition=Transition(id=transition))
        response = yield from call(client, request, timeout_s, clock)
        return bool(response.success)
