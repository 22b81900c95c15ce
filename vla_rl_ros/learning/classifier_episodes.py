# SPDX-License-Identifier: Apache-2.0
"""Episodes of the fast simulator to label: the policy's own, and failures that look like success.

What a classifier has to tell from success is not the empty table but the peg that stands on the
rim. Where a real cell shows such moments by and by, the simulator stages them
(`classifier_staging`). Every episode follows from its kind and seed alone. Called by `vla-rl-ros
label --simulate` and by the benches of the classifier.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray, ImageArray
from vla_rl_ros.data.label_frames import EpisodeFrames
from vla_rl_ros.learning.base_eval import DelayedExecutor, seen
from vla_rl_ros.learning.classifier_staging import STAGED, WRONG_TASK, Stage
from vla_rl_ros.policies.protocol import ChunkPolicy
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import TASKS, Task
from vla_rl_ros.sim.variants import variant

POLICY = "policy"
DELAY_TICKS = 2
STAGED_SEEDS = 1_000_000
"""Added to the seeds of staged episodes, so that none has the layout of a policy episode.

Episodes are split into training and calibration one by one; a layout would be in both."""
VARIANT_SEEDS = 10_000_000
"""Added for each number of a variant, for the same reason."""
_NUM_VARIANT_NUMBERS = 1000
_HOLD_TICKS = 3
_AFTER_TICKS = 6
_STAGED_TICKS = 60
_MAX_DRAWS = 20
_OTHER = {Task.LIFT: Task.BUTTON, Task.BUTTON: Task.LIFT}

Watcher = Callable[[Mapping[str, ImageArray], FloatArray], bool]
"""Sees images and (x, y, z, width) of a tick; says whether the episode is over."""


class EpisodeMaker:
    """Plays episodes of one task; not thread-safe.

    Attributes:
        task: What is to be done.
        policy: Plays the episodes of kinds `POLICY` and `WRONG_TASK`; may be set later.
        sim: The simulator.
    """

    def __init__(
        self, task: Task, policy: ChunkPolicy | None, variant_name: str = "default"
    ) -> None:
        """Compile the scene.

        Args:
            task: What is to be done.
            policy: Plays the episodes of kinds `POLICY` and `WRONG_TASK`; None for none of these.
            variant_name: Difficulty of the scene.

        Raises:
            ConfigError: Unknown variant.
        """
        self.task, self.policy = task, policy
        self.sim = FastSim(variant(variant_name))
        self._variant = variant_name

    @property
    def variant_number(self) -> int:
        """Number of the variant by its name alone, 0 for the default."""
        if self._variant == "default":
            return 0
        return 1 + zlib.crc32(self._variant.encode()) % _NUM_VARIANT_NUMBERS

    def close(self) -> None:
        """Free the renderer."""
        self.sim.close()

    def play(self, kind: str, seed: int, watcher: Watcher | None = None) -> EpisodeFrames:
        """Play one episode.

        Args:
            kind: `POLICY` or one of `STAGED`.
            seed: Of layout and noise.
            watcher: Ends the episode where it says so, as the cell's supervisor would. Without
                one it ends half a second after the task has been solved for 0.2 s, or with its
                time.

        Raises:
            ConfigError: Unknown kind, or no policy to play it.
        """
        if kind not in (POLICY, *STAGED.get(self.task, ())):
            known = ", ".join((POLICY, *STAGED.get(self.task, ())))
            raise ConfigError(
                f"'{kind}' is no kind of episode of {self.task.value}; known: {known}"
            )
        if kind in (POLICY, WRONG_TASK):
            return self._policy_episode(kind, seed, watcher)
        for draw in range(_MAX_DRAWS):
            rng = np.random.default_rng([seed, draw])
            frames = self._staged_episode(kind, seed, rng, watcher)
            # Staged as a failure, but a cube can slip into a hand that aimed beside it.
            if frames.truth is not None and not frames.truth.any():
                return frames
        raise ConfigError(f"{kind} of seed {seed} succeeds each time it is staged")

    def _policy_episode(self, kind: str, seed: int, watcher: Watcher | None) -> EpisodeFrames:
        if self.policy is None:
            raise ConfigError(f"episodes of kind '{kind}' need a policy")
        told = self.task if kind == POLICY else _OTHER[self.task]
        self.sim.reset(self.task, seed=seed)
        self.policy.reset()
        executor = DelayedExecutor(self.policy, DELAY_TICKS)
        last: FloatArray | None = None

        def act(tick: int, images: Mapping[str, ImageArray]) -> FloatArray:
            nonlocal last
            last = executor.act(tick, *seen(self.sim, told, last, dict(images)))
            return last

        limit = round(TASKS[self.task].time_limit_s / self.sim.spec.control_period_s)
        return self._run(kind, seed, act, limit, watcher)

    def _staged_episode(
        self, kind: str, seed: int, rng: np.random.Generator, watcher: Watcher | None
    ) -> EpisodeFrames:
        self.sim.reset(self.task, seed=seed)
        stage = Stage(self.sim, self.task, kind, rng)
        return self._run(kind, seed, lambda tick, _: stage.action(tick), _STAGED_TICKS, watcher)

    def _run(
        self,
        kind: str,
        seed: int,
        act: Callable[[int, Mapping[str, ImageArray]], FloatArray],
        limit: int,
        watcher: Watcher | None,
    ) -> EpisodeFrames:
        sim, stamps, states, truth = self.sim, [], [], []
        stacks: dict[str, list[ImageArray]] = {name: [] for name in CAMERAS}
        solved_since: int | None = None
        last_tick = limit
        for tick in range(limit + 1):
            images, is_solved = sim.images(), sim.is_success()
            stamps.append(round(sim.time_s * 1e9))
            states.append([*sim.tcp().position_m, sim.gripper_state().width_m])
            truth.append(is_solved)
            for name, image in images.items():
                stacks[name].append(image)
            solved_since = (
                None if not is_solved else tick if solved_since is None else solved_since
            )
            if watcher is not None:
                if watcher(images, np.array(states[-1])):
                    break
            elif solved_since is not None and tick - solved_since == _HOLD_TICKS - 1:
                last_tick = min(tick + _AFTER_TICKS, limit)
            if tick >= last_tick:
                break
            sim.step(act(tick, images))
        return self._frames(kind, seed, stamps, stacks, states, truth)

    def _frames(
        self,
        kind: str,
        seed: int,
        stamps: list[int],
        stacks: Mapping[str, list[ImageArray]],
        states: list[list[float]],
        truth: list[bool],
    ) -> EpisodeFrames:
        is_done = np.array(truth)
        held = _held_at(is_done)
        return EpisodeFrames(
            episode=episode_name(self.task, kind, seed, self._variant),
            task=self.task.value,
            source=f"simulate {self.task.value} {self._variant} {kind} {seed}",
            kind=kind,
            outcome=Outcome.TIMEOUT if held is None else Outcome.SUCCESS,
            stamps_ns=np.array(stamps),
            images={name: np.stack(own) for name, own in stacks.items()},
            states=np.array(states, dtype=np.float32),
            start_ns=stamps[0],
            end_ns=stamps[-1] if held is None else stamps[held],
            truth=is_done,
        )


def episode_name(task: Task, kind: str, seed: int, variant_name: str) -> str:
    """Name of a simulated episode, unique and fit for a file name."""
    where = "" if variant_name == "default" else f"{variant_name}_"
    return f"sim_{task.value}_{where}{kind}_{seed}"


def _held_at(truth: NDArray[np.bool_]) -> int | None:
    """First tick at which success has held for `_HOLD_TICKS` samples."""
    if len(truth) < _HOLD_TICKS:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(truth, _HOLD_TICKS)
    held = np.flatnonzero(runs.all(1))
    return int(held[0]) + _HOLD_TICKS - 1 if len(held) else None


def episodes(
    maker: EpisodeMaker, num_policy: int, num_staged: int, first_seed: int
) -> Iterator[tuple[str, int]]:
    """Kinds and seeds of a collection: policy episodes, and staged ones of all kinds in turn."""
    first_seed += VARIANT_SEEDS * maker.variant_number
    kinds = STAGED.get(maker.task, ())
    if num_staged and not kinds:
        raise ConfigError(f"no failures of {maker.task.value} can be staged: leave --staged out")
    for number in range(max(num_policy, num_staged)):
        if number < num_policy:
            yield POLICY, first_seed + number
        if number < num_staged:
            yield kinds[number % len(kinds)], STAGED_SEEDS + first_seed + number
