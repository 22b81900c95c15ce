# SPDX-License-Identifier: Apache-2.0
"""Weights as bytes: all of them or none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.weights_stub import SEEN, made_weights

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.learning.actor_bytes import decode_actor, encode_actor, read_actor, write_actor
from vla_rl_ros.learning.gym_files import save_policy
from vla_rl_ros.learning.schedule import Driver


def test_weights_and_what_they_are_for_survive_bit_for_bit() -> None:
    made = replace(made_weights(version=3), updates=77, made_ns=5, driver=Driver.BASE)
    again = decode_actor(encode_actor(made))
    for name in ("version", "updates", "made_ns", "driver", "obs_version", "obs_names"):
        assert getattr(again, name) == getattr(made, name)
    assert set(again.weights) == set(made.weights)
    for name, values in made.weights.items():
        assert again.weights[name].tobytes() == values.tobytes()


def test_every_damaged_byte_is_noticed() -> None:
    data = encode_actor(made_weights())
    rng = np.random.default_rng(0)
    for position in rng.integers(8, len(data), 200):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(InvalidCommandError):
            decode_actor(bytes(damaged))


@pytest.mark.parametrize("part", [0, 1, 7, 8, 100, -1])
def test_a_part_of_the_bytes_is_refused(part: int) -> None:
    data = encode_actor(made_weights())
    with pytest.raises(InvalidCommandError, match="not_weights"):
        decode_actor(data[:part])


def test_a_missing_array_is_refused_and_named() -> None:
    made = made_weights()
    weights = {name: w for name, w in made.weights.items() if name != "actor.bias_out"}
    with pytest.raises(InvalidCommandError, match="wrong_size"):
        decode_actor(encode_actor(replace(made, weights=weights)))


@pytest.mark.parametrize(
    ("name", "array"),
    [("actor.bias_0", np.zeros(5)), ("setting.xi", np.ones(2)), ("actor.weight_0", np.ones(()))],
)
def test_layers_that_do_not_fit_each_other_are_refused(name: str, array: np.ndarray) -> None:
    made = made_weights()
    made.weights[name] = array.astype(np.float32)
    # The checksum is that of the bytes as they are.
    with pytest.raises(InvalidCommandError, match="wrong_size"):
        decode_actor(encode_actor(made))


def test_numbers_of_a_type_that_numpy_does_not_know_are_refused() -> None:
    tensor = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"format": "1"}, "a": tensor}).encode()
    with pytest.raises(InvalidCommandError, match="not_weights"):
        decode_actor(len(header).to_bytes(8, "little") + header + bytes(4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    made = made_weights()
    made.weights["obs_mean"][1] = value
    with pytest.raises(InvalidCommandError, match="not_finite"):
        decode_actor(encode_actor(made))


def test_a_file_is_found_by_its_name_or_that_of_its_run(tmp_path: Path) -> None:
    write_actor(tmp_path / "policy.safetensors", made_weights(version=9))
    assert read_actor(tmp_path).version == 9
    assert read_actor(tmp_path / "policy.safetensors").obs_version == SEEN.version
    with pytest.raises(ConfigError, match="nowhere"):
        read_actor(tmp_path / "nowhere")


def test_a_policy_trained_elsewhere_is_read_with_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, made_weights().weights, {"driver": "base", "obs_version": SEEN.version})
    found = read_actor(path)
    assert (found.driver, found.obs_version) == (Driver.BASE, SEEN.version)


def test_a_policy_with_other_actions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    weights = dict(made_weights().weights)
    weights["actor.bias_out"] = np.zeros(4, np.float32)
    weights["actor.weight_out"] = np.zeros((8, 4), np.float32)
    save_policy(path, weights, {"obs_names": json.dumps([])})
    with pytest.raises(ConfigError, match="wrong_size"):
        read_actor(path)
