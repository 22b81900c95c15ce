# SPDX-License-Identifier: Apache-2.0
"""A policy in its own thread: questions in, answers out, whatever the model does."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import InferenceError
from vla_rl_ros.core.requests import Request
from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.core.types import FloatArray, finite_array
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation, featured
from vla_rl_ros.ros.urgency import Urgency, hurry_thread, unhurried
from vla_rl_ros.ros.worker import Worker

_STOP_TIMEOUT_S = 0.5
# The interpreter changes hands by itself only after 5 ms, or when the executor has come to rest.
_HANDOVER_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One request for a chunk.

    Attributes:
        request: When it was asked and what is promised.
        observation: What the policy sees.
        extra_delay_s: Waited after the inference, to measure what delay does.
    """

    request: Request
    observation: PolicyObservation
    extra_delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What came of a question.

    Attributes:
        question: The question.
        actions: Shape (horizon, 7), SI; None after an error.
        error: What the model raised, or what was wrong with its answer.
        is_passing: Whether the policy says that asking again is all there is to do.
        took_s: Time of the inference without the injected delay.
        features: Of the images it saw, shape (F,); empty for a policy without features.
    """

    question: Question
    actions: FloatArray | None
    error: str
    is_passing: bool
    took_s: float
    features: Float32Array


class InferenceWorker:
    """Runs one policy; a newer question replaces one that has not been started.

    Attributes:
        urgency: Of what the thread does before and after an inference. During it the thread is an
            ordinary one: ten milliseconds ahead of the arm's loop cost that one every tenth
            reference on two cores.
    """

    def __init__(self, policy: ChunkPolicy, wake: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            policy: The policy; from now on only this thread uses it.
            wake: Called in the thread after an answer was left; must not block.
        """
        self._policy, self._featured = policy, featured(policy)
        self._wake = wake
        self._answers: deque[Answer] = deque()
        self.urgency = Urgency.NONE
        self._is_stopping = threading.Event()
        self._has_begun = threading.Event()
        self._worker: Worker[Question] = Worker(self._infer, self._never, "inference")

    def ask(self, question: Question) -> None:
        """Leave a question, and the interpreter to the thread that is to answer it."""
        self._has_begun.clear()
        self._worker.submit(question)
        self._has_begun.wait(_HANDOVER_S)

    def answers(self) -> list[Answer]:
        """Answers since the last call, oldest first."""
        taken = []
        while self._answers:
            taken.append(self._answers.popleft())
        return taken

    def stop(self) -> bool:
        """Let the running inference end; False when it does not soon, then it is left behind."""
        self._is_stopping.set()
        return self._worker.stop(_STOP_TIMEOUT_S)

    def _infer(self, question: Question) -> None:
        self._has_begun.set()
        start_s = time.monotonic()
        actions, problem, is_passing = None, "", False
        features = np.zeros(0, np.float32)
        try:
            with unhurried():
                if question.request.is_first:
                    self._policy.reset()
                raw = self._policy.infer(question.observation, question.request.prefix)
            actions = finite_array(raw, (self._policy.horizon, ACTION_DIM), "chunk")
            if self._featured is not None:
                features = self._featured.features()
        except InferenceError as error:
            problem, is_passing = str(error), True
        except Exception as error:  # noqa: BLE001 - models raise anything, and the next may work
            problem = f"{type(error).__name__}: {error}"
        took_s = time.monotonic() - start_s
        if self.urgency is not Urgency.NONE:
            hurry_thread(self.urgency)
        if question.extra_delay_s > 0.0 and self._is_stopping.wait(question.extra_delay_s):
            return
        if self._is_stopping.is_set():
            return
        self._answers.append(
            Answer(
                question=question,
                actions=actions,
                error=problem,
                is_passing=is_passing,
                took_s=took_s,
                features=features,
            )
        )
        self._wake()

    def _never(self, error: Exception) -> None:
        raise AssertionError("inference lets no exception out") from error
