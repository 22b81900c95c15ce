# SPDX-License-Identifier: Apache-2.0
"""Parameters of the impedance controller."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.impedance import PRESETS, ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.hardware.control_types import ControlLoopConfig, HomeRequest

ZERO = (0.0, 0.0, 0.0)
FROM_PRESET = "0 takes the preset's."


@dataclass(frozen=True, kw_only=True)
class ImpedanceControllerConfig:
    """Spring, limits, timing and home of the arm. Live fields act from the next target on."""

    preset: str = param(
        "compliant", doc="Named spring settings.", live=True, choices=tuple(PRESETS)
    )
    stiffness_n_per_m: float = param(
        0.0, doc=f"Stiffness. {FROM_PRESET}", unit="N/m", low=0.0, high=6000.0, live=True
    )
    damping_ns_per_m: float = param(
        0.0, doc=f"Damping. {FROM_PRESET}", unit="Ns/m", low=0.0, high=400.0, live=True
    )
    stiffness_nm_per_rad: float = param(
        0.0, doc=f"Stiffness. {FROM_PRESET}", unit="Nm/rad", low=0.0, high=300.0, live=True
    )
    damping_nms_per_rad: float = param(
        0.0, doc=f"Damping. {FROM_PRESET}", unit="Nms/rad", low=0.0, high=40.0, live=True
    )
    clip_plus_m: tuple[float, ...] = param(
        ZERO,
        doc=f"Error clip, bounds the force towards +x, +y, +z. {FROM_PRESET}",
        unit="m",
        low=0.0,
        high=0.5,
        live=True,
    )
    clip_minus_m: tuple[float, ...] = param(
        ZERO,
        doc=f"Error clip, bounds the force towards -x, -y, -z. {FROM_PRESET}",
        unit="m",
        low=0.0,
        high=0.5,
        live=True,
    )
    clip_rad: tuple[float, ...] = param(
        ZERO,
        doc=f"Error clip, bounds the torque per axis. {FROM_PRESET}",
        unit="rad",
        low=0.0,
        high=0.5,
        live=True,
    )
    max_force_n: float = param(
        60.0,
        doc="Largest stiffness times clip along an axis that is accepted.",
        unit="N",
        low=1.0,
        high=3000.0,
    )
    max_torque_nm: float = param(
        20.0,
        doc="Largest rotational stiffness times clip about an axis that is accepted.",
        unit="Nm",
        low=0.5,
        high=300.0,
    )
    limits: ReferenceLimits = param(  # noqa: RUF009 - param() makes a field
        ReferenceLimits(), doc="Limits of targets."
    )
    loop: ControlLoopConfig = param(  # noqa: RUF009 - param() makes a field
        ControlLoopConfig(), doc="Timing of the reference stream."
    )
    home_joint_rad: tuple[float, ...] = param(
        (0.0, -0.04175871, 0.0, -2.33427222, 0.0, 2.29251351, 0.78539816),
        doc="Joint configuration of home: TCP at (0.5, 0, 0.25) m, pointing down.",
        unit="rad",
        low=-3.2,
        high=4.6,
        live=True,
    )
    home_offset_m: tuple[float, ...] = param(
        ZERO,
        doc="Straight motion of the TCP after the joints are home; every reset sets it.",
        unit="m",
        low=-0.5,
        high=0.5,
        live=True,
    )
    home_gripper_width_m: float = param(
        0.08,
        doc="Gripper at home; 0 closes it; every reset sets it to that of the task.",
        unit="m",
        low=0.0,
        high=0.08,
        live=True,
    )
    home_clearance_m: float = param(
        0.2,
        doc="TCP height from which the joints may move home; below it the arm rises first.",
        unit="m",
        low=0.0,
        high=0.6,
        live=True,
    )
    home_joint_speed: float = param(
        0.3, doc="Fraction of the joint dynamics.", low=0.01, high=1.0, live=True
    )
    home_tcp_speed: float = param(
        0.15, doc="Fraction of the Cartesian dynamics.", low=0.01, high=1.0, live=True
    )
    max_target_age_s: float = param(
        0.1, doc="A target with an older stamp is dropped.", unit="s", low=0.01, high=1.0
    )
    max_target_ahead_s: float = param(
        0.05, doc="A target stamped farther ahead is dropped.", unit="s", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        """Check bounds, lengths and that the spring can exist."""
        check_bounds(self)
        lengths = {
            "clip_plus_m": 3,
            "clip_minus_m": 3,
            "clip_rad": 3,
            "home_offset_m": 3,
            "home_joint_rad": 7,
        }
        for name, length in lengths.items():
            if len(getattr(self, name)) != length:
                raise ConfigError(f"{name}={getattr(self, name)} needs {length} values")
        spring = self.settings()
        if spring.force_bound_n > self.max_force_n:
            clip_m = max(spring.outer_clip_m)
            raise ConfigError(
                f"a stiffness of {spring.stiffness_n_per_m:g} N/m times a clip of {clip_m:g} m is "
                f"{spring.force_bound_n:g} N, more than max_force_n={self.max_force_n:g}"
            )
        if spring.torque_bound_nm > self.max_torque_nm:
            raise ConfigError(
                f"a stiffness of {spring.stiffness_nm_per_rad:g} Nm/rad times a clip of "
                f"{max(spring.clip_rad):g} rad is {spring.torque_bound_nm:g} Nm, more than "
                f"max_torque_nm={self.max_torque_nm:g}"
            )

    def settings(self) -> ImpedanceSettings:
        """The preset with every non-zero parameter in place of its own."""
        preset = PRESETS[self.preset]
        changes: dict[str, float | tuple[float, ...]] = {}
        for name in (
            "stiffness_n_per_m",
            "damping_ns_per_m",
            "stiffness_nm_per_rad",
            "damping_nms_per_rad",
        ):
            changes[name] = getattr(self, name) or getattr(preset, name)
        for name in ("clip_plus_m", "clip_minus_m", "clip_rad"):
            pairs = zip(getattr(self, name), getattr(preset, name), strict=True)
            changes[name] = tuple(own or default for own, default in pairs)
        return dataclasses.replace(preset, **changes)  # type: ignore[arg-type]

    def home(self) -> HomeRequest:
        """Where `home` goes now."""
        return HomeRequest(
            q_rad=self.home_joint_rad,
            offset_m=self.home_offset_m,
            clearance_m=self.home_clearance_m,
            joint_speed=self.home_joint_speed,
            tcp_speed=self.home_tcp_speed,
            gripper_width_m=self.home_gripper_width_m,
        )
