# SPDX-License-Identifier: Apache-2.0
"""Weights that reach the owner of the tick: whole, between ticks, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.cell_stub import CellStub, P
from node.weights_stub import SEEN, made_weights
from std_msgs.msg import UInt8MultiArray

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.learning.actor_bytes import ActorWeights, encode_actor, write_actor
from vla_rl_ros.learning.schedule import Driver
from vla_rl_ros.ros.action_codecs import (
    decode_observation,
    decode_policy_action,
    encode_features,
)
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.nodes.residual_actor import ResidualActorNode

pytestmark = pytest.mark.ros


@pytest.fixture
def cell(executor):
    return CellStub(executor, ("policy/action", "policy/observation", "/diagnostics"))


def up(cell, **parameters: object) -> ResidualActorNode:
    node = ResidualActorNode({"autostart": False, **parameters})
    cell.bring_up(node)
    return node


def actions(cell):
    return [decode_policy_action(message) for message in cell.heard["policy/action"]]


def observations(cell):
    return {
        from_stamp(m.header.stamp): decode_observation(m) for m in cell.heard["policy/observation"]
    }


def play(cell, horizon: int = 200, epoch: int = 1):
    """One long chunk with its features."""
    cell.enter(Phase.RUNNING, epoch)
    chunk = replace(cell.make_chunk(horizon=horizon), delay_ticks=0)
    features = np.array([0.25, -1.5], np.float32)
    cell.send("policy/features", encode_features(features, SEEN.tower_hash, chunk.stamp_ns))
    cell.send("policy/chunk", encode_chunk(chunk))
    return chunk


def send(cell, weights: ActorWeights | bytes) -> None:
    data = weights if isinstance(weights, bytes) else encode_actor(weights)
    cell.send("learner/actor", UInt8MultiArray(data=data))


def send_until(cell, weights: ActorWeights | bytes, node, counter: str) -> None:
    before = node.diag.counted(counter)
    assert cell.until(lambda: send(cell, weights) or node.diag.counted(counter) > before)


def has_residual(cell) -> bool:
    return bool(actions(cell)) and bool(np.any(actions(cell)[-1].residual))


def test_features_of_the_played_chunk_are_part_of_the_observation(cell) -> None:
    up(cell)
    chunk = play(cell)
    assert cell.until(lambda: len(actions(cell)) > 3)
    for action in actions(cell)[1:3]:
        assert cell.until(lambda action=action: action.stamp_ns in observations(cell))
        seen = observations(cell)[action.stamp_ns]
        assert seen.version == SEEN.version
        assert seen.names == SEEN.names
        assert seen.vector[20] == np.float32(action.chunk_step / chunk.horizon)
        assert seen.vector[21:].tolist() == [0.25, -1.5]


def test_a_tick_that_holds_is_observed_all_the_same(cell) -> None:
    up(cell)
    play(cell, horizon=3)
    assert cell.until(lambda: len(observations(cell)) > 6)
    proposed = {action.stamp_ns for action in actions(cell)}
    held = [seen for stamp, seen in sorted(observations(cell).items()) if stamp > max(proposed)]
    assert held
    assert {float(seen.vector[20]) for seen in held} == {1.0}
    # Nothing was seen since.
    assert {tuple(seen.vector[21:].tolist()) for seen in held} == {(0.25, -1.5)}
    assert set(np.diff(sorted(observations(cell)))) == {P}


def test_without_weights_and_with_untrained_ones_the_base_is_proposed_bit_for_bit(cell) -> None:
    node = up(cell, explore=False)
    chunk = play(cell)
    assert cell.until(lambda: len(actions(cell)) > 2)
    send_until(cell, made_weights(moved=0.0), node, "weights_taken")
    num_before = len(actions(cell))
    assert cell.until(lambda: len(actions(cell)) > num_before + 3)
    for action in actions(cell):
        assert action.base.tobytes() == chunk.actions[action.chunk_step].tobytes()
        assert (action.base + action.residual).tobytes() == action.base.tobytes()


def test_new_weights_act_from_the_next_tick_and_old_ones_until_then(cell) -> None:
    node = up(cell)
    play(cell)
    assert cell.until(lambda: len(actions(cell)) > 1)
    send_until(cell, made_weights(moved=0.1, version=1), node, "weights_taken")
    assert cell.until(lambda: has_residual(cell))
    send_until(cell, made_weights(moved=-0.1, version=2), node, "weights_taken")
    assert cell.until(lambda: actions(cell)[-1].residual[0] < 0.0)
    scale = ActionSpec().to_si(np.ones(7)) - ActionSpec().to_si(np.zeros(7))
    moved = np.array([action.residual[:3] / scale[:3] for action in actions(cell)])
    # Each tick has one of the three policies whole: nothing in between was ever acted on.
    for row in moved:
        assert any(np.allclose(row, wanted, atol=1e-6) for wanted in (0.0, 0.1, -0.1)), row
    assert set(np.diff([action.stamp_ns for action in actions(cell)])) == {P}


def truncated(data: bytes) -> bytes:
    return data[:-7]


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncated, "not_weights"),
        (flipped, "wrong_hash"),
        (lambda _: b"", "not_weights"),
        (lambda _: encode_actor(made_weights(moved=float("nan"))), "not_finite"),
        (
            lambda _: encode_actor(replace(made_weights(), obs_names=("a", "b"))),
            "wrong_size",
        ),
        (
            lambda _: encode_actor(replace(made_weights(), action_channels=("x",) * 7)),
            "wrong_layout",
        ),
    ],
)
def test_bad_weights_are_refused_and_the_old_ones_act_on(cell, damage, reason: str) -> None:
    node = up(cell)
    play(cell)
    send_until(cell, made_weights(moved=0.1, version=1), node, "weights_taken")
    assert cell.until(lambda: has_residual(cell))
    bad = damage(encode_actor(made_weights(moved=-0.1, version=2)))
    send_until(cell, bad, node, f"rejected.weights.{reason}")
    num_before = len(actions(cell))
    assert cell.until(lambda: len(actions(cell)) > num_before + 2)
    assert all(action.residual[0] > 0.0 for action in actions(cell)[num_before:])


def test_weights_for_other_observations_rest_and_say_so(cell) -> None:
    node = up(cell)
    play(cell)
    foreign = replace(made_weights(moved=0.1), obs_version="0" * 16)
    send_until(cell, foreign, node, "weights_taken")
    num_before = len(actions(cell))
    assert cell.until(lambda: len(actions(cell)) > num_before + 2)
    assert not has_residual(cell)
    assert cell.until(lambda: "other observations" in value(cell, "weights"))
    assert value(cell, "driver") == "base"


def test_the_learner_can_let_the_base_drive_and_the_cap_bounds_what_weights_ask(cell) -> None:
    node = up(cell, residual_scale=0.05)
    play(cell)
    send_until(cell, made_weights(moved=0.1), node, "weights_taken")
    assert cell.until(lambda: has_residual(cell))
    scale = ActionSpec().to_si(np.ones(7)) - ActionSpec().to_si(np.zeros(7))
    assert np.allclose(actions(cell)[-1].residual[:3] / scale[:3], 0.05)
    assert cell.until(lambda: "cut to residual_scale" in value(cell, "weights"))
    send_until(cell, replace(made_weights(moved=0.1), driver=Driver.BASE), node, "weights_taken")
    # An episode keeps its driver.
    num_actions = len(actions(cell))
    assert cell.until(lambda: len(actions(cell)) > num_actions + 1)
    assert has_residual(cell)
    play(cell, epoch=2)
    assert cell.until(lambda: actions(cell)[-1].epoch == 2 and not has_residual(cell))
    assert cell.until(lambda: value(cell, "driver") == "base")
    assert value(cell, "weights").startswith("resting")


def test_noise_is_on_only_while_exploring_and_is_seeded(cell) -> None:
    node = up(cell, explore=True, explore_seed=4)
    play(cell)
    send_until(cell, made_weights(moved=0.0, exploration_std=0.05), node, "weights_taken")
    assert cell.until(lambda: has_residual(cell))
    drawn = next(action.residual for action in actions(cell) if np.any(action.residual))
    expected = 0.05 * np.random.default_rng([4, 3]).standard_normal(7, dtype=np.float32)
    assert np.allclose(drawn[:3], expected[:3] * 0.02, atol=1e-7)


def test_weights_to_begin_with_come_from_a_file(cell, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    write_actor(path, made_weights(moved=0.1, version=7))
    up(cell, residual=str(tmp_path))
    play(cell)
    assert cell.until(lambda: has_residual(cell))
    assert cell.until(lambda: value(cell, "weights_version") == "7")


def test_a_file_that_is_none_is_refused_before_anything_moves(executor, tmp_path: Path) -> None:
    node = ResidualActorNode({"autostart": False, "residual": str(tmp_path / "missing")})
    executor.add_node(node)
    with pytest.raises(ConfigError, match="missing"):
        node.setup()
    node.teardown()


def value(cell, key: str) -> str:
    """Newest gauge of the actor."""
    newest = [
        m.status[0] for m in cell.heard["/diagnostics"] if "residual_actor" in m.status[0].name
    ]
    return next((v.value for v in newest[-1].values if v.key == key), "") if newest else ""
