# SPDX-License-Identifier: Apache-2.0
"""Parameters of the inference node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.types import Mode
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicySettings


@dataclass(frozen=True, kw_only=True)
class VlaInferenceConfig:
    """Which policy, how its chunks are executed, and how fresh its inputs must be."""

    policy: str = param("scripted", doc="Name of the policy back end.")
    settings: PolicySettings = param(  # noqa: RUF009 - param() makes a field
        PolicySettings(), doc="Settings of the back end."
    )
    task: str = param("", doc="Task told to the policy when the episode names none.")
    mode: str = param(
        Mode.PREFIX_LOCK.value,
        doc="How chunks are executed while the next one is inferred; each chunk tells the actor.",
        choices=tuple(mode.value for mode in Mode),
    )
    control_period_s: float = param(
        0.1, doc="Time between two elements of a chunk.", unit="s", low=0.02, high=1.0
    )
    execute_ticks: int = param(
        0,
        doc="Ticks s from one request to the next; 0 for as many as the latency budget takes, "
        "in mode sync for the whole chunk.",
        low=0,
        high=256,
        live=True,
    )
    latency_budget_s: float = param(
        0.05,
        doc="Time an answer may take from its tick on; the delay d it stands for must fit: "
        "d <= s <= H - d.",
        unit="s",
        low=0.0,
        high=10.0,
    )
    anchor: str = param(
        Anchor.MEASURED.value,
        doc="What the gate adds increments to; must be what the policy was trained for.",
        choices=tuple(anchor.value for anchor in Anchor),
    )
    shadow: bool = param(
        False, doc="Whether to go on inferring while a human drives; the gate's mode is shadow."
    )
    extra_delay_s: float = param(
        0.0, doc="Added to every inference.", unit="s", low=0.0, high=5.0, live=True
    )
    extra_jitter_s: float = param(
        0.0, doc="Up to this much is added at random.", unit="s", low=0.0, high=5.0, live=True
    )
    extra_spike_s: float = param(
        0.0, doc="Added to some inferences.", unit="s", low=0.0, high=5.0, live=True
    )
    extra_spike_share: float = param(
        0.0, doc="Share of the inferences with a spike.", low=0.0, high=1.0, live=True
    )
    camera_latency_s: float = param(
        0.0, doc="From exposure to an image's stamp.", unit="s", low=0.0, high=1.0
    )
    arm_latency_s: float = param(
        0.0, doc="From measurement to the stamp of the arm's state.", unit="s", low=0.0, high=1.0
    )
    gripper_latency_s: float = param(
        0.0, doc="From measurement to the gripper's stamp.", unit="s", low=0.0, high=1.0
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

    @property
    def timing(self) -> AsyncSettings:
        """How chunks are executed."""
        return AsyncSettings(
            mode=self.mode,
            control_period_s=self.control_period_s,
            execute_ticks=self.execute_ticks,
            latency_budget_s=self.latency_budget_s,
        )

    def extra_delay(self, rng: np.random.Generator) -> float:
        """Delay to inject into one inference, in seconds."""
        delay_s = self.extra_delay_s + self.extra_jitter_s * rng.random()
        if rng.random() < self.extra_spike_share:
            delay_s += self.extra_spike_s
        return delay_s


def traits_of(policy: ChunkPolicy) -> PolicyTraits:
    """What timing has to know of a policy."""
    return PolicyTraits(
        horizon=policy.horizon,
        conditionings=policy.conditionings,
        max_locked=policy.max_locked,
    )


def check_anchor(anchor: str, policy: ChunkPolicy, name: str) -> None:
    """Refuse a policy whose increments the gate would add to something else.

    Raises:
        ConfigError: Names the parameter and both nodes that have it.
    """
    if policy.anchor is not Anchor(anchor):
        raise ConfigError(
            f"anchor='{anchor}', but policy '{name}' needs '{policy.anchor.value}'; set anchor of "
            "vla_inference and intervention"
        )
