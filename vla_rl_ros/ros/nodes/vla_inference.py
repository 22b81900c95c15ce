# SPDX-License-Identifier: Apache-2.0
"""Asks the policy for chunks while the robot keeps moving.

Each request is an observation for an executed tick, so that element i of the answer belongs to
exactly that tick plus i. The model runs in a worker; a late, failed or foreign answer is dropped
and the next tick asks again. Without fresh inputs nothing is asked, and the arm holds.
"""

from __future__ import annotations

import numpy as np
from rclpy.guard_condition import GuardCondition
from rclpy.timer import Timer

from vla_rl_ros.core.async_plan import make_chunk
from vla_rl_ros.core.chunking import Verdict, chunk_poses
from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.core.requests import ChunkRequests
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyEnvironment, featured, make_policy
from vla_rl_ros.ros.action_codecs import encode_features, encode_path
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Sender
from vla_rl_ros.ros.episode_node import EpisodeNode
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.inference import Answer, InferenceWorker, Question
from vla_rl_ros.ros.inference_config import VlaInferenceConfig, check_anchor, traits_of
from vla_rl_ros.ros.observation_reader import ObservationLimits, ObservationReader, Seen
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.state_reader import StateLimits
from vla_rl_ros.ros.timing import Window
from vla_rl_ros.ros.urgency import Urgency, own_urgency

_SLOW_S = 1.0
"""Silence of the policy after which the operator is told that it is waited for."""

_LEAD_S = 0.003
"""From a rehearsal to the report of the next tick, which comes 1.5 ms after the tick."""

_MANY_LATE = 5
"""Late chunks in a row that are no spike any more."""


