# SPDX-License-Identifier: Apache-2.0
"""The life of the cell: bring-up, episodes one after the other, fault latch and recovery.

Owns the episode machine and decides every phase. What it needs of the graph comes through `Ports`,
so the whole life runs in a test without ROS. Called by the supervisor from one thread.
"""

from __future__ import annotations

from vla_rl_ros.core.episode import (
    EpisodeMachine,
    EpisodeOrderError,
    EpisodeState,
    Outcome,
    Phase,
    episode_id,
)
from vla_rl_ros.core.verdict import Evidence, Verdict, decide
from vla_rl_ros.ros.episode_ports import Answer, EpisodeOrder, Ports, Timing
from vla_rl_ros.ros.steps import FalseStartError, Sequence, StepError, Steps, pause, wait_for

RECOVERY_RUNS = "a recovery is already running"


class EpisodeRunner:
    """Runs the cell; `tick` advances it."""

    def __init__(self, ports: Ports, timing: Timing, first_epoch: int = 0) -> None:
        """Start in BRINGUP.

        Args:
            ports: The graph.
            timing: Waits.
            first_epoch: Epoch before the first episode.
        """
        self._ports = ports
        self._timing = timing
        self._machine = EpisodeMachine(first_epoch)
        self._sequence = Sequence()
        self._asked: EpisodeOrder | None = None
        self._unanswered: Answer | None = None
        self._operator: bool | None = None
        self._reset_words: list[bool] = []
        self._count = 0
        self._sequence.start(self._live())

    @property
    def state(self) -> EpisodeState:
        """What is published now."""
        return self._machine.state

    def tick(self) -> None:
        """Notice an arm fault, then advance to the next wait."""
        fault = self._ports.arm_fault()
        if fault and self.state.phase not in (Phase.FAULT, Phase.BRINGUP):
            self._latch(fault)
        try:
            self._sequence.tick()
        except StepError as error:
            self._latch(str(error))

    def close(self) -> None:
        """End an open episode as aborted; nothing runs afterwards."""
        self._sequence.cancel()
        self._reply(False, "the supervisor stops")
        if self._machine.is_open:
            self._end(Verdict(outcome=Outcome.ABORTED, reason="the supervisor stops"))

    def ask_start(self) -> str:
        """Ask for an episode.

        Raises:
            EpisodeOrderError: One is open, nodes are missing or a fault is latched.
        """
        if self.state.phase is not Phase.IDLE:
            raise EpisodeOrderError(f"the cell is {self.state.phase.value}, not idle")
        lost = self._ports.lost()
        if lost:
            raise EpisodeOrderError(lost)
        # Who asks again has not heard the answer; that must not start two episodes.
        self._asked = self._asked or self._ports.asked_order()
        return f"{self._asked.task} with seed {self._asked.seed}"

    def ask_end(self, *, is_success: bool) -> str:
        """Take the operator's word on the running episode; failure also gives up a prompt.

        Raises:
            EpisodeOrderError: No episode runs.
        """
        if self.state.is_waiting and not is_success:
            self._reset_words.append(False)
        elif self.state.phase is Phase.RUNNING:
            self._operator = is_success
        else:
            raise EpisodeOrderError(f"the cell is {self.state.phase.value}, no episode runs")
        return self.state.episode_id

    def ask_reset_done(self) -> str:
        """Take the operator's word that the scene is in its start.

        Raises:
            EpisodeOrderError: Nobody was asked for it.
        """
        if not self.state.is_waiting:
            raise EpisodeOrderError(f"the cell is {self.state.phase.value}, nobody was asked")
        self._reset_words.append(True)
        return self.state.episode_id

    def tell(self, instruction: str) -> None:
        """Tell the policy something else in the open episode."""
        if self._machine.tell(instruction):
            self._ports.say(f'the policy is told "{instruction}"')
            self._ports.publish(self.state)

    def ask_recover(self, answer: Answer) -> None:
        """Ask to leave a latched fault; `answer` is called when that is done or has failed."""
        if self.state.phase is Phase.BRINGUP and not self._sequence.is_running:
            self._sequence.start(self._live())
            answer(True, "bringing the nodes up")
        elif self.state.phase not in (Phase.IDLE, Phase.FAULT):
            answer(True, f"nothing to recover, the cell is {self.state.phase.value}")
        elif self._unanswered is not None:
            answer(False, RECOVERY_RUNS)
        else:
            is_fault = self.state.phase is Phase.FAULT
            self._start(self._recover() if is_fault else self._recover_devices(), answer)

    def ask_down(self, answer: Answer) -> None:
        """Ask for every node to be brought down; `ask_recover` brings them up again.

        Raises:
            EpisodeOrderError: The cell is not idle, or a recovery runs.
        """
        if self.state.phase is not Phase.IDLE:
            raise EpisodeOrderError(f"the cell is {self.state.phase.value}, not idle")
        if self._unanswered is not None:
            raise EpisodeOrderError(RECOVERY_RUNS)
        self._start(self._down(), answer)

    def _start(self, steps: Steps[None], answer: Answer) -> None:
        """Run what somebody waits for; whatever cuts it off answers in its place."""
        self._unanswered = answer
        self._sequence.start(steps)

    def _reply(self, is_done: bool, sentence: str) -> None:
        answer, self._unanswered = self._unanswered, None
        if answer is not None:
            answer(is_done, sentence)

    def _go(self, phase: Phase, *, reason: str = "") -> None:
        self._machine.go(phase, reason=reason)
        self._ports.publish(self.state)

    def _end(self, verdict: Verdict) -> None:
        self._machine.go(
            Phase.ENDED, reason=verdict.reason, outcome=verdict.outcome, judge=verdict.judge
        )
        self._ports.publish(self.state)

    def _latch(self, reason: str) -> None:
        self._sequence.cancel()
        self._asked = None
        self._ports.say(f"fault: {reason}")
        self._go(Phase.FAULT, reason=reason)
        self._reply(False, reason)

    def _live(self) -> Steps[None]:
        self._ports.publish(self.state)
        yield from self._ports.bring_up()
        self._go(Phase.IDLE)
        yield from self._episodes()

    def _episodes(self) -> Steps[None]:
        while True:
            order = None
            while order is None:
                yield
                order, self._asked = self._asked, None
                if order is None and not self._ports.lost():
                    order = self._ports.next_order()
            yield from self._episode(order)

    def _episode(self, order: EpisodeOrder) -> Steps[None]:
        index, begin = self._count, self._ports.utc_now()
        self._machine.begin(
            episode_id=episode_id(begin, order.task, index),
            task=order.task,
            instruction=order.instruction,
            seed=order.seed,
        )
        self._count += 1
        self._ports.publish(self.state)
        try:
            prepared = yield from self._ports.reset(order, self._ask_human)
            order = prepared.order
            self._machine.retask(
                episode_id=episode_id(begin, order.task, index),
                task=order.task,
                instruction=order.instruction,
            )
            self._machine.note_reset(prepared.reset)
            verdict = yield from self._until_verdict(order)
        except FalseStartError as error:
            verdict = Verdict(outcome=Outcome.ABORTED, reason=str(error))
        except StepError as error:
            verdict = Verdict(outcome=Outcome.FAULT, reason=str(error))
            # Was it the arm? Then its fault arrives meanwhile, and `tick` latches it.
            yield from pause(self._timing.fault_grace_s, self._ports.clock)
        self._ports.say(f"{self.state.episode_id}: {verdict.outcome.value}, {verdict.reason}")
        self._end(verdict)
        yield from pause(self._timing.ended_s, self._ports.clock)
        self._go(Phase.IDLE)

    def _until_verdict(self, order: EpisodeOrder) -> Steps[Verdict]:
        ports, timing = self._ports, self._timing
        self._go(Phase.READY)
        yield from pause(timing.ready_min_s, ports.clock)
        epoch = self.state.epoch
        has_chunk = yield from wait_for(
            lambda: ports.has_chunk(epoch), timing.first_chunk_timeout_s, ports.clock
        )
        if not has_chunk:
            raise StepError(
                f"vla_inference sent no chunk within {timing.first_chunk_timeout_s:g} s: "
                f"{ports.policy_says()}"
            )
        self._operator = None
        ports.begin_watch()
        begin_s = ports.clock()
        self._go(Phase.RUNNING)
        while True:
            yield
            verdict = decide(
                Evidence(
                    elapsed_s=ports.clock() - begin_s,
                    is_success=ports.is_success(),
                    operator=self._operator,
                    judge=ports.judge(),
                    lost=ports.lost() or ports.stopped(),
                ),
                order.config.time_limit_s,
            )
            if verdict is not None:
                return verdict

    def _ask_human(self, sentence: str) -> Steps[None]:
        """Prompt the operator and wait; the arm does not move meanwhile."""
        self._reset_words.clear()
        self._ports.say(sentence)
        self._machine.explain(sentence, is_waiting=True)
        self._ports.publish(self.state)
        self._ports.prompted(True)
        try:
            while not self._reset_words:
                yield
        finally:
            self._ports.prompted(False)
            self._machine.explain("", is_waiting=False)
        if not self._reset_words[-1]:
            raise FalseStartError("the operator gave up the reset")
        self._ports.publish(self.state)

    def _down(self) -> Steps[None]:
        self._go(Phase.BRINGUP, reason="the nodes are brought down")
        yield from self._ports.bring_down()
        self._reply(True, "every node is down; recover brings them up again")

    def _recover_devices(self) -> Steps[None]:
        """No fault is latched here, but the gripper has faults of its own."""
        try:
            message = yield from self._ports.recover_arm()
            self._reply(True, message)
        except StepError as error:
            self._reply(False, str(error))
        yield from self._episodes()

    def _recover(self) -> Steps[None]:
        try:
            yield from self._clear_fault()
        except StepError as error:
            self._reply(False, str(error))
            return
        self._go(Phase.IDLE, reason="recovered")
        self._reply(True, "recovered")
        yield from self._episodes()

    def _clear_fault(self) -> Steps[None]:
        ports = self._ports
        if ports.arm_fault():
            message = yield from ports.recover_arm()
            is_clear = yield from wait_for(
                lambda: not ports.arm_fault(), self._timing.clear_timeout_s, ports.clock
            )
            if not is_clear:
                raise StepError(f"{message}, but still: {ports.arm_fault()}")
        # A node may have deactivated itself, or the bring-up may have failed half way.
        yield from ports.bring_up()
