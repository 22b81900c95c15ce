# SPDX-License-Identifier: Apache-2.0
"""pi0-nano: the network, its files, and flow times per token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.policies.pi0.forward import (
    PrefixCache,
    embed_suffix,
    encode_prefix,
    suffix_hidden,
)
from vla_rl_ros.policies.pi0.nano import (
    HORIZON,
    IMAGE_PX,
    IMAGE_TOKEN_ID,
    NanoPI0,
    build_config,
    make_nano,
)
from vla_rl_ros.policies.pi0.nano_files import load_nano, save_nano

torch.set_num_threads(1)
BATCH = 2


@pytest.fixture(scope="module")
def model() -> NanoPI0:
    torch.manual_seed(0)
    made = make_nano()
    torch.nn.init.normal_(made.action_out_proj.weight, std=0.2)
    made.train(mode=False)
    return made


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Images, tokens with two paddings, mask, state, noise."""
    random = torch.Generator().manual_seed(1)
    tokens = torch.tensor([[IMAGE_TOKEN_ID] * 32 + [1, 5, 6, 7, 2, 0, 0]] * BATCH)
    return {
        "pixels": torch.rand(BATCH, 2, 3, IMAGE_PX, IMAGE_PX, generator=random) * 2 - 1,
        "tokens": tokens,
        "mask": (tokens != 0).long(),
        "state": torch.randn(BATCH, 10, generator=random),
        "noise": torch.randn(BATCH, HORIZON, 7, generator=random),
    }


@pytest.fixture
def saved(model: NanoPI0, tmp_path: Path) -> Path:
    save_nano(model, tmp_path)
    return tmp_path


def velocity(
    model: NanoPI0, cache: PrefixCache, state: Tensor, actions: Tensor, times: Tensor
) -> Tensor:
    """One denoising step's work."""
    return model.action_out_proj(suffix_hidden(model, cache, state, actions, times)[:, 1:])


def flow(model: NanoPI0, inputs: dict[str, Tensor], times: Tensor) -> Tensor:
    with torch.no_grad():
        cache = encode_prefix(model, inputs["pixels"], inputs["tokens"], inputs["mask"])
        return velocity(model, cache, inputs["state"], inputs["noise"], times)


def test_it_has_under_a_million_parameters(model):
    assert sum(weight.numel() for weight in model.parameters()) < 1_000_000


def test_equal_times_give_the_flow_of_the_stock_forward(model, inputs):
    time = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        stock = model(
            state=inputs["state"],
            noise=inputs["noise"],
            timestep=time,
            input_ids=inputs["tokens"],
            pixel_values=inputs["pixels"],
            pixel_attention_mask=torch.ones(BATCH, 2, dtype=torch.bool),
            attention_mask=inputs["mask"],
        ).logits
    ours = flow(model, inputs, time[:, None].expand(-1, HORIZON))

    assert ours.shape == (BATCH, HORIZON, 7)
    assert ours.abs().max() > 0.1
    assert torch.allclose(ours, stock, atol=1e-5)


def test_stock_sampling_with_a_mask_is_the_training_forward_integrated(model, inputs):
    stock = model.sample_actions(
        state=inputs["state"],
        input_ids=inputs["tokens"],
        pixel_values=inputs["pixels"],
        noise=inputs["noise"],
        attention_mask=inputs["mask"],
        pixel_attention_mask=torch.ones(BATCH, 2, dtype=torch.bool),
        num_steps=3,
    )
    actions = inputs["noise"]
    for time in (1.0, 2 / 3, 1 / 3):
        times = torch.full((BATCH, HORIZON), time)
        actions = actions - flow(model, inputs | {"noise": actions}, times) / 3

    assert torch.allclose(actions, stock, atol=1e-5)