class VlaInferenceNode(EpisodeNode[VlaInferenceConfig]):
    """Publishes `policy/features`, `policy/chunk` and `policy/path`."""

    _features: Sender
    _chunk: Sender
    _path: Sender
    _reader: ObservationReader
    _policy: ChunkPolicy

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("vla_inference", VlaInferenceConfig, overrides)
        self._requests: ChunkRequests | None = None
        self._worker: InferenceWorker | None = None
        self._wake: GuardCondition | None = None
        self._rehearsal: Timer | None = None
        self._rng = np.random.default_rng(0)

    def setup(self) -> None:
        """Load the policy, check that it fits, create topics."""
        config = self.config
        environment = PolicyEnvironment(control_period_s=config.control_period_s, cameras=CAMERAS)
        self._policy = make_policy(config.policy, config.settings, environment)
        self._featured = featured(self._policy)
        check_anchor(config.anchor, self._policy, config.policy)
        self._traits = traits_of(self._policy)
        config.timing.check(self._traits)
        self._spec = ActionSpec(control_period_s=config.control_period_s)
        self._requests = ChunkRequests(config.timing, self._traits, is_shadow=config.shadow)
        self._warn_of_deaf_policy()
        self._reader = ObservationReader(self.sampler, self._policy, _limits(config))
        self._features = self.endpoints.publisher("policy/features")
        self._chunk = self.endpoints.publisher("policy/chunk")
        self._path = self.endpoints.publisher("policy/path")
        self._wake = self.create_guard_condition(self._on_answer)
        self._worker = InferenceWorker(self._policy, self._wake.trigger)
        self.follow_episodes()

    def start(self) -> None:
        """Begin to ask; the first request comes with the episode."""
        self._running().reset(self.episode.epoch)
        self._took_ms, self._age_ms = Window(100), Window(100)
        self._row_s = self._asked_s = self._published_s = float("-inf")
        self._scene_ns: int | None = self.now_ns()
        self._said = ""
        if self._worker is not None:
            self._worker.urgency = own_urgency()
        self.start_timer(self.config.control_period_s, self._on_timer)
        self._rehearsal = self.create_timer(
            self.config.control_period_s - _LEAD_S, self._rehearse, clock=steady_clock()
        )

    def stop(self, reason: str) -> None:
        """Stop the timers."""
        if self._rehearsal is not None:
            self.destroy_timer(self._rehearsal)
            self._rehearsal = None
        super().stop(reason)

    def teardown(self) -> None:
        """Join the worker and leave the topics; an inference that hangs is left behind."""
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning("the running inference does not end; left behind")
        self._worker = self._requests = None
        if self._wake is not None:
            self.destroy_guard_condition(self._wake)
            self._wake = None
        super().teardown()

    def on_config(self, config: VlaInferenceConfig) -> None:
        """Take over a new pace, if it fits the policy."""
        if self._requests is not None:
            config.timing.check(self._traits)
            self._requests.settings = config.timing

    def on_episode(self, before: EpisodeState) -> None:
        """Forget the last episode; from READY on the scene is that of the next one."""
        if not self.is_running:
            return
        requests = self._running()
        if self.episode.epoch != requests.epoch:
            requests.reset(self.episode.epoch)
            self._row_s = self._published_s = float("-inf")
        is_new = before.phase is not Phase.READY or before.epoch != self.episode.epoch
        if self.episode.phase is Phase.READY and is_new:
            self._scene_ns = self.now_ns()

    def on_executed(self, row: ExecutedAction) -> None:
        """Follow the tick, and ask when it is time."""
        requests = self._running()
        if self.episode.phase is not Phase.RUNNING or row.epoch != requests.epoch:
            return
        self._row_s = self.now_s()
        if self._rehearsal is not None:
            self._rehearsal.reset()
        if row.chunk_step == NO_STEP:
            self.diag.count("ticks_held")
        must_ask = requests.on_tick(row)
        self.diag.set("delay_ticks", requests.delay.estimate())
        self.diag.set("late_chunks", float(requests.num_late))
        if requests.num_conditioned:
            self.diag.set("delay_hit_rate", requests.num_hits / requests.num_conditioned)
        if must_ask:
            # Last: what this thread does afterwards keeps the interpreter from the inference.
            self._ask(row.stamp_ns)

    def _rehearse(self) -> None:
        """Read what the next tick will read: soon afterwards it takes half as long."""
        if self.episode.phase is Phase.RUNNING:
            self._reader.rehearse(self.now_ns())

    def _on_timer(self) -> None:
        """Ask where no tick does: before the start, and when the ticks have ceased."""
        if self.episode.phase not in (Phase.READY, Phase.RUNNING):
            return
        now_s, period_s = self.now_s(), self.config.control_period_s
        if self._running().is_pending:
            if now_s - self._asked_s > _SLOW_S:
                self.say(Level.WARN, f"waiting for the policy, longer than {_SLOW_S:g} s")
            return
        # A chunk that waits for its start is replaced before it is stale, and not more often: an
        # inference under way at the start delays the next one.
        is_fresh = now_s - self._published_s < max(1, self._traits.horizon // 4) * period_s
        if now_s - self._row_s > 2 * period_s and not is_fresh:
            self._ask(self.now_ns())

    def _ask(self, stamp_ns: int) -> None:
        worker, requests, episode = self._worker, self._running(), self.episode
        assert worker is not None
        last_row = requests.last_row
        try:
            seen = self._reader.read(
                stamp_ns,
                task=episode.task or self.config.task,
                instruction=episode.instruction,
                last_action=None if last_row is None else last_row.executed,
            )
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self.say(Level.WARN, f"no chunk: {error}")
            return
        if not self._shows_the_scene(seen):
            self.diag.count("waits_for_scene")
            return
        self._asked_s = self.now_s()
        self._age_ms.add((self.now_ns() - seen.stamp_ns) * 1e-6)
        self.diag.set("observation_age_p99_ms", self._age_ms.quantile(0.99))
        worker.ask(
            Question(
                request=requests.request(stamp_ns),
                observation=seen.observation,
                extra_delay_s=self.config.extra_delay(self._rng),
            )
        )

    def _shows_the_scene(self, seen: Seen) -> bool:
        """Whether all that is seen is of after the reset; the timer asks until something is."""
        begin_ns = self._scene_ns
        # A beginning in the future means that the clock was set back: it says nothing any more.
        if begin_ns is not None and seen.oldest_ns < begin_ns <= self.now_ns():
            return False
        self._scene_ns = None
        return True

    def _on_answer(self) -> None:
        for answer in self._worker.answers() if self._worker is not None else ():
            if self.is_running:
                self._take(answer)

    def _take(self, answer: Answer) -> None:
        request = answer.question.request
        verdict = self._running().answered(request)
        if verdict is Verdict.OTHER_EPOCH:
            self.diag.count("answers_of_other_epochs")
        elif answer.actions is None:
            self.diag.count("inference_errors")
            # What passes by itself must not end the episode; the arm holds meanwhile.
            level = Level.WARN if answer.is_passing else Level.ERROR
            self.say(level, f"the policy failed: {answer.error}")
        elif verdict is not Verdict.ACCEPTED:
            self.diag.count(f"answers.{verdict.value}")
        else:
            self._publish(answer.question, answer.actions, answer.features)
            self._took_ms.add(answer.took_s * 1e3)
            self.diag.set("inference_p99_ms", self._took_ms.quantile(0.99))

    def _publish(self, question: Question, actions: FloatArray, features: Float32Array) -> None:
        requests, state = self._running(), question.observation.state
        chunk = make_chunk(question.request, actions, requests.settings, self._traits, self._spec)
        made_by = self._featured.tower_hash if self._featured is not None else ""
        self._features.publish(encode_features(features, made_by, chunk.stamp_ns))
        self._chunk.publish(encode_chunk(chunk))
        requests.published(chunk, self.now_ns())
        self._published_s = self.now_s()
        self._path.publish(encode_path(chunk, chunk_poses(chunk, Pose(state[:3], state[3:7]))))
        self.diag.count("chunks")
        if requests.late_in_a_row < _MANY_LATE:
            self.say(Level.OK, "active")
        else:
            self.say(
                Level.WARN,
                f"the last chunks came later than the {chunk.delay_ticks} ticks they were "
                "conditioned for: the policy is slower than horizon, execute_ticks and its "
                "longest locked prefix allow",
            )

    def _running(self) -> ChunkRequests:
        assert self._requests is not None
        return self._requests

    def _warn_of_deaf_policy(self) -> None:
        rules, timing = self.config.timing.rules, self.config.timing
        if rules.is_locked and timing.conditioning(self._traits) is Conditioning.NONE:
            self.get_logger().warning(
                f"policy '{self.config.policy}' cannot be told what is locked; its chunks may "
                "jump behind the locked rows"
            )


def _limits(config: VlaInferenceConfig) -> ObservationLimits:
    state = StateLimits(
        max_age_s=config.max_state_age_s,
        max_gripper_age_s=config.max_gripper_age_s,
        # At 200 Hz, so that the state at the exposure of the oldest image is among them.
        depth=round(200 * (config.max_image_age_s + config.camera_latency_s)) + 8,
        arm_latency_s=config.arm_latency_s,
        gripper_latency_s=config.gripper_latency_s,
    )
    return ObservationLimits(
        state=state,
        max_image_age_s=config.max_image_age_s,
        camera_latency_s=config.camera_latency_s,
    )


def main() -> int:
    """Run the node."""
    return run(VlaInferenceNode, urgency=Urgency.COMMAND)


if __name__ == "__main__":
    raise SystemExit(main())
