# SPDX-License-Identifier: Apache-2.0
"""Parameters of a camera node, and the source of images they ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.hardware.camera_health import HealthSettings
from vla_rl_ros.hardware.fake_camera import FakeCamera
from vla_rl_ros.hardware.image_fit import CropBox
from vla_rl_ros.hardware.protocols import Camera
from vla_rl_ros.hardware.realsense import RealSenseCamera
from vla_rl_ros.hardware.realsense_devices import RealSenseSettings
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE

_WHOLE_IMAGE = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Which camera, and the images that leave the node."""

    camera: str = param("", doc="Name in topics and frames; empty takes it from the node's name.")
    driver: str = param(
        "realsense", doc="Where images come from.", choices=("realsense", "sim", "fake")
    )
    serial: str = param("", doc="RealSense serial number; empty takes the only one connected.")
    file: str = param("", doc="RealSense recording (.db3, .bag) to play instead of a device.")
    loop: bool = param(False, doc="Whether a recording starts again at its end.")
    width_px: int = param(128, doc="Width of the published image.", unit="px", low=16, high=4096)
    height_px: int = param(128, doc="Height of the published image.", unit="px", low=16, high=4096)
    rate_hz: int = param(30, doc="Frames per second.", unit="Hz", low=1, high=300)
    depth: bool = param(False, doc="Whether depth, aligned to colour, is published.")
    sensor_width_px: int = param(
        640, doc="Width of the RealSense's colour stream.", unit="px", low=16, high=4096
    )
    sensor_height_px: int = param(
        480, doc="Height of the RealSense's colour stream.", unit="px", low=16, high=4096
    )
    crop_px: tuple[int, ...] = param(
        _WHOLE_IMAGE,
        doc="x, y, width, height of the part of the sensor's image to publish; "
        "zeros take the largest centred part of the published aspect ratio.",
        unit="px",
        low=0,
        high=4096,
    )
    stall_after_s: float = param(
        0.5, doc="Silence after which the camera counts as stalled.", unit="s", low=0.05, high=60.0
    )
    restart_after_s: float = param(
        2.0,
        doc="Silence after which the camera is restarted; 0 for never.",
        unit="s",
        low=0.0,
        high=600.0,
    )

    def __post_init__(self) -> None:
        """Check what no single field can."""
        check_bounds(self)
        if len(self.crop_px) != len(_WHOLE_IMAGE):
            raise ConfigError(f"crop_px={self.crop_px} must be x, y, width, height")

    def crop_box(self) -> CropBox | None:
        """The crop, None for the centred one."""
        if tuple(self.crop_px) == _WHOLE_IMAGE:
            return None
        x, y, width, height = self.crop_px
        return CropBox(x=x, y=y, width=width, height=height)

    def health(self) -> HealthSettings:
        """When to worry. A recording that does not loop ends, and is not started again."""
        is_finite = bool(self.file) and not self.loop
        return HealthSettings(
            rate_hz=float(self.rate_hz),
            stall_after_s=self.stall_after_s,
            restart_after_s=0.0 if is_finite else self.restart_after_s,
        )


def make_camera(config: CameraConfig, name: str) -> Camera:
    """Make the source that the config asks for.

    Raises:
        ConfigError: The simulator's run directory is unknown.
    """
    if config.driver == "fake":
        return FakeCamera(
            width=config.width_px,
            height=config.height_px,
            rate_hz=config.rate_hz,
            has_depth=config.depth,
        )
    if config.driver == "sim":
        return _make_sim_camera(config, name)
    settings = RealSenseSettings(
        serial=config.serial,
        file=config.file,
        width=config.sensor_width_px,
        height=config.sensor_height_px,
        rate_hz=config.rate_hz,
        has_depth=config.depth,
        is_looping=config.loop,
    )
    return RealSenseCamera(settings)


def _make_sim_camera(config: CameraConfig, name: str) -> Camera:
    run_dir = os.environ.get(RUN_DIR_VARIABLE, "")
    if not run_dir:
        raise ConfigError(f"driver=sim needs {RUN_DIR_VARIABLE}, which the launcher sets")
    # Brings MuJoCo, which a cell with real cameras need not have.
    from vla_rl_ros.sim.camera import SimCamera

    return SimCamera(
        name,
        config.width_px,
        config.height_px,
        Path(run_dir),
        rate_hz=float(config.rate_hz),
        has_depth=config.depth,
    )
