# SPDX-License-Identifier: Apache-2.0
"""Says several times per second how probable it is that the task is done, and decides.

Owns `task/success`. One classifier per task; the episode's task chooses. Images that are old, of
different times or missing give no result at all, and diagnostics say why: silence decides nothing.

On a busy machine an ordinary thread takes ten times its processor time. As long as judgements are
short they therefore go ahead of all ordinary threads, behind the frames themselves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.success import Debounce, violated_check
from vla_rl_ros.learning.classifier_model import SuccessModel
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.classifier_config import SuccessClassifierConfig
from vla_rl_ros.ros.classifier_senses import ClassifierSenses, Glance
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Sender
from vla_rl_ros.ros.episode_node import EpisodeNode
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.timing import Window
from vla_rl_ros.ros.urgency import Urgency, hurry_thread
from vla_rl_ros.ros.worker import Worker

_LONGEST_URGENT_MS = 10.0
"""Processor time of a judgement that may keep ordinary threads waiting, the arm's loop too."""
_LARGEST_URGENT_PART = 0.15
"""Of a core, in judgements that may."""
_RECENT = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """One glance to judge.

    Attributes:
        glance: What was seen.
        model: Judges it.
        series: Changes with the episode, when it begins to run, and after every gap; nothing is
            counted across.
    """

    glance: Glance
    model: SuccessModel
    series: tuple[int, bool, str, int]


class SuccessClassifierNode(EpisodeNode[SuccessClassifierConfig]):
    """Publishes `task/success` while images are fresh and the task is one it knows."""

    _success: Sender
    _senses: ClassifierSenses

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("success_classifier", SuccessClassifierConfig, overrides)
        self._models: dict[str, SuccessModel] = {}
        self._worker: Worker[_Job] | None = None

    def setup(self) -> None:
        """Load the classifiers and listen."""
        config = self.config
        self._models = _load(config.classifiers)
        cameras = {camera for model in self._models.values() for camera in model.manifest.cameras}
        self._senses = ClassifierSenses(self.sampler, sorted(cameras), config)
        self._success = self.endpoints.publisher("task/success")
        self.follow_episodes()
        for task, model in self._models.items():
            self.diag.set(f"version.{task}", model.manifest.version)

    def start(self) -> None:
        """Begin to judge."""
        self._cost_ms, self._age_ms = Window(600), Window(600)
        self._processor_ms, self._urgency = Window(_RECENT), Urgency.NONE
        self.diag.set("goes_first", "False")
        self._num_gaps, self._judged_ns = 0, 0
        self._series: tuple[int, bool, str, int] | None = None
        self._debounce = Debounce(1, 1)
        self._worker = Worker(self._judge, self._on_error, "classifier")
        self.start_timer(1.0 / self.config.rate_hz, self._on_tick)

    def stop(self, reason: str) -> None:
        """Stop the timer, let a running judgement end."""
        super().stop(reason)
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop():
            self.get_logger().warning("the classifier does not end; its thread is left behind")

    def _on_tick(self) -> None:
        worker, task = self._worker, self.episode.task
        if worker is None or not task:
            return
        model = self._models.get(task)
        if model is None:
            known = ", ".join(sorted(self._models))
            self._no_result(f"no classifier for task '{task}', only for {known}")
            return
        try:
            glance = self._senses.look(model.manifest.cameras, self.now_ns())
        except InvalidCommandError as error:
            self.diag.count(f"rejected.{error.reason}")
            self._no_result(f"no result: {error.reason}, {error}")
            return
        if glance.stamp_ns == self._judged_ns:
            # Cameras are slower than this node; what was judged is not news.
            return
        self._judged_ns = glance.stamp_ns
        # The number of an episode is new before its scene is.
        runs = self.episode.phase is Phase.RUNNING
        series = (self.episode.epoch, runs, task, self._num_gaps)
        if not worker.submit(_Job(glance=glance, model=model, series=series)):
            self.diag.count("overruns")

    def _no_result(self, sentence: str) -> None:
        self._num_gaps += 1
        self.diag.count("without_result")
        self.say(Level.WARN, sentence)

    def _judge(self, job: _Job) -> None:
        """In the worker: infer, count, publish."""
        manifest, glance = job.model.manifest, job.glance
        if job.series != self._series:
            self._series = job.series
            self._debounce = Debounce(manifest.needed, manifest.window)
        begin_s, begin_processor_s = time.perf_counter(), time.thread_time()
        probability = job.model.probability(glance.images)
        self._cost_ms.add((time.perf_counter() - begin_s) * 1e3)
        self._processor_ms.add((time.thread_time() - begin_processor_s) * 1e3)
        self._choose_urgency()
        refusal = violated_check(manifest.checks, glance.measured)
        is_success = probability >= manifest.threshold and refusal is None
        decided = self._debounce.update(is_success)
        if self._worker is None:
            return
        values = dict(zip(SUCCESS_CHANNELS, (probability, float(decided)), strict=True))
        self._success.publish(encode_channels(values, glance.stamp_ns, manifest.version))
        self._age_ms.add((self.now_ns() - glance.stamp_ns) * 1e-6)
        self._show(probability, decided, refusal)

    def _choose_urgency(self) -> None:
        """Go first from the next judgement on, or no longer."""
        took_ms = self._processor_ms.quantile(0.5)
        part = took_ms * 1e-3 * self.config.rate_hz
        is_short = took_ms <= _LONGEST_URGENT_MS and part <= _LARGEST_URGENT_PART
        urgency = Urgency.JUDGEMENT if is_short else Urgency.NONE
        self.diag.set("processor_time_ms", took_ms)
        if urgency is not self._urgency:
            self._urgency = urgency
            self.diag.set("goes_first", str(hurry_thread(urgency) and is_short))

    def _show(self, probability: float, decided: bool, refusal: str | None) -> None:
        diag = self.diag
        diag.count("judged")
        diag.count("decided", int(decided))
        diag.set("probability", probability)
        diag.set("check", refusal or "kept")
        diag.set("inference_p99_ms", self._cost_ms.quantile(0.99))
        diag.set("image_age_p99_ms", self._age_ms.quantile(0.99))
        self.say(Level.OK, "judging")

    def _on_error(self, error: Exception) -> None:
        self.diag.count("errors")
        self.say(Level.ERROR, f"no result: {error}")
        self.get_logger().error(f"not judged: {error!r}", throttle_duration_sec=1.0)


def _load(directories: tuple[str, ...]) -> dict[str, SuccessModel]:
    """Classifiers by task.

    Raises:
        ConfigError: There is none, one cannot be loaded, two are for one task, or a camera does
            not exist.
    """
    models: dict[str, SuccessModel] = {}
    if not any(directories):
        raise ConfigError(
            "parameter 'classifiers' is empty: name a directory that 'vla-rl-ros train "
            "classifier' wrote"
        )
    for directory in directories:
        model = SuccessModel(Path(directory))
        task, unknown = model.manifest.task, set(model.manifest.cameras) - set(CAMERAS)
        if task in models:
            raise ConfigError(f"two classifiers are for task '{task}': name one of them")
        if unknown:
            raise ConfigError(
                f"{directory} looks through {', '.join(sorted(unknown))}; this cell has "
                f"{', '.join(CAMERAS)}"
            )
        models[task] = model
    return models


def main() -> int:
    """Run the node."""
    return run(SuccessClassifierNode)


if __name__ == "__main__":
    raise SystemExit(main())
