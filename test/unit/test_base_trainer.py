# SPDX-License-Identifier: Apache-2.0
"""Gradient steps: they learn, they repeat, and an interruption leaves no trace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from unit.base_demos import demo_set

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.base_labels import Sampler, measure_scales
from vla_rl_ros.learning.base_loss import BaseLearner, masked_error
from vla_rl_ros.learning.base_trainer import Trainer, TrainerSettings
from vla_rl_ros.policies.pi0.nano import HORIZON

torch.set_num_threads(1)
SETTINGS = TrainerSettings(steps=20, batch=8, draws=2, warm_up_steps=5)


@pytest.fixture(scope="module")
def sampler():
    demos = demo_set()
    return Sampler(demos, measure_scales(demos), HORIZON)


def weights(trainer):
    return torch.cat([weight.flatten() for weight in trainer.average.parameters()])


def test_twenty_steps_lower_both_losses(sampler):
    trainer = Trainer(dataclasses.replace(SETTINGS, batch=32, learning_rate=5e-3), sampler)
    losses = [trainer.step() for _ in range(20)]

    for name in ("flow", "where"):
        values = [float(getattr(loss, name)) for loss in losses]
        assert np.mean(values[-5:]) < 0.9 * np.mean(values[:5])


def test_a_continued_run_is_the_uninterrupted_one_to_the_last_bit(sampler, tmp_path):
    whole = Trainer(SETTINGS, sampler)
    for _ in range(6):
        whole.step()
    first = Trainer(SETTINGS, sampler)
    for _ in range(3):
        first.step()
    first.save(tmp_path / "trainer.pt")
    second = Trainer(SETTINGS, sampler)
    torch.manual_seed(99)
    second.load(tmp_path / "trainer.pt")
    for _ in range(3):
        second.step()

    assert second.step_number == 6
    assert torch.equal(weights(whole), weights(second))


def test_another_seed_gives_another_result(sampler):
    one, other = (Trainer(dataclasses.replace(SETTINGS, seed=seed), sampler) for seed in (0, 1))

    assert not torch.equal(weights(one), weights(other))


def test_a_run_with_other_settings_is_not_continued(sampler, tmp_path):
    Trainer(SETTINGS, sampler).save(tmp_path / "trainer.pt")
    other = Trainer(dataclasses.replace(SETTINGS, steps=30), sampler)

    with pytest.raises(ConfigError, match=r"trainer\.pt was begun with steps=20"):
        other.load(tmp_path / "trainer.pt")


def test_a_damaged_file_is_refused_by_name(sampler, tmp_path):
    (tmp_path / "trainer.pt").write_bytes(b"not a run")

    with pytest.raises(ConfigError, match=r"trainer\.pt: cannot be continued"):
        Trainer(SETTINGS, sampler).load(tmp_path / "trainer.pt")


def test_masked_rows_do_not_count():
    flow, wanted = torch.zeros(2, 4, 7), torch.zeros(2, 4, 7)
    masks = torch.ones(2, 4, dtype=torch.bool)
    flow[0, 1] = 3.0
    assert masked_error(flow, wanted, masks) > 0
    masks[0, 1] = False

    assert masked_error(flow, wanted, masks) == 0
    assert masked_error(flow, wanted, torch.zeros_like(masks)) == 0


def test_without_a_row_that_counts_only_localisation_is_left(sampler):
    learner = BaseLearner()
    samples = sampler.at(np.array([2, 30]), np.array([1, 3]))
    none = dataclasses.replace(samples, masks=np.zeros_like(samples.masks))
    wordings = torch.zeros(2, dtype=torch.long)
    loss = learner.losses(none, wordings, draws=1, generator=torch.Generator().manual_seed(0))

    assert loss.flow == 0
    assert loss.where > 0


@pytest.mark.parametrize("field", ["steps", "batch", "draws", "ema", "learning_rate"])
def test_settings_out_of_bounds_are_refused_by_name(field):
    with pytest.raises(ConfigError, match=field):
        TrainerSettings(**{field: -1})


def test_a_file_from_before_there_were_two_phases_is_continued(sampler, tmp_path):
    path = tmp_path / "trainer.pt"
    Trainer(SETTINGS, sampler).save(path)
    values = torch.load(path, weights_only=True)
    for name in ("second_steps", "second_rate"):
        del values["settings"][name]
    torch.save(values, path)
    origin = {"episodes": 20, "data_seed": 0, "relays": 0, "relay_part": 0.4}

    Trainer(SETTINGS, sampler, origin=origin).load(path)
    other = dataclasses.replace(SETTINGS, second_steps=5)
    twofold = Trainer(other, sampler, origin={**origin, "relays": 15})
    with pytest.raises(ConfigError, match=r"was begun with second_steps=0, relays=0"):
        twofold.load(path)


def test_each_phase_has_a_rate_that_rises_and_falls(sampler):
    settings = dataclasses.replace(SETTINGS, second_steps=20, second_rate=1e-4)
    trainer = Trainer(settings, sampler)
    rates = []
    for step in range(settings.num_steps):
        trainer.step_number = step
        rates.append(trainer.learning_rate())
    first, second = np.array(rates[:20]), np.array(rates[20:])

    for rate, highest in ((first, settings.learning_rate), (second, settings.second_rate)):
        assert rate.argmax() in (4, 5)
        assert 0.8 * highest < rate.max() <= highest
        assert rate[-1] < 0.1 * highest
        assert rate[0] == pytest.approx(highest / settings.warm_up_steps)
