# SPDX-License-Identifier: Apache-2.0
"""What may differ between simulated cells: fit of the peg, friction, cameras, light, spread.

Owns `SceneConfig` and the table of named variants. Everything here is fixed when the model is
compiled, so one process has one variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError

_ZERO3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Difficulty and looks of the simulated cell; the defaults are the easy, nominal cell."""

    peg_clearance_m: float = param(
        0.001, doc="Gap between peg and hole on each side.", unit="m", low=0.0005, high=0.002
    )
    peg_is_welded: bool = param(
        True, doc="Whether the peg is a tool fixed to the hand; otherwise friction holds it."
    )
    joint_friction_scale: float = param(
        0.2, doc="Factor on the dry friction of the arm's joints.", low=0.2, high=1.0
    )
    object_spread_m: tuple[float, ...] = param(
        (0.1, 0.14),
        doc="Objects are placed up to this far from the middle of the table, along x and y.",
        unit="m",
        low=0.09,
        high=0.2,
    )
    start_spread_m: float = param(
        0.05, doc="Largest offset of the starting TCP per axis.", unit="m", low=0.0, high=0.1
    )
    front_camera_shift_m: tuple[float, ...] = param(
        _ZERO3, doc="Offset of the front camera, base axes.", unit="m", low=-0.3, high=0.3
    )
    front_camera_turn_rad: tuple[float, ...] = param(
        _ZERO3, doc="Extra rotation vector, camera axes.", unit="rad", low=-0.5, high=0.5
    )
    wrist_camera_shift_m: tuple[float, ...] = param(
        _ZERO3, doc="Offset of the wrist camera, hand axes.", unit="m", low=-0.05, high=0.05
    )
    wrist_camera_turn_rad: tuple[float, ...] = param(
        _ZERO3, doc="Extra rotation vector, camera axes.", unit="rad", low=-0.5, high=0.5
    )
    light_scale: float = param(1.0, doc="Factor on every light.", low=0.1, high=2.0)
    image_px: int = param(
        128, doc="Width and height of camera images.", unit="px", low=32, high=640
    )
    multisamples: int = param(
        0, doc="Anti-aliasing samples per pixel; 4 doubles the cost of an image.", low=0, high=8
    )

    def __post_init__(self) -> None:
        """Check bounds and lengths."""
        check_bounds(self)
        for name, length in (
            ("object_spread_m", 2),
            ("front_camera_shift_m", 3),
            ("front_camera_turn_rad", 3),
            ("wrist_camera_shift_m", 3),
            ("wrist_camera_turn_rad", 3),
        ):
            if len(getattr(self, name)) != length:
                raise ConfigError(f"SceneConfig.{name} needs {length} values")


VARIANTS: dict[str, SceneConfig] = {
    "default": SceneConfig(),
    "peg_tight": SceneConfig(peg_clearance_m=0.0005),
    "peg_loose": SceneConfig(peg_clearance_m=0.002),
    "peg_friction": SceneConfig(peg_is_welded=False),
    "peg_friction_tight": SceneConfig(peg_is_welded=False, peg_clearance_m=0.0005),
    "peg_hard": SceneConfig(peg_is_welded=False, peg_clearance_m=0.0005, joint_friction_scale=1.0),
    "friction_full": SceneConfig(joint_friction_scale=1.0),
    "camera_shifted": SceneConfig(
        front_camera_shift_m=(0.03, 0.08, -0.04),
        front_camera_turn_rad=(0.04, 0.08, 0.03),
        wrist_camera_shift_m=(0.005, 0.008, -0.004),
        wrist_camera_turn_rad=(0.05, -0.04, 0.05),
    ),
    "dim_light": SceneConfig(light_scale=0.45),
    "bright_light": SceneConfig(light_scale=1.5),
}


def variant(name: str) -> SceneConfig:
    """Return a named variant.

    Raises:
        ConfigError: Lists the known names.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        known = ", ".join(sorted(VARIANTS))
        raise ConfigError(f"unknown scene variant '{name}', known are: {known}") from None
