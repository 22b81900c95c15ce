# SPDX-License-Identifier: Apache-2.0
"""All settings of the residual learner, and the published methods as values of them.

`LearnerConfig()` is our own recipe, preset `pld`; `preset(name)` gives the others. The learner
reads what concerns gradient steps, the training loop what concerns phases and data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How the residual learns: networks, losses, and the phases of a run."""

    # Policy.
    algorithm: str = param("td3", doc="Form of the actor.", choices=("td3", "sac"))
    xi: float = param(
        0.15, doc="Largest residual per channel, normalised.", low=0.0, high=2.0, live=True
    )
    xi_parts: tuple[float, ...] = param(
        (),
        doc="Bound of each channel in parts of xi, the gripper's included; empty for all of it.",
        low=0.0, high=1.0,
    )  # fmt: skip
    from_scratch: bool = param(
        False, doc="Ignore the base and learn the whole action; xi should then be 1."
    )
    exploration_std: float = param(
        0.05, doc="Noise of the acting TD3 policy, normalised action.", low=0.0, high=1.0
    )
    target_std: float = param(
        0.05, doc="Noise of the next action in the TD3 target.", low=0.0, high=1.0
    )
    noise_clip: float = param(0.3, doc="Largest value of both noises.", low=0.0, high=1.0)
    initial_log_std: float = param(
        -1.0, doc="Log standard deviation of the untrained SAC policy.", low=-20.0, high=2.0
    )

    # Networks.
    hidden: tuple[int, ...] = param(
        (128, 128), doc="Widths of the layers of actor and critics.", low=1, high=4096
    )
    num_critics: int = param(2, doc="Size of the ensemble, E.", low=1, high=64)
    num_target_critics: int = param(
        2, doc="Random critics whose minimum is the target, Z.", low=1, high=64
    )
    actor_q: str = param(
        "mean", doc="What the actor climbs: mean or minimum of the critics.",
        choices=("mean", "min"),
    )  # fmt: skip
    normalise_obs: bool = param(
        True, doc="Scale observations by the first data (`fit_normaliser`)."
    )

    # Values.
    gamma: float = param(0.99, doc="Discount per tick.", low=0.0, high=1.0)
    n_step: int = param(5, doc="Ticks of reward before the bootstrap.", low=1, high=100)
    takeover_ends: bool = param(
        True, doc="A policy that a human has to help earns nothing of what he does then."
    )
    timeout_ends: bool = param(
        False,
        doc="An episode that was cut off, by its time, an operator or a fault, has failed: "
        "nothing is earned after it, and a time penalty goes on.",
    )
    tau: float = param(0.01, doc="Part of the critic that enters the target.", low=0.0, high=1.0)
    clip_target: bool = param(
        False, doc="Keep TD targets, but the grasp critic's, within what the reward can pay."
    )
    backup_entropy: bool = param(False, doc="Subtract the entropy term in the SAC target.")

    # Steps.
    critic_lr: float = param(3e-4, doc="Adam step of the critics.", low=0.0, high=1.0)
    actor_lr: float = param(3e-5, doc="Adam step of the actor.", low=0.0, high=1.0)
    temperature_lr: float = param(3e-4, doc="Adam step of log alpha.", low=0.0, high=1.0)
    initial_temperature: float = param(1.0, doc="alpha at the start.", low=1e-8, high=100.0)
    entropy_per_dim: float = param(
        -0.5, doc="Target entropy per action dimension.", low=-10.0, high=10.0
    )
    actor_every: int = param(2, doc="Critic updates per actor update.", low=1, high=1000)
    acting_tau: float = param(
        1.0,
        doc="Part of the actor that enters the acting weights at each of its steps; 1 acts with "
        "the actor itself, less with its slow average.",
        low=1e-5, high=1.0,
    )  # fmt: skip
    max_grad_norm: float = param(
        0.0, doc="Largest norm of a gradient, 0 for no limit.", low=0.0, high=1e6
    )
    bc_weight: float = param(
        0.0, doc="Weight of the squared distance to demonstrated actions.", low=0.0, high=1e6
    )
    residual_weight: float = param(
        0.002, doc="Weight of the squared residual, normalised by xi.", low=0.0, high=1e6
    )

    # Conservative critic.
    conservative: str = param(
        "never", doc="When the Cal-QL term is on.", choices=("never", "offline", "always")
    )
    conservative_weight: float = param(1.0, doc="alpha of Cal-QL.", low=0.0, high=1e3)
    is_calibrated: bool = param(
        True, doc="Bound the pushed-down values by the Monte-Carlo return; False is CQL."
    )
    calibrate_uniform: bool = param(
        True, doc="Bound the uniform candidates, too; the paper bounds those of the policy only."
    )
    num_candidates: int = param(10, doc="Candidate actions per group.", low=1, high=100)
    offline_target: str = param(
        "base", doc="Next action of the offline target: the base's or the policy's best.",
        choices=("base", "policy_max"),
    )  # fmt: skip

    # Grasp critic.
    grasp: bool = param(
        False, doc="Choose the last action channel by a discrete critic: close, keep, open."
    )
    grasp_penalty: float = param(
        -0.02, doc="Reward of the grasp critic at each toggle.", low=-10.0, high=0.0
    )
    grasp_margin: float = param(
        0.0, doc="Value by which a choice must beat the base's gripper.", low=0.0, high=10.0
    )
    grasp_exploration: float = param(
        0.0, doc="Probability of a random choice while exploring.", low=0.0, high=1.0
    )

    # Phases and data; read by the training loop.
    batch_size: int = param(128, doc="Rows per update.", low=2, high=65536)
    offline_part: float = param(
        0.5, doc="Part of each online batch from the offline buffer.", low=0.0, high=1.0
    )
    utd: int = param(2, doc="Updates per environment step.", low=1, high=100)
    base_episodes: int = param(
        20, doc="Episodes of the base before anything is learned; successes go offline.",
        low=0, high=10000,
    )  # fmt: skip
    offline_init: str = param(
        "none", doc="Values before going online: none, or offline updates by TD or Cal-QL.",
        choices=("none", "td", "calql"),
    )  # fmt: skip
    offline_updates: int = param(0, doc="Updates of that phase.", low=0, high=10_000_000)
    offline_actor: bool = param(False, doc="Whether the actor learns in that phase, too.")
    warm_up_steps: int = param(
        4000, doc="Steps into the online buffer before the critic-only updates.",
        low=0, high=1_000_000,
    )  # fmt: skip
    warm_up_noise: float = param(
        0.5,
        doc="Deviation, in parts of xi, of the noise around the base in warm-up; 0 plays the "
        "policy as it is.",
        low=0.0, high=10.0,
    )  # fmt: skip
    warm_up_ticks: float = param(
        10.0, doc="Ticks over which that noise is correlated.", low=1.0, high=1000.0
    )
    critic_only_updates: int = param(
        5000, doc="Updates of the critics alone before the actor moves.", low=0, high=1_000_000
    )
    probe_part: float = param(
        0.0, doc="Largest part of an episode the base plays first; not stored.",
        low=0.0, high=1.0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check bounds and what no single field can."""
        check_bounds(self)
        if self.num_target_critics > self.num_critics:
            raise ConfigError(
                f"LearnerConfig.num_target_critics={self.num_target_critics} exceeds "
                f"num_critics={self.num_critics}: lower it"
            )
        if not self.hidden:
            raise ConfigError("LearnerConfig.hidden=() needs at least one layer")
        if self.grasp and self.xi_parts and self.xi_parts[-1] != 1.0:
            raise ConfigError(
                f"LearnerConfig.xi_parts ends with {self.xi_parts[-1]:g}, but with grasp a critic "
                "chooses the gripper, which xi does not bound: let it end with 1, or set "
                "grasp=false"
            )
        if self.clip_target and self.backup_entropy:
            raise ConfigError(
                "LearnerConfig.clip_target bounds what the reward can pay, and backup_entropy "
                "adds to that: set one of them to false"
            )
        if (self.offline_init == "none") != (self.offline_updates == 0):
            raise ConfigError(
                f"LearnerConfig.offline_init='{self.offline_init}' with "
                f"offline_updates={self.offline_updates}: set both or none"
            )


_DEFAULT = LearnerConfig()
_SAC = dataclasses.replace(
    _DEFAULT,
    algorithm="sac", actor_lr=3e-4, tau=0.005, n_step=1, critic_only_updates=0, hidden=(256, 256),
    batch_size=256, utd=1, base_episodes=40, warm_up_steps=0, warm_up_noise=0.0,
    residual_weight=0.0,
)  # fmt: skip
PRESETS: dict[str, LearnerConfig] = {
    "pld": _DEFAULT,
    "pld_paper": dataclasses.replace(
        _SAC,
        xi=0.5, actor_q="min", actor_every=2, entropy_per_dim=-1.0, max_grad_norm=1.0,
        hidden=(256, 256, 256), base_episodes=100, conservative="offline", offline_init="calql",
        offline_updates=5000, probe_part=0.6,
    ),
    "rlpd": dataclasses.replace(
        _SAC,
        num_critics=10, num_target_critics=2, hidden=(256, 256, 256), utd=20, actor_every=20,
    ),
    "wsrl": dataclasses.replace(
        _SAC,
        num_critics=10, num_target_critics=2, actor_lr=1e-4, temperature_lr=1e-4, utd=4,
        actor_every=4, offline_part=0.0, warm_up_steps=5000, conservative="offline",
        offline_init="calql", offline_updates=20000, offline_actor=True,
        offline_target="policy_max", calibrate_uniform=False,
    ),
    "hil_serl": dataclasses.replace(
        _SAC,
        gamma=0.97, initial_temperature=1e-2, actor_q="mean", actor_every=2, utd=2, grasp=True,
        base_episodes=20, takeover_ends=False, timeout_ends=True,
    ),
    "calql": dataclasses.replace(
        _SAC,
        actor_lr=1e-4, conservative="always", conservative_weight=5.0, offline_init="calql",
        offline_updates=20000, offline_actor=True, offline_target="policy_max", actor_q="min",
        actor_every=1, calibrate_uniform=False,
    ),
}  # fmt: skip
"""Settings by name; each method's page in the documentation says where they come from."""


def preset(name: str) -> LearnerConfig:
    """Return the settings of a method.

    Raises:
        ConfigError: Unknown name; lists the known ones.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset='{name}' is unknown; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
