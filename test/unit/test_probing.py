# SPDX-License-Identifier: Apache-2.0
"""Probing rollouts and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from unit.base_demos import demo_set

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.acting import Float32Array
from vla_rl_ros.learning.base_data import DemoSet
from vla_rl_ros.learning.base_labels import Sampler, measure_scales
from vla_rl_ros.learning.base_trainer import TrainerSettings
from vla_rl_ros.learning.distillation import MixedSampler, MixSettings, distil
from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.probing import Prober, ProbeSettings, num_shards
from vla_rl_ros.learning.vla_env import BASE_ID, ENV_ID, VlaEnv

SIDEWAYS = np.array([0.0, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)


def _sideways(_obs: Float32Array, _base: Float32Array) -> Float32Array:
    return SIDEWAYS


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    arguments = json.dumps({"task": "lift", "policy": "scripted"})
    made = Door(DoorSettings(env_id=ENV_ID, env_arguments=arguments, base=BASE_ID, seed=5))
    yield made
    made.close()


def _collect(door: Door, out: Path, successes: int, *, shard: int = 1) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    settings = ProbeSettings(successes=successes, shard_successes=shard, base_part=0.1)
    Prober(door, _sideways, out, settings, "me").run(lambda *now: told.append(now))
    return told


def _read(out: Path) -> DemoSet:
    seed, count = num_shards(out)
    return base_shards.load(out, seed=seed, shards=range(count))


def test_rollouts_hold_what_was_executed_and_end_in_success(door: Door, tmp_path: Path) -> None:
    _collect(door, tmp_path / "a", 1)
    demos = _read(tmp_path / "a")
    assert np.array_equal(demos.labels, demos.executed)
    assert demos.images.shape == (len(demos), 2, 64, 64, 3)
    # Where it has joined in, the residual is in the labels: 5 % of 2 cm.
    door.start(0, held_out=False)
    assert (np.abs(demos.labels[:, 1]) > 1e-4).any()
    assert not demos.is_pushed.any()


def test_only_what_follows_the_take_over_is_kept(door: Door, tmp_path: Path) -> None:
    Prober(door, _sideways, tmp_path, ProbeSettings(successes=1, base_part=0.3), "me").run(
        lambda *_: None
    )
    demos = _read(tmp_path)
    env = door.env.unwrapped
    assert isinstance(env, VlaEnv)
    moment, _ = door.start(0, held_out=False)
    base_ticks = 0
    while np.linalg.norm(env.sim.state()[:3] - demos.states[0, :3]) > 1e-6:
        assert base_ticks < 0.3 * env.max_ticks
        moment, _ = door.step(moment, moment.base)
        base_ticks += 1
    assert base_ticks > 0
    # The first label is the base's action and 5 % of 2 cm.
    assert demos.labels[0, 1] == pytest.approx(moment.raw_base[1] + 0.001, abs=1e-5)


def test_an_interrupted_collection_goes_on_as_if_it_had_not_been(
    door: Door, tmp_path: Path
) -> None:
    _collect(door, tmp_path / "whole", 2)
    _collect(door, tmp_path / "parts", 1)
    _collect(door, tmp_path / "parts", 2)
    whole, parts = _read(tmp_path / "whole"), _read(tmp_path / "parts")
    assert np.array_equal(whole.executed, parts.executed)
    assert np.array_equal(whole.images, parts.images)


def test_another_source_is_refused(door: Door, tmp_path: Path) -> None:
    _collect(door, tmp_path, 1)
    with pytest.raises(ConfigError, match="begun with"):
        Prober(door, _sideways, tmp_path, ProbeSettings(), "you")
    with pytest.raises(ConfigError, match="no probing rollouts"):
        num_shards(tmp_path / "nothing")


def test_rollouts_of_an_older_version_are_neither_continued_nor_distilled(
    door: Door, tmp_path: Path
) -> None:
    _collect(door, tmp_path, 1)
    path = tmp_path / "probing.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["described"]["version"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="begun with"):
        _collect(door, tmp_path, 2)
    with pytest.raises(ConfigError, match="version 1, not 2"):
        num_shards(tmp_path)


def test_a_mixed_batch_has_its_parts() -> None:
    demos = demo_set()
    scales = measure_scales(demos)
    sampler = Sampler(demos, scales, 16)
    mixed = MixedSampler(sampler, sampler, 0.25)
    batch = mixed.draw(16, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    first, second = sampler.draw(4, rng), sampler.draw(12, rng)
    assert np.array_equal(batch.actions[:4], first.actions)
    assert np.array_equal(batch.actions[4:], second.actions)


def test_distilling_begins_at_the_parent_and_continues(door: Door, tmp_path: Path) -> None:
    from vla_rl_ros.policies.pi0.backend import SHIPPED
    from vla_rl_ros.policies.pi0.nano_files import load_nano

    _collect(door, tmp_path / "probe", 1)
    mix = MixSettings(demo_shards=0)
    settings = TrainerSettings(
        steps=2, batch=2, draws=1, where_weight=0.0, learning_rate=1e-6, warm_up_steps=1
    )

    def run(minutes: float | None) -> dict[str, object]:
        return distil(
            tmp_path / "out", SHIPPED, [tmp_path / "probe"], tmp_path, mix, settings,
            command="test", minutes=minutes,
        )  # fmt: skip

    assert run(0.0)["is_finished"] is False
    assert run(None)["is_finished"] is True
    parent, child = load_nano(SHIPPED), load_nano(tmp_path / "out" / "checkpoint")
    pairs = list(zip(parent.parameters(), child.parameters(), strict=True))
    moved = [float((a - b).detach().abs().max()) for a, b in pairs]
    assert 0.0 < max(moved) < 1e-3


def test_heads_that_a_checkpoint_lacks_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="where_weight"):
        distil(tmp_path, tmp_path, [], tmp_path, MixSettings(), TrainerSettings(), command="test")
