# SPDX-License-Identifier: Apache-2.0
"""The force that the spring can reach is bounded by a parameter that no live change moves."""

from __future__ import annotations

import dataclasses

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.controller_config import ImpedanceControllerConfig


def test_a_spring_stronger_than_the_force_bound_is_refused() -> None:
    config = ImpedanceControllerConfig(max_force_n=60.0)
    with pytest.raises(ConfigError, match=r"2000 N/m times a clip of 0.5 m is 1000 N.*=60"):
        dataclasses.replace(config, clip_plus_m=(0.5, 0.0, 0.0))
    with pytest.raises(ConfigError, match="max_force_n"):
        dataclasses.replace(config, stiffness_n_per_m=6000.0, clip_minus_m=(0.0, 0.02, 0.0))
    free = dataclasses.replace(config, max_force_n=3000.0)
    assert dataclasses.replace(free, clip_plus_m=(0.5, 0.5, 0.5)).settings().force_bound_n == 1000


def test_a_twist_stronger_than_the_torque_bound_is_refused() -> None:
    config = ImpedanceControllerConfig(max_torque_nm=10.0)
    with pytest.raises(ConfigError, match=r"200 Nm/rad times a clip of 0.1 rad is 20 Nm.*=10"):
        dataclasses.replace(config, stiffness_nm_per_rad=200.0)


def test_the_bounds_of_the_spring_are_not_live() -> None:
    fields = {field.name: field for field in dataclasses.fields(ImpedanceControllerConfig)}
    for name in ("max_force_n", "max_torque_nm"):
        assert not fields[name].metadata["param"].is_live
