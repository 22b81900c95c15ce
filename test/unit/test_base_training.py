# SPDX-License-Identifier: Apache-2.0
"""A whole training run on demonstrations that are already there."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from unit.base_demos import demo_set

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.base_trainer import TrainerSettings
from vla_rl_ros.learning.base_training import DataSettings, train
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)

SETTINGS = TrainerSettings(steps=4, batch=4, draws=1)
TWOFOLD = dataclasses.replace(SETTINGS, second_steps=3)
DATA = DataSettings(episodes=1)
CAMERAS = ("wrist", "front")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "data").mkdir()
    for number in range(2):
        demos = demo_set(3)
        # Lift and button from the same start, as in paired clips.
        demos.states[20:40, :3] = demos.states[:20, :3]
        np.savez(tmp_path / "data" / f"seed0_shard{number:03d}.npz", **demos.arrays())
    return tmp_path


def run(out, **changes):
    return train(out, DATA, SETTINGS, command="the command", **changes)


def run_twofold(out, **changes):
    data = dataclasses.replace(DATA, relays=1)
    return train(out, data, TWOFOLD, command="the command", **changes)


@pytest.fixture
def twofold(out):
    """What `out` is, with relays."""
    (out / "relays").mkdir()
    np.savez(out / "relays" / "seed0_shard000.npz", **demo_set(2).arrays())
    return out


def weights(out):
    return (out / "checkpoint" / "model.safetensors").read_bytes()


def test_a_run_ends_in_a_checkpoint_that_the_back_end_plays(out):
    figures = run(out)
    manifest = read_manifest(out / "checkpoint")
    policy = make_policy(
        "pi0",
        PolicySettings(path=str(out / "checkpoint"), device="cpu"),
        PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS),
    )
    state = np.zeros(20)
    state[3] = 1.0
    image = np.zeros((128, 128, 3), dtype=np.uint8)
    chunk = policy.infer(
        PolicyObservation(
            stamp_ns=0,
            images=dict.fromkeys(CAMERAS, image),
            state=state,
            instruction="press the yellow button",
            task="button",
        ),
        None,
    )

    assert chunk.shape == (16, 7)
    assert policy.max_locked == 8
    assert manifest.training["command"] == "the command"
    assert figures["is_finished"]
    assert figures["parameters"] < 1_000_000
    assert (out / "training.png").stat().st_size > 1000


def test_it_continues_and_ends_where_one_run_would_have(out, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "data").symlink_to(out / "data")
    run(other)
    first = run(out, minutes=0.0)
    second = run(out)

    assert first["steps"] == 1
    assert not first["is_finished"]
    assert second["steps"] == 4
    assert weights(out) == weights(other)


def test_it_stops_at_a_step_of_the_same_schedule(out):
    stopped = run(out, stop_at=2)
    assert (stopped["steps"], stopped["is_finished"]) == (2, False)
    early = weights(out)
    run(out)
    assert weights(out) != early
    assert run(out, stop_at=2)["steps"] == 4


def test_a_finished_run_only_reports(out):
    run(out)
    before = weights(out)
    again = run(out)

    assert again["steps"] == 4
    assert weights(out) == before


def test_every_note_holds_losses_and_grounding(out):
    run(out)
    (row,) = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]

    assert row["step"] == 4
    for name in ("flow_loss", "where_loss", "grounding_error_m"):
        assert row[name] > 0.0
    assert 0.0 <= row["wrong_object_part"] <= 1.0


def test_it_computes_on_as_many_threads_as_asked(out):
    run(out, num_threads=1)

    assert torch.get_num_threads() == 1


def test_the_second_phase_learns_from_relays_of_the_policy_of_the_first(twofold):
    first = run_twofold(twofold, stop_at=4)
    assert (first["steps"], first["is_finished"]) == (4, False)
    before = weights(twofold)
    second = run_twofold(twofold)

    assert (second["steps"], second["is_finished"]) == (7, True)
    assert (twofold / "driver" / "model.safetensors").read_bytes() == before
    assert weights(twofold) != before


def test_a_run_tells_and_keeps_how_many_relays_of_each_task_it_learned_from(twofold):
    said = []
    assert run_twofold(twofold, stop_at=4, tell=said.append)["relays"] == {}
    counts = {"lift": 1, "button": 1, "peg": 0}
    assert run_twofold(twofold, tell=said.append)["relays"] == counts
    assert said == ["relays: 1 lift, 1 button, 0 peg"]
    assert read_manifest(twofold / "checkpoint").training["relays"] == counts
    assert "relays" not in read_manifest(twofold / "driver").training


def test_a_second_phase_that_was_interrupted_ends_where_one_run_would_have(
    twofold, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    for name in ("data", "relays"):
        (other / name).symlink_to(twofold / name)
    run_twofold(other)
    run_twofold(twofold, stop_at=5)
    run_twofold(twofold)

    assert weights(twofold) == weights(other)


def test_relays_of_a_policy_that_is_gone_are_not_made_by_another(twofold):
    run_twofold(twofold, stop_at=5)
    shutil.rmtree(twofold / "driver")

    with pytest.raises(ConfigError, match="driver is missing"):
        run_twofold(twofold)


def test_a_second_phase_without_relays_is_refused(out):
    with pytest.raises(ConfigError, match="relays=0"):
        train(out, DATA, TWOFOLD, command="the command")


def test_a_driver_of_a_run_that_was_deleted_is_not_taken_over(twofold):
    run_twofold(twofold)
    (twofold / "trainer.pt").unlink()

    with pytest.raises(ConfigError, match=r"a driver but no trainer\.pt"):
        run_twofold(twofold)


def test_relays_are_collected_with_the_policy_of_the_first_phase(out, monkeypatch):
    drivers = []

    def collect(cells, policy, seed, shard):
        drivers.append((policy.horizon, policy.tower_hash, seed, shard))
        return demo_set(2)

    class Here:
        """In this process, where what is patched is seen."""

        def __init__(self, *_, **__):
            self.map = map

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(base_shards, "collect_relay_shard", collect)
    monkeypatch.setattr(base_shards, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(base_shards, "_cells", lambda: None)
    run_twofold(out)
    shipped = make_policy("pi0", PolicySettings(device="cpu"), PolicyEnvironment(cameras=CAMERAS))

    ((horizon, tower, *numbers),) = drivers
    assert (horizon, numbers) == (16, [0, 0])
    assert tower != shipped.tower_hash
    assert len(list((out / "relays").iterdir())) == 1
