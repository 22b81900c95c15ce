# SPDX-License-Identifier: Apache-2.0
"""`--task` of `train residual`, `eval residual` and `probe`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from unit.eyes_samples import write_eyes_without_weights

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.gym_door import DoorSettings
from vla_rl_ros.learning.vla_env import BASE_ID, ENV_ID
from vla_rl_ros.tools.residual_options import add_door_options, door_settings


def _settings(*words: str) -> DoorSettings:
    parser = argparse.ArgumentParser()
    add_door_options(parser)
    parser.set_defaults(seed=4)
    return door_settings(parser.parse_args(words))


def test_a_task_names_environment_and_base(tmp_path: Path) -> None:
    settings = _settings("--task", "peg", "--variant", "peg_hard", "--base-checkpoint",
                         str(tmp_path), "--execute-ticks", "4")  # fmt: skip
    assert (settings.env_id, settings.base, settings.seed) == (ENV_ID, BASE_ID, 4)
    assert json.loads(settings.env_arguments) == {
        "task": "peg",
        "variant_name": "peg_hard",
        "policy": "pi0",
        "checkpoint": str(tmp_path),
        "execute_ticks": 4,
    }


@pytest.mark.parametrize(
    ("named", "meant"), [("shipped", "shipped"), ("towers/a", "{here}/towers/a")]
)
def test_eyes_mean_the_same_in_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "towers/a").mkdir(parents=True)
    (tmp_path / "towers/a/policy.json").touch()
    settings = _settings("--task", "peg", "--eyes", named)
    assert json.loads(settings.env_arguments)["eyes"] == meant.format(here=tmp_path)


def test_eyes_that_are_none_are_refused_by_the_name_of_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--eyes='.*nothing' is no directory"):
        _settings("--task", "peg", "--eyes", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a task"),
        (("--gym", "CartPole-v1"), "name a task"),
        (("--task", "lift", "--gym", "CartPole-v1"), "leave --gym"),
    ],
)
def test_an_environment_is_named_in_one_way(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _settings(*words)


def test_eyes_of_another_task_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_eyes_without_weights(tmp_path)
    _settings("--task", "peg", "--eyes", str(tmp_path))
    assert not capsys.readouterr().err
    _settings("--task", "lift", "--eyes", str(tmp_path))
    assert "learned 'peg', not 'lift'" in capsys.readouterr().err
