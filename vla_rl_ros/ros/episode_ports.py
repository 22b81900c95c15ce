# SPDX-License-Identifier: Apache-2.0
"""What the life of the cell needs from outside: orders, waits, and questions to the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from vla_rl_ros.core.episode import EpisodeState, ResetKind, TaskConfig
from vla_rl_ros.core.reset_plan import Start
from vla_rl_ros.ros.steps import Clock, Steps

Answer = Callable[[bool, str], None]
"""Called once with success and a sentence when a request has been carried out."""

AskHuman = Callable[[str], Steps[None]]
"""Steps that ask a person for something and end when he says that it is done; they raise
`FalseStartError` when he says that it will not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeOrder:
    """What the next episode shall be.

    Attributes:
        task: Task name.
        config: Its config.
        instruction: What the policy is told.
        seed: Seed of the start.
        start: How the scene gets into its start.
    """

    task: str
    config: TaskConfig
    instruction: str
    seed: int
    start: Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What has come of an order.

    Attributes:
        order: The order, or the one that the scene allows in its place.
        reset: Who reset the scene.
    """

    order: EpisodeOrder
    reset: ResetKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long each wait may last.

    Attributes:
        ready_min_s: Least time in READY; the recorder opens its bag in it.
        first_chunk_timeout_s: For the policy to send its first chunk.
        ended_s: Time in ENDED; the recorder closes its bag in it.
        fault_grace_s: For a fault to be reported after a call to the arm has failed.
        clear_timeout_s: For the fault to vanish after the arm was recovered.
    """

    ready_min_s: float = 0.3
    first_chunk_timeout_s: float = 5.0
    ended_s: float = 0.3
    fault_grace_s: float = 1.2
    clear_timeout_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the life of the cell needs of the graph.

    Attributes:
        bring_up: Steps that bring every node up.
        bring_down: Steps that bring every node down.
        reset: Steps that bring the cell into the start of an episode; they are given the way to
            ask a person.
        recover_arm: Steps that clear the arm's fault.
        next_order: The next episode when one is due without being asked, else None.
        asked_order: The episode that an operator's request stands for.
        begin_watch: Called when RUNNING begins, forgets old evidence.
        is_success: Whether success has held long enough.
        judge: Who measures success, see `core.verdict`.
        has_chunk: Whether a chunk of this epoch was seen.
        policy_says: What the policy's node reports of itself.
        arm_fault: Why the arm is not in control, empty when it is.
        lost: Why no episode can go on, empty when one can.
        stopped: Why the arm no longer follows targets though it is well, empty when it does.
        prompted: Told when a person is asked for something, and when not any more.
        publish: Publishes a state.
        say: Tells the operator.
        clock: Monotonic time.
        utc_now: Wall time for episode names.
    """

    bring_up: Callable[[], Steps[None]]
    bring_down: Callable[[], Steps[None]]
    reset: Callable[[EpisodeOrder, AskHuman], Steps[Prepared]]
    recover_arm: Callable[[], Steps[str]]
    next_order: Callable[[], EpisodeOrder | None]
    asked_order: Callable[[], EpisodeOrder]
    begin_watch: Callable[[], None]
    is_success: Callable[[], bool]
    judge: Callable[[], str]
    has_chunk: Callable[[int], bool]
    policy_says: Callable[[], str]
    arm_fault: Callable[[], str]
    lost: Callable[[], str]
    stopped: Callable[[], str]
    prompted: Callable[[bool], None]
    publish: Callable[[EpisodeState], None]
    say: Callable[[str], None]
    clock: Clock
    utc_now: Callable[[], datetime]
