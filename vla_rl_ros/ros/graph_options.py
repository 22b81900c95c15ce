# SPDX-License-Identifier: Apache-2.0
"""What may be chosen of a graph, by command line, launch argument or site file. Knows no ROS."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reset_plan import ResetMode
from vla_rl_ros.hardware.franka_config import is_loopback
from vla_rl_ros.policies.protocol import POLICY_MODULES
from vla_rl_ros.ros.share import known_tasks, read_mapping
from vla_rl_ros.sim.variants import variant

OPERATOR_DEVICES = ("none", "spacemouse", "joy")
OPERATOR_MODES = ("assist", "demonstrate", "shadow")
ParamValue = bool | int | float | str | list[int] | list[float] | list[str]
Parameters = Mapping[str, Mapping[str, ParamValue]]

SIM_ADDRESS = "127.0.0.1"


class Backend(enum.Enum):
    """What stands where the robot and the cameras stand."""

    REAL = "real"
    SIM = "sim"
    """The simulated cell behind Franka's own protocol."""
    FAKE = "fake"
    """First-order fakes without physics, for tests of the graph itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What the user may choose; everything else follows.

    Attributes:
        backend: Real cell, simulated cell or fakes.
        robot_ip: Address of the control box; of the simulator's own server for `Backend.SIM`.
        tasks: Tasks that take turns.
        episodes: Episodes to run without being asked; 0 waits for service calls.
        episodes_per_task: Length of a task's turn.
        seed: Seed of the first reset; each episode adds one.
        reset: How scenes are reset, a value of `core.reset_plan.ResetMode`.
        variant: Named difficulty of the simulated cell.
        policy: Name of the policy back end; empty takes pi0 with the shipped weights in
            simulation and one that stands still elsewhere.
        checkpoint: Weights of the policy, empty for those it brings along.
        eyes: What makes the image features for a residual in place of the policy, see
            `PolicySettings`; empty for the policy.
        mode: How its chunks are executed; empty for the default of the node.
        residual: Weights of a residual to begin with; empty for none.
        classifiers: Directories of success classifiers, one per task, which then decide outcomes;
            none leaves that to the simulator or the operator.
        learner: Directory of the learner's run; None for no learner in this graph.
        preset: Settings of the learner by name; empty for the default of the node.
        learner_settings: Changes of them, as the learner's parameter `settings` takes them.
        operator: What the operator has in his hand, a value of
            `ros.intervention_config.HandDevice`; empty for the default of the node.
        operator_mode: What he is there for, a value of `OperatorMode` there; empty likewise.
        image_px: Width and height of simulated and fake images.
        rate: ``real`` or ``free``, pacing of the simulated arm.
        record: Whether episodes are recorded.
        window: Whether a window shows the simulated cell.
        out: Where bags and logs go.
        exclude: Processes to leave out, by name.
        site: YAML file of node parameters that wins over the defaults.
        overrides: Node parameters that win over everything, by node.
        remappings: Topic remappings (from, to), by process.
    """

    backend: Backend = Backend.SIM
    robot_ip: str = SIM_ADDRESS
    tasks: tuple[str, ...] = ("lift",)
    episodes: int = 0
    episodes_per_task: int = 1
    seed: int = 0
    reset: str = ResetMode.SCRIPTED.value
    variant: str = "default"
    policy: str = ""
    checkpoint: str = ""
    eyes: str = ""
    mode: str = ""
    residual: str = ""
    classifiers: tuple[str, ...] = ()
    learner: Path | None = None
    preset: str = ""
    learner_settings: str = ""
    operator: str = ""
    operator_mode: str = ""
    image_px: int = 128
    rate: str = "real"
    record: bool = True
    window: bool = False
    out: Path = Path("out")
    exclude: frozenset[str] = frozenset()
    site: Path | None = None
    overrides: Parameters = field(default_factory=dict)
    remappings: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no graph can be built from.

        Raises:
            ConfigError: Names the option.
        """
        unknown = [task for task in self.tasks if task not in known_tasks()]
        if unknown or not self.tasks:
            raise ConfigError(
                f"unknown task {', '.join(unknown) or '(none given)'}; "
                f"known: {', '.join(known_tasks())}"
            )
        if self.backend is Backend.SIM:
            # Refuses sizes that the renderer has not.
            replace(variant(self.variant), image_px=self.image_px)
            if self.robot_ip and not is_loopback(self.robot_ip):
                raise ConfigError(
                    f"the simulated arm lives on a loopback address, not on {self.robot_ip}"
                )
        if self.policy and self.policy not in POLICY_MODULES:
            known = ", ".join(sorted(POLICY_MODULES))
            raise ConfigError(f"policy='{self.policy}' is unknown; known: {known}")
        if self.learner is None and (self.preset or self.learner_settings):
            raise ConfigError("settings of a learner without a learner: add --learner")
        _require_known("operator", self.operator, OPERATOR_DEVICES)
        _require_known("operator_mode", self.operator_mode, OPERATOR_MODES)
        if self.rate not in ("real", "free"):
            raise ConfigError(f"rate='{self.rate}' is neither 'real' nor 'free'")
        _require_known("reset", self.reset, tuple(mode.value for mode in ResetMode))
        if not self.robot_ip:
            raise ConfigError("robot_ip is empty: give the address of the control box")


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value and value not in known:
        raise ConfigError(f"{name}='{value}' is unknown; known: {', '.join(known)}")


def read_site(path: Path) -> dict[str, dict[str, ParamValue]]:
    """Parameters by node of a ROS parameter file (``node: {ros__parameters: {...}}``).

    Raises:
        ConfigError: Unreadable, or a node without ``ros__parameters``.
    """
    site: dict[str, dict[str, ParamValue]] = {}
    for node, content in read_mapping(path).items():
        if not isinstance(content, dict) or set(content) != {"ros__parameters"}:
            raise ConfigError(f"{path}: '{node}' must hold exactly 'ros__parameters'")
        site[node] = dict(content["ros__parameters"])
    return site
