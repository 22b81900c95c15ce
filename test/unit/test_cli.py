# SPDX-License-Identifier: Apache-2.0
"""The command line: help everywhere, clear errors, nothing heavy before it is needed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.tools import cli, demo, up


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vla_rl_ros.tools.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def options(*words: str) -> GraphOptions:
    parser = argparse.ArgumentParser()
    up.add_parser(parser.add_subparsers())
    return up.options_of(parser.parse_args(["up", *words]))


def test_what_chooses_the_policy_reaches_the_graph_from_every_command() -> None:
    chosen = {
        "policy": "onnx", "checkpoint": "w", "eyes": "shipped", "mode": "naive", "residual": "r"
    }  # fmt: skip
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    for command in (up, demo):
        parser = argparse.ArgumentParser()
        command.add_parser(parser.add_subparsers())
        name = command.__name__.rpartition(".")[2]
        sim = ["--sim"] if command is up else []
        found = command.options_of(parser.parse_args([name, *sim, *words]))
        assert {name: getattr(found, name) for name in chosen} == chosen


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(command in said for command in cli.COMMANDS)


@pytest.mark.parametrize("command", ["up", "demo", "bag"])
def test_every_command_explains_itself_without_loading_anything_heavy(command: str) -> None:
    loaded = (
        "import sys\n"
        "from vla_rl_ros.tools.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'rclpy', 'mujoco', 'franky', 'torch', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded, command, "--help"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: vla-rl-ros" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("dance",), "invalid choice: 'dance'"),
        (("up", "--sim", "--task", "juggle"), "invalid choice: 'juggle'"),
        (("up", "--sim", "--variant", "peg_huge"), "invalid choice: 'peg_huge'"),
        (("up", "--sim", "--episodes", "0"), "must be at least 1"),
        (("up", "--sim", "--speed", "3"), "unrecognized arguments: --speed"),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_2(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_neither_sim_nor_robot_is_explained() -> None:
    done = run("up")
    assert done.returncode == 1
    assert "give --sim, or --robot-ip" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ros_the_way_to_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_ros(_: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setattr(up, "run", without_ros)
    assert cli.main(["up", "--sim"]) == 1
    said = capsys.readouterr().err
    assert "setup.bash" in said
    assert "vla_rl_ros[ros]" in said


def test_options_become_a_graph(tmp_path: Path) -> None:
    made = options(
        *("--sim", "--task", "peg", "--seed", "4", "--variant", "peg_tight"),
        *("--no-record", "--rate", "free", "--out", str(tmp_path), "--headless"),
    )
    assert made == GraphOptions(
        backend=Backend.SIM,
        tasks=("peg",),
        seed=4,
        variant="peg_tight",
        record=False,
        rate="free",
        out=tmp_path,
    )


def test_a_real_arm_is_not_hurried() -> None:
    with pytest.raises(ConfigError, match="own pace"):
        options("--robot-ip", "172.16.0.2", "--rate", "free")
    assert options("--robot-ip", "172.16.0.2").backend is Backend.REAL


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("eval base --episodes 0", "--episodes: must be at least 1"),
        ("eval residual --task lift --episodes -3", "--episodes: must be at least 1"),
        ("train base --out x --minutes nan", "--minutes: must be finite and above 0"),
        ("train residual --task lift --out x --minutes -1", "--minutes: must be finite"),
        ("label bags --out x --rate 0", "--rate: must be finite and above 0"),
        ("label --simulate peg --out x --staged -1", "--staged: must be at least 0"),
        ("train eyes bags --out x --threads 0", "--threads: must be at least 1"),
        ("operator --port 99999", "--port: must be within 0 and 65535"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_by_the_name_of_the_option(
    capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_a_path_that_cannot_be_used_is_named_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["up", "--sim", "--out", str(tmp_path / "file")]) == 1
    assert f"vla-rl-ros: {tmp_path}/file/logs: Not a directory" in capsys.readouterr().err


def test_an_error_of_the_system_that_names_no_path_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(_: object) -> int:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(cli, "_run", failing)
    with pytest.raises(ConnectionResetError):
        cli.main(["bag"])
