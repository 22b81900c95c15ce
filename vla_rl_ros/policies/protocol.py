# SPDX-License-Identifier: Apache-2.0
"""What the runtime asks of a vision-language-action policy, and how one is made by name.

A back end is one module with a function ``make(settings) -> ChunkPolicy``. It owns its weights,
its preprocessing and its action codec; it knows nothing of ROS, ticks or episodes. Heavy imports
belong into ``make``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose

POLICY_MODULES = {
    "by_task": "vla_rl_ros.policies.by_task",
    "lerobot": "vla_rl_ros.policies.lerobot",
    "onnx": "vla_rl_ros.policies.onnx",
    "openpi": "vla_rl_ros.policies.openpi",
    "pi0": "vla_rl_ros.policies.pi0",
    "scripted": "vla_rl_ros.policies.scripted",
    "still": "vla_rl_ros.policies.still",
}
"""Back ends by name; the module is imported only when its policy is made."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyObservation:
    """What a policy sees at one tick.

    Attributes:
        stamp_ns: Stamp of the tick; element 0 of the answer belongs to it.
        images: Camera name to colour image, (height, width, 3), read-only.
        state: Proprioception at the stamp, channels of `core.spec.STATE_CHANNELS`, shape (20,).
        instruction: What the policy is told.
        task: Task name; for policies that are not told by language.
        last_action: Action executed at the last tick, SI, shape (7,), None at the start.
        joint_rad: Measured joint positions at the stamp, shape (7,); None where nobody asks.
        target: Target of the arm before element 0 is added, base frame; None at the start, when
            the arm stands on its target.
        objects: True object poses, only for policies with `needs_objects`.
    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    state: FloatArray
    instruction: str
    task: str
    last_action: FloatArray | None = None
    joint_rad: FloatArray | None = None
    target: Pose | None = None
    objects: Mapping[str, Pose] | None = None


class ChunkPolicy(Protocol):
    """A policy that answers one observation with a chunk of actions.

    Used from one thread at a time.
    """

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras it looks at; without a fresh image of each it is not asked."""

    @property
    def needs_objects(self) -> bool:
        """Whether it reads true object poses, which exist in simulation only."""

    @property
    def anchor(self) -> Anchor:
        """What the gate has to add its increments to."""

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """What it can do with a prefix."""

    @property
    def max_locked(self) -> int:
        """Longest locked prefix it answers well to, in ticks; `horizon` for any."""

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Predict a chunk.

        Args:
            observation: What is seen at the tick of element 0.
            prefix: What is promised to the arm while the inference runs, None at the start of an
                episode and in modes that condition on nothing.

        Returns:
            Actions in SI, shape (horizon, 7), channels of `core.spec.ACTION_CHANNELS`.
        """

    def reset(self) -> None:
        """Forget everything; called before the first inference of an episode."""


@runtime_checkable
class HasFeatures(Protocol):
    """A policy that also gives features of the images it saw, at no further inference.

    Ask `featured` instead of testing for the type: a policy whose weights have none has width 0.
    """

    @property
    def feature_dim(self) -> int:
        """Width of the features, F; 0 for none."""

    @property
    def tower_hash(self) -> str:
        """Of what made them; features with equal ones mean the same."""

    def features(self) -> npt.NDArray[np.float32]:
        """Features of the images of the last `infer`, shape (F,); zeros before the first."""


@runtime_checkable
class Reseedable(Protocol):
    """A policy whose noise can begin anew."""

    def reseed(self, seed: int) -> None:
        """Begin the noise that belongs to a seed."""


def featured(policy: ChunkPolicy) -> HasFeatures | None:
    """The policy as one with features, None if it has none."""
    return policy if isinstance(policy, HasFeatures) and policy.feature_dim > 0 else None


SHIPPED_EYES = "shipped"
"""Value of the setting `eyes` that means the tower of pi0-nano."""


def absolute_eyes(eyes: str) -> str:
    """A value of the setting `eyes` that means the same in every process."""
    return eyes if eyes in ("", SHIPPED_EYES) else str(Path(eyes).expanduser().resolve())


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What every back end is made from."""

    horizon: int = param(
        8, doc="Elements per chunk, where the weights leave it open.", low=1, high=256
    )
    path: str = param(
        "", doc="Directory or file of the weights; empty for the ones that ship with the package."
    )
    eyes: str = param(
        "",
        doc="What makes the image features for a residual: a PI0 checkpoint's vision tower, "
        "'shipped' for pi0-nano's, or a directory of 'train eyes'; empty for the policy's own.",
    )
    url: str = param("ws://127.0.0.1:8000", doc="Policy server, for openpi only.")
    timeout_s: float = param(
        2.0, doc="Longest wait for a policy server.", unit="s", low=0.05, high=60.0
    )
    device: str = param(
        "auto",
        doc="Where the network runs; auto takes a GPU if there is one, tensorrt is for onnx only.",
        choices=("auto", "cpu", "cuda", "tensorrt"),
    )
    dtype: str = param(
        "auto",
        doc="Type of the weights; auto is bfloat16 on a GPU and float32 elsewhere.",
        choices=("auto", "float32", "bfloat16"),
    )
    num_threads: int = param(1, doc="Threads of the network on a CPU.", low=1, high=64)
    seed: int = param(0, doc="Seed of the noise that denoising begins with.", low=0)
    denoise_steps: int = param(
        0, doc="Euler steps of the flow; 0 for what the weights ask for.", low=0, high=100
    )
    guidance: str = param(
        "jacobian",
        doc="Guidance by a plan: exact, or with the identity for the model's Jacobian (cheaper).",
        choices=("jacobian", "identity"),
    )
    guidance_limit: float = param(
        5.0, doc="Largest weight of the guidance, beta of RTC.", low=0.0, high=100.0
    )

    scripted_tasks: tuple[str, ...] = param(
        ("peg_out",), doc="Tasks that the scripted expert does, for by_task only."
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEnvironment:
    """What the cell tells a back end when it is made.

    Attributes:
        control_period_s: Time between two elements of a chunk.
        cameras: Names of the cameras of the cell.
    """

    control_period_s: float = 0.1
    cameras: tuple[str, ...] = field(default=())


def make_policy(
    name: str, settings: PolicySettings, environment: PolicyEnvironment
) -> ChunkPolicy:
    """Make a policy by name.

    Raises:
        ConfigError: Unknown name, or the back end refuses its settings.
    """
    module_name = POLICY_MODULES.get(name)
    if module_name is None:
        known = ", ".join(sorted(POLICY_MODULES))
        raise ConfigError(f"policy='{name}' is unknown; known: {known}")
    policy: ChunkPolicy = importlib.import_module(module_name).make(settings, environment)
    if settings.eyes:
        policy = _with_eyes(policy, settings)
    missing = sorted(set(policy.cameras) - set(environment.cameras))
    if missing:
        raise ConfigError(f"policy '{name}' needs cameras the cell lacks: {', '.join(missing)}")
    return policy


def _with_eyes(policy: ChunkPolicy, settings: PolicySettings) -> ChunkPolicy:
    # All of them import this module.
    from vla_rl_ros.policies.eyes import SeeingPolicy
    from vla_rl_ros.policies.eyes_directory import check_eyes
    from vla_rl_ros.policies.goal_eyes import GoalEyes, are_goal_eyes
    from vla_rl_ros.policies.pi0 import make_eyes

    check_eyes(settings.eyes, "settings.eyes")
    directory = Path(settings.eyes).expanduser()
    if settings.eyes != SHIPPED_EYES and are_goal_eyes(directory):
        return SeeingPolicy(policy, GoalEyes(directory, settings.num_threads))
    return SeeingPolicy(policy, make_eyes(settings))