def test_a_flow_time_belongs_to_its_own_token(model, inputs):
    times = torch.full((BATCH, HORIZON), 0.8)
    other = times.clone()
    other[:, 3] = 0.0
    with torch.no_grad():
        before = embed_suffix(model, inputs["state"], inputs["noise"], times)
        after = embed_suffix(model, inputs["state"], inputs["noise"], other)
    is_changed = (before != after).any(-1).any(0)

    assert is_changed.nonzero().flatten().tolist() == [1 + 3]


def test_a_cache_can_be_used_again_and_padding_is_not_seen(model, inputs):
    times = torch.full((BATCH, HORIZON), 0.5)
    with torch.no_grad():
        cache = encode_prefix(model, inputs["pixels"], inputs["tokens"], inputs["mask"])
        first, second = (
            velocity(model, cache, inputs["state"], inputs["noise"], times) for _ in range(2)
        )
        bare = encode_prefix(
            model, inputs["pixels"], inputs["tokens"][:, :-2], inputs["mask"][:, :-2]
        )
        unpadded = velocity(model, bare, inputs["state"], inputs["noise"], times)

    assert torch.equal(first, second)
    assert torch.allclose(first, unpadded, atol=1e-5)


def test_a_repeated_cache_equals_repeated_observations(model, inputs):
    times = torch.full((2 * BATCH, HORIZON), 0.5)
    state, noise = (inputs[key].repeat_interleave(2, 0) for key in ("state", "noise"))
    with torch.no_grad():
        cache = encode_prefix(model, inputs["pixels"], inputs["tokens"], inputs["mask"])
        cache.repeat(2)
        repeated = velocity(model, cache, state, noise, times)

    once = flow(model, inputs, times[::2])
    assert torch.allclose(repeated, once.repeat_interleave(2, 0), atol=1e-5)


def test_equal_seeds_make_equal_models():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(make_nano().state_dict())

    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_a_saved_model_comes_back_exactly(model, inputs, saved):
    times = torch.full((BATCH, HORIZON), 0.5)
    loaded = load_nano(saved)

    assert not loaded.training
    assert torch.equal(flow(loaded, inputs, times), flow(model, inputs, times))
    assert sum(file.stat().st_size for file in saved.iterdir()) < 4_000_000


def test_transformers_loads_it_without_missing_or_unexpected_weights(saved):
    _, report = NanoPI0.from_pretrained(saved, output_loading_info=True, local_files_only=True)

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def damage_weights(directory: Path, name: str) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    key = "action_out_proj.bias"
    if name == "missing":
        del tensors[key]
    elif name == "shape":
        tensors[key] = torch.zeros(9)
    elif name == "finite":
        tensors[key] = torch.full((7,), float("nan"))
    else:
        tensors["stray"] = torch.zeros(1)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", r"'action_out_proj\.bias' is missing"),
        ("shape", r"'action_out_proj\.bias' is \(9,\), not \(7,\)"),
        ("finite", r"'action_out_proj\.bias' is not finite"),
        ("stray", "'stray' is unexpected"),
    ],
)
def test_weights_of_another_model_are_refused(saved, damage, sentence):
    damage_weights(saved, damage)

    with pytest.raises(ConfigError, match=sentence):
        load_nano(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("fault", ["absent", "cut off"])
def test_unreadable_files_are_refused_by_name(saved, name, fault):
    file = saved / name
    if fault == "absent":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])

    with pytest.raises(ConfigError, match=name):
        load_nano(saved)


@pytest.mark.parametrize("key", ["model_type", "vla_rl_ros_stem", "vla_rl_ros_token_time"])
def test_a_config_of_another_model_is_refused_by_key(saved, key):
    values = json.loads((saved / "config.json").read_text())
    del values[key]
    (saved / "config.json").write_text(json.dumps(values))

    with pytest.raises(ConfigError, match=key):
        load_nano(saved)


def test_an_unmarked_config_makes_no_nano():
    config = build_config()
    del config.vla_rl_ros_stem

    with pytest.raises(ConfigError, match="vla_rl_ros_stem"):
        NanoPI0(config)
