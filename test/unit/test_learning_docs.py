# SPDX-License-Identifier: Apache-2.0
"""The pages on algorithms name every metric, setting and preset there is."""

from __future__ import annotations

import dataclasses
import re

import pytest

from vla_rl_ros.learning import gradient_steps
from vla_rl_ros.learning.action_choice import ChoiceConfig
from vla_rl_ros.learning.presets import PRESETS, LearnerConfig
from vla_rl_ros.learning.schedule import ScheduleConfig
from vla_rl_ros.ros.share import share_path

FOLDER = share_path() / "docs" / "explanation" / "algorithms"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md")}
EVERYTHING = "\n".join(PAGES.values())
METRICS = (
    *gradient_steps.CRITIC_METRICS,
    *gradient_steps.CONSERVATIVE_METRICS,
    *gradient_steps.ACTOR_METRICS,
    *gradient_steps.GRASP_METRICS,
)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_its_formula(metric: str) -> None:
    assert f"| `{metric}` |" in PAGES["README.md"]


@pytest.mark.parametrize("config", [LearnerConfig, ScheduleConfig, ChoiceConfig])
def test_every_setting_is_explained(config: type) -> None:
    words = set(re.findall(r"\w+", EVERYTHING))
    missing = [field.name for field in dataclasses.fields(config) if field.name not in words]
    assert not missing


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_a_page(name: str) -> None:
    assert re.search(rf"\| `{name}` \| \[[^\]]+\]\([\w-]+\.md\)", PAGES["README.md"])
