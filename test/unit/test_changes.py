# SPDX-License-Identifier: Apache-2.0
"""Settings changed by text."""

from __future__ import annotations

import pytest

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.presets import LearnerConfig


def test_values_take_the_type_of_their_field() -> None:
    found = changed(
        LearnerConfig(),
        "learner",
        ["learner.hidden=32,16", "learner.xi_parts=0,0.5,1", "learner.grasp=true", "run.steps=3"],
    )
    assert found.hidden == (32, 16)
    assert found.xi_parts == (0.0, 0.5, 1.0)
    assert [type(part) for part in (*found.hidden, *found.xi_parts)] == [int] * 2 + [float] * 3
    assert found.grasp is True


@pytest.mark.parametrize(
    "change", ["learner.hidden=1.5", "learner.xi_parts=a", "learner.xi_parts=2", "learner.no=1"]
)
def test_values_of_another_type_or_range_are_refused(change: str) -> None:
    with pytest.raises(ConfigError):
        changed(LearnerConfig(), "learner", [change])


@pytest.mark.parametrize("change", ["learner.xi", "nobody.xi=1", "xi=1"])
def test_changes_of_another_form_or_of_nobody_are_refused(change: str) -> None:
    with pytest.raises(ConfigError, match="not of the form"):
        check_changes([change], ("learner", "run"))
