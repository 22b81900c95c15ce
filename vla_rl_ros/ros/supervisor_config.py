# SPDX-License-Identifier: Apache-2.0
"""Parameters of the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.episode import ResetKind
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reset_plan import ResetMode
from vla_rl_ros.ros.cell_senses import OUTCOME_TOPICS
from vla_rl_ros.ros.graph_parameters import MANAGED_NODES
from vla_rl_ros.ros.scene_checks import CHECKS
from vla_rl_ros.ros.share import known_tasks


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """Nodes to bring up, the next episode, and how outcomes are decided."""

    managed_nodes: tuple[str, ...] = param(MANAGED_NODES, doc="Nodes in bring-up order.")
    task: str = param("lift", doc="Task of the next episode that is asked for.", live=True)
    instruction: str = param(
        "",
        doc="What the policy is told, at once; empty for the task's own sentence.",
        live=True,
    )
    seed: int = param(
        0, doc="Seed of the next reset; each episode adds one.", low=0, high=2**31 - 1, live=True
    )
    tasks: tuple[str, ...] = param(
        ("lift",), doc="Tasks that take turns in episodes that nobody asks for.", live=True
    )
    autorun_episodes: int = param(
        0, doc="Episodes to run without being asked.", low=0, high=1_000_000, live=True
    )
    episodes_per_task: int = param(
        1, doc="Episodes of a task before the next task's turn.", low=1, high=1_000_000, live=True
    )
    reset: str = param(
        ResetMode.SCRIPTED.value,
        doc="How scenes are reset: by a script, by the task that undoes this one, by a person.",
        choices=tuple(mode.value for mode in ResetMode),
    )
    pair_help: str = param(
        ResetKind.HUMAN.value,
        doc="Who helps a pair of tasks at its beginning and when it is stuck.",
        choices=(ResetKind.SCRIPTED.value, ResetKind.HUMAN.value),
    )
    scene_check: str = param(
        "auto",
        doc="Who says whether a scene is in its start; auto asks a simulator, else the judge of "
        "success, else nobody.",
        choices=CHECKS,
    )
    control_period_s: float = param(
        0.1, doc="What a tick that a person drove is worth.", unit="s", low=0.02, high=1.0
    )
    rate_window: int = param(
        20, doc="Episodes that the rolling intervention rate looks back on.", low=1, high=1000
    )
    outcome_source: str = param(
        "ground_truth", doc="Who decides success.", choices=tuple(OUTCOME_TOPICS)
    )
    min_success_hold_s: float = param(
        0.2, doc="How long success must last.", unit="s", low=0.0, high=5.0
    )
    bringup_timeout_s: float = param(
        120.0,
        doc="Patience with each node at bring-up; large weights take minutes to load.",
        unit="s",
        low=0.1,
        high=1800.0,
    )
    home_timeout_s: float = param(
        20.0, doc="For the arm to reach its start.", unit="s", low=0.1, high=120.0
    )
    first_chunk_timeout_s: float = param(
        5.0, doc="For the policy's first chunk.", unit="s", low=0.1, high=600.0
    )
    silence_limit_s: float = param(
        3.0, doc="Silence or error of a node that ends an episode.", unit="s", low=1.1, high=60.0
    )

    def __post_init__(self) -> None:
        """Check bounds and that every task exists."""
        check_bounds(self)
        unknown = sorted({self.task, *self.tasks} - set(known_tasks()))
        if unknown or not self.tasks:
            raise ConfigError(f"unknown task {', '.join(unknown)}; known: {known_tasks()}")
