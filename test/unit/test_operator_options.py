# SPDX-License-Identifier: Apache-2.0
"""What a command line says of the operator, and what the nodes hear of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph_options import OPERATOR_DEVICES, OPERATOR_MODES, Backend, GraphOptions
from vla_rl_ros.ros.intervention_config import HandDevice, InterventionConfig, OperatorMode
from vla_rl_ros.ros.processes import build_graph
from vla_rl_ros.tools import record, up
from vla_rl_ros.tools.cli import main, make_parser
from vla_rl_ros.tools.report import EpisodeResult
from vla_rl_ros.tools.stand_in import observed_graph


def parameters(options: GraphOptions) -> dict[str, dict[str, object]]:
    return {
        node: dict(own) for spec in build_graph(options) for node, own in spec.parameters.items()
    }


def test_names_of_options_are_those_of_the_node() -> None:
    assert {device.value for device in HandDevice} == set(OPERATOR_DEVICES)
    assert {mode.value for mode in OperatorMode} == set(OPERATOR_MODES)


def test_the_gate_is_told_what_the_operator_has_in_his_hand() -> None:
    found = parameters(GraphOptions(operator="spacemouse", operator_mode="demonstrate"))
    assert found["intervention"]["device"] == "spacemouse"
    assert found["intervention"]["mode"] == "demonstrate"
    assert "shadow" not in found["vla_inference"]
    assert "device" not in parameters(GraphOptions())["intervention"]


def test_in_shadow_mode_policy_and_actor_go_on_beside_the_human() -> None:
    found = parameters(GraphOptions(operator="joy", operator_mode="shadow"))
    assert found["vla_inference"]["shadow"] is True
    assert found["residual_actor"]["shadow"] is True


def test_what_is_unknown_or_has_no_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="operator='wand'"):
        GraphOptions(operator="wand")
    with pytest.raises(ConfigError, match="operator_mode='dream'"):
        GraphOptions(operator_mode="dream")
    with pytest.raises(ConfigError, match="device"):
        InterventionConfig(mode="shadow")


def test_a_stand_in_needs_a_simulated_arm(tmp_path: Path) -> None:
    real = GraphOptions(
        backend=Backend.REAL, robot_ip="10.0.0.1", operator="spacemouse", out=tmp_path
    )
    for options in (real, GraphOptions(operator="joy", out=tmp_path)):
        with (
            pytest.raises(ConfigError, match="stand-in"),
            observed_graph(options, has_stand_in=True),
        ):
            pass


def test_recording_demonstrations_lets_nobody_else_drive() -> None:
    parser = make_parser(record, "record")
    options = record.options_of(parser.parse_args(["record", "demos", "--sim", "--task", "peg"]))
    assert (options.policy, options.operator, options.operator_mode) == (
        "still",
        "spacemouse",
        "demonstrate",
    )
    with pytest.raises(ConfigError, match="--robot-ip"):
        record.options_of(parser.parse_args(["record", "demos"]))


def test_a_stand_in_brings_its_mouse(capsys) -> None:
    arguments = make_parser(up, "up").parse_args(["up", "--sim", "--stand-in", "--episodes", "1"])
    assert up.options_of(arguments).operator == "spacemouse"
    assert main(["up", "--sim", "--stand-in"]) == 1
    assert "--episodes" in capsys.readouterr().err


def test_bags_of_failures_are_set_aside(tmp_path: Path) -> None:
    results = []
    for name, outcome in (("good", "success"), ("bad", "failure"), ("gone", "timeout")):
        bag = tmp_path / name
        if name != "gone":
            bag.mkdir()
        results.append(
            EpisodeResult(
                episode_id=name, task="peg", seed=0, outcome=outcome, duration_s=1.0, bag=str(bag)
            )
        )
    record.set_aside(results, tmp_path / "failed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failed", "good"]
    assert [path.name for path in (tmp_path / "failed").iterdir()] == ["bad"]
