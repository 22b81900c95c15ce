# SPDX-License-Identifier: Apache-2.0
"""A distillation that is interrupted goes on, with what it was begun with and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.base_demos import demo_set, episode

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import base_shards, distillation
from vla_rl_ros.learning.base_trainer import TrainerSettings
from vla_rl_ros.learning.distillation import MixSettings, distil
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.pi0.backend import SHIPPED

SETTINGS = TrainerSettings(
    steps=4, batch=2, draws=1, where_weight=0.0, learning_rate=1e-4, warm_up_steps=1
)
MIX = MixSettings(demo_shards=1)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    base_shards.write(tmp_path, seed=0, shard=0, demos=demo_set(2))
    return rollouts(tmp_path / "probe", seed=1)


def rollouts(directory: Path, seed: int) -> Path:
    directory.mkdir()
    base_shards.write(directory, seed=0, shard=0, demos=episode(30, seed=seed))
    told = {"described": {"seed": 0, "version": 2}, "progress": {"shards": 1}}
    (directory / "probing.json").write_text(json.dumps(told), encoding="utf-8")
    return directory


def run(probe: Path, name: str = "out", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"parent": SHIPPED, "mix": MIX, "settings": SETTINGS, **changes}
    return distil(
        probe.parent / name, values["parent"], [probe], probe.parent, values["mix"],
        values["settings"], command="test",
        minutes=values.get("minutes"), tell=values.get("tell", lambda *_: None),
    )  # fmt: skip


def weights(probe: Path, name: str) -> bytes:
    return (probe.parent / name / "checkpoint" / "model.safetensors").read_bytes()


def dies_at(step: int) -> Callable[[int, float], None]:
    def tell(done: int, _loss: float) -> None:
        if done == step:
            raise KeyboardInterrupt

    return tell


def test_a_run_that_was_stopped_ends_where_one_run_would_have(probe: Path) -> None:
    first = run(probe, minutes=0.0)
    assert (first["steps"], first["is_finished"]) == (1, False)
    assert read_manifest(probe.parent / "out" / "checkpoint").training["is_finished"] is False
    second = run(probe)
    assert (second["steps"], second["is_finished"]) == (4, True)
    assert read_manifest(probe.parent / "out" / "checkpoint").training["is_finished"] is True
    run(probe, "other")
    assert weights(probe, "out") == weights(probe, "other")


@pytest.mark.parametrize("save_period_s", [0.0, 60.0])
def test_a_run_that_was_killed_in_the_middle_is_not_taken_for_finished(
    probe: Path, monkeypatch: pytest.MonkeyPatch, save_period_s: float
) -> None:
    monkeypatch.setattr(distillation, "_SAVE_PERIOD_S", save_period_s)
    with pytest.raises(KeyboardInterrupt):
        run(probe, tell=dies_at(3))
    done: list[int] = []
    again = run(probe, tell=lambda step, _: done.append(step))
    # What was saved last counts; without a save it begins anew.
    assert done == ([3, 4] if save_period_s == 0.0 else [1, 2, 3, 4])
    assert again["is_finished"]
    run(probe, "other")
    assert weights(probe, "out") == weights(probe, "other")


def test_a_kill_between_the_last_save_and_the_checkpoint_is_made_good(
    probe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(probe, minutes=0.0)
    early = weights(probe, "out")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distillation, "write_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            run(probe)
    assert weights(probe, "out") == early
    assert run(probe)["is_finished"]
    run(probe, "other")
    assert weights(probe, "out") == weights(probe, "other")


@pytest.mark.parametrize(
    ("what", "named", "is_finished"),
    [
        ("rollouts", "rollouts=", True),
        ("parent", "parent=", False),
        ("mix", "probe_part=0.5", True),
        ("demos", "demonstrations=", False),
        ("steps", "steps=4", True),
    ],
)
def test_a_run_with_something_else_neither_goes_on_nor_counts_as_done(
    probe: Path, what: str, named: str, is_finished: bool
) -> None:
    run(probe, minutes=None if is_finished else 0.0)
    changes: dict[str, Any] = {}
    if what == "rollouts":
        base_shards.write(probe, seed=0, shard=0, demos=episode(30, seed=2))
    elif what == "parent":
        run(probe, "child", minutes=0.0)
        changes["parent"] = probe.parent / "child" / "checkpoint"
    elif what == "mix":
        changes["mix"] = MixSettings(demo_shards=1, probe_part=0.75)
    elif what == "demos":
        base_shards.write(probe.parent, seed=0, shard=0, demos=demo_set(3))
    else:
        changes["settings"] = TrainerSettings(
            steps=5, batch=2, draws=1, where_weight=0.0, learning_rate=1e-4, warm_up_steps=1
        )
    with pytest.raises(ConfigError, match=named):
        run(probe, **changes)


def test_a_damaged_file_is_named(probe: Path) -> None:
    run(probe, minutes=0.0)
    (probe.parent / "out" / "trainer.pt").write_bytes(b"half")
    with pytest.raises(ConfigError, match="delete it"):
        run(probe)
