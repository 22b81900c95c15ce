# SPDX-License-Identifier: Apache-2.0
"""The command `train eyes`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from unit.test_label_bags import record

from vla_rl_ros.learning.eyes_net import FEATURE_DIM
from vla_rl_ros.policies.goal_eyes import GoalEyes, read_manifest
from vla_rl_ros.tools.cli import main

FEW = ["--steps", "2", "--set", "eyes.image_px=32", "eyes.batch=4"]
# What the first argument must not import, then the command.
RUN = """
import sys
from vla_rl_ros.tools.cli import main
assert main(sys.argv[2:]) == 0
assert sys.argv[1] not in sys.modules, sys.argv[1]
"""


def test_the_command_reads_bags_and_leaves_bad_ones_out(tmp_path, capsys):
    bags, out = tmp_path / "bags", tmp_path / "out"
    for number in range(6):
        record(bags / f"one{number}", has_truth=number > 0)
    record(bags / "button", task="button")
    (bags / "damaged").mkdir()
    (bags / "damaged/d.mcap").write_bytes(b"no bag")
    record(bags / "stopped", poses=40)
    # Its task is not asked for, but it is no success either.
    record(bags / "peg", task="peg", outcome="failure")
    words = ["train", "eyes", str(bags), "--out", str(out), *FEW]
    assert main(words) == 1
    assert "choose by --task" in capsys.readouterr().err
    assert main([*words, "--task", "lift"]) == 0
    said = capsys.readouterr()
    figures = json.loads(said.out.splitlines()[-1])
    assert (figures["task"], figures["episodes"], figures["steps"]) == ("lift", 6, 2)
    assert (figures["source"], figures["left_out"]) == ("simulator", 2)
    for name in ("damaged", "stopped"):
        assert any("[train] left out" in x and name in x for x in said.err.splitlines())
    assert GoalEyes(out).feature_dim == FEATURE_DIM
    assert read_manifest(out).training["command"] == (
        "vla-rl-ros train eyes BAGS --task lift --out DIR --cameras wrist front --frames 16000 "
        "--steps 2 --seed 0 --threads 1 --set eyes.image_px=32 eyes.batch=4"
    )
    # Other settings are refused before any bag is read.
    assert main(["train", "eyes", "nothing", "--out", str(out), "--steps", "3"]) == 1
    assert "was begun with steps=2" in capsys.readouterr().err


def test_a_failure_of_another_task_does_not_stop_the_run(tmp_path):
    for number in range(5):
        record(tmp_path / "bags" / f"one{number}", has_truth=False)
    record(tmp_path / "bags" / "peg", task="peg", outcome="failure")
    words = ["train", "eyes", str(tmp_path / "bags"), "--out", str(tmp_path / "out"), *FEW]
    assert main(words) == 0
    assert read_manifest(tmp_path / "out").source == "bags"


def run_apart(unwanted: str, *words: str) -> dict:
    env = {name: v for name, v in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, unwanted, *words],
        env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_display_the_simulator_shows_demonstrations(tmp_path):
    words = ["train", "eyes", "--simulate", "button", "--episodes", "5", "--out", str(tmp_path)]
    figures = run_apart("rclpy", *words, *FEW)
    assert (figures["source"], figures["episodes"]) == ("simulator", 5)
    assert "--simulate button --variant default --episodes 5" in str(
        read_manifest(tmp_path).training["command"]
    )


def test_bags_are_read_without_the_simulator(tmp_path):
    for number in range(5):
        record(tmp_path / "bags" / f"one{number}")
    words = ["train", "eyes", str(tmp_path / "bags"), "--out", str(tmp_path / "out")]
    assert run_apart("mujoco", *words, *FEW)["episodes"] == 5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give bags, or --simulate"),
        (["bag", "--simulate", "lift"], "give bags, or --simulate"),
        (["--simulate", "lift", "--task", "lift"], "leave --task out"),
        (["bag", "--variant", "peg_hard"], "--variant is of the simulator"),
        (["bag", "--cameras", "front", "front"], "names one twice"),
        (["bag", "--frames", "0"], "--frames 0 must be 1 or more"),
        (["--simulate", "lift", "--episodes", "-1"], "--episodes -1 must be 1 or more"),
        (["bgas"], "bgas: there is no such file or folder"),
        (["--simulate", "peg_out"], "only lift, button, peg can be shown"),
        (["--simulate", "fly"], "only lift, button, peg can be shown"),
        (["--simulate", "lift", "--variant", "foggy"], "unknown scene variant 'foggy'"),
        (["--simulate", "lift", "--cameras", "side"], "the simulator has no camera side"),
        (["bag", "--set", "eyes.image_px=40"], "no multiple of 16"),
        (["bag", "--set", "foo.bar=1"], "not of the form"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(tmp_path, capsys, words, sentence):
    assert main(["train", "eyes", *words, "--out", str(tmp_path / "out")]) == 1
    assert sentence in capsys.readouterr().err
