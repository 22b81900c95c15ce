# SPDX-License-Identifier: Apache-2.0
"""Asks the policy for chunks while the robot keeps moving.

Each request is an observation at the stamp of an executed tick, so that element i of the answer
belongs to exactly that tick plus i. The model runs in a worker; a late, failed or foreign answer
is dropped and the next tick asks again. Without fresh inputs nothing is asked, and the arm holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.guard_condition import GuardCondition
from rclpy.timer import Timer
from sensor_msgs.msg import JointState

from vla_rl_ros.core.chunking import chunk_poses
from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.requests import ChunkRequests
from vla_rl_ros.core.types import ActionChunk, FloatArray, Pose
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
from vla_rl_ros.ros.action_codecs import decode_executed, encode_path
from vla_rl_ros.ros.channels import NS_PER_S
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.codecs import decode_episode, encode_chunk
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.inference import InferenceWorker, Question
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.observation_reader import ObservationReader
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.sampler import Sampler
from vla_rl_ros.ros.state_reader import StateReader
from vla_rl_ros.ros.timing import Window


@dataclass(frozen=True, kw_only=True)
class VlaInferenceConfig:
    """Which policy, how often it is asked, and how fresh its inputs must be."""

    policy: str = param("scripted", doc="Name of the policy back end.")
    settings: PolicySettings = param(  # noqa: RUF009 - param() makes a field
        PolicySettings(), doc="Settings of the back end."
    )
    task: str = param("", doc="Task told to the policy when the episode names none.")
    control_period_s: float = param(
        0.1, doc="Time between two elements of a chunk.", unit="s", low=0.02, high=1.0
    )
    execute_ticks: int = param(
        1, doc="Ticks from one request to the next.", low=1, high=256, live=True
    )
    extra_delay_s: float = param(
        0.0, doc="Added to every inference.", unit="s", low=0.0, high=5.0, live=True
    )
    max_image_age_s: float = param(
        0.2, doc="Largest age of an image at a request.", unit="s", low=0.01, high=2.0
    )
    max_state_age_s: float = param(
        0.1, doc="Largest age of the arm's state at a request.", unit="s", low=0.01, high=1.0
    )
    max_gripper_age_s: float = param(
        0.5, doc="Largest age of the gripper's state at a request.", unit="s", low=0.02, high=2.0
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


class VlaInferenceNode(ManagedNode[VlaInferenceConfig]):
    """Publishes `policy/chunk` and `policy/path`."""

    _chunk: Sender
    _path: Sender
    _reader: ObservationReader

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("vla_inference", VlaInferenceConfig, overrides)
        self._steady = steady_clock()
        self._endpoints = Endpoints(self)
        self._sampler = Sampler(self)
        self._worker: InferenceWorker | None = None
        self._wake: GuardCondition | None = None
        self._timer: Timer | None = None
        self._episode = EpisodeState()
        self._row_s = float("-inf")

    def setup(self) -> None:
        """Load the policy and create topics."""
        config = self.config
        self._period_ns = round(config.control_period_s * NS_PER_S)
        environment = PolicyEnvironment(control_period_s=config.control_period_s, cameras=CAMERAS)
        self._policy = make_policy(config.policy, config.settings, environment)
        self._requests = ChunkRequests(self._period_ns)
        state = StateReader(
            self._sampler,
            max_age_s=config.max_state_age_s,
            max_gripper_age_s=config.max_gripper_age_s,
            depth=16,  # 80 ms at 200 Hz, so that the state at the stamp is among them
        )
        self._reader = ObservationReader(
            self._sampler, self._policy, state, config.max_image_age_s
        )
        self._chunk = self._endpoints.publisher("policy/chunk")
        self._path = self._endpoints.publisher("policy/path")
        self._endpoints.reader("episode/state", self._on_episode)
        self._endpoints.reader("action/executed", self._on_executed)

    def start(self) -> None:
        """Start the worker; the first request comes with the episode."""
        self._requests.reset(self._episode.epoch)
        self._took_ms = Window(100)
        self._said = ""
        self._wake = self.create_guard_condition(self._on_answer)
        self._worker = InferenceWorker(self._policy, self._wake.trigger)
        self._timer = self.create_timer(
            self.config.control_period_s, self._on_timer, clock=self._steady
        )

    def stop(self, reason: str) -> None:
        """Stop asking and join the worker."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning("the running inference does not end; left behind")
        self._worker = None
        if self._wake is not None:
            self.destroy_guard_condition(self._wake)
            self._wake = None

    def teardown(self) -> None:
        """Leave the topics."""
        self._endpoints.destroy()
        self._sampler.destroy()

    def _on_episode(self, message: DiagnosticArray) -> None:
        try:
            episode = decode_episode(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.episode.{error.reason}")
            return
        before, self._episode = self._episode, episode
        if not self.is_running:
            return
        if episode.epoch != self._requests.epoch:
            self._requests.reset(episode.epoch)
            self._row_s = float("-inf")
        if episode.phase is Phase.READY and before.phase is not Phase.READY:
            self._ask(self._now_ns())

    def _on_executed(self, message: JointState) -> None:
        if not self.is_running or self._episode.phase is not Phase.RUNNING:
            return
        try:
            row = decode_executed(message)
        except InvalidCommandError as error:
            self.diag.count(f"rejected.executed.{error.reason}")
            return
        if row.epoch != self._requests.epoch:
            return
        self._row_s = self._now_s()
        if self._requests.on_tick(row, self.config.execute_ticks):
            self._ask(row.stamp_ns)
        self.diag.set("delay_ticks", self._requests.delay.estimate())

    def _on_timer(self) -> None:
        if self._episode.phase not in (Phase.READY, Phase.RUNNING) or self._requests.is_pending:
            return
        if self._now_s() - self._row_s > 2 * self.config.control_period_s:
            self._ask(self._now_ns())

    def _ask(self, stamp_ns: int) -> None:
        assert self._worker is not None
        episode, requests = self._episode, self._requests
        task = episode.task or self.config.task
        last_action = None if requests.last_row is None else requests.last_row.executed
        try:
            observation = self._reader.read(
                stamp_ns, task=task, instruction=episode.instruction, last_action=last_action
            )
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self._say(Level.WARN, f"no chunk: {error}")
            return
        prefix, is_first = requests.prefix(stamp_ns), requests.is_first
        question = Question(
            number=requests.sent(stamp_ns),
            epoch=episode.epoch,
            observation=observation,
            prefix=prefix,
            is_first=is_first,
            extra_delay_s=self.config.extra_delay_s,
        )
        self._worker.ask(question)

    def _on_answer(self) -> None:
        for answer in self._worker.answers() if self._worker is not None else ():
            self._requests.answered(answer.question.number)
            if answer.actions is None:
                self.diag.count("inference_errors")
                self._say(Level.ERROR, f"the policy failed: {answer.error}")
            elif answer.question.epoch != self._requests.epoch:
                self.diag.count("answers_of_other_epochs")
            else:
                self._publish(answer.question, answer.actions)
                self._took_ms.add(answer.took_s * 1e3)
                self.diag.set("inference_p99_ms", self._took_ms.quantile(0.99))

    def _publish(self, question: Question, actions: FloatArray) -> None:
        state = question.observation.state
        chunk = ActionChunk(
            chunk_id=question.number,
            epoch=question.epoch,
            stamp_ns=question.observation.stamp_ns,
            period_ns=self._period_ns,
            delay_ticks=0 if question.prefix is None else len(question.prefix),
            actions=actions,
        )
        self._chunk.publish(encode_chunk(chunk))
        self._requests.published(chunk, self._now_ns())
        self._path.publish(encode_path(chunk, chunk_poses(chunk, Pose(state[:3], state[3:7]))))
        self.diag.count("chunks")
        self._say(Level.OK, "active")

    def _say(self, level: Level, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self.diag.level(level, sentence)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _now_s(self) -> float:
        return float(self._steady.now().nanoseconds * 1e-9)


def main() -> int:
    """Run the node."""
    return run(VlaInferenceNode)


if __name__ == "__main__":
    raise SystemExit(main())
