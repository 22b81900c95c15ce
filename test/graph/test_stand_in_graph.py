# SPDX-License-Identifier: Apache-2.0
"""A simulated person with a simulated SpaceMouse in front of the whole graph, by HID reports."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.learning.rows import Source
from vla_rl_ros.ros.bag_rows import BagRows, meaning
from vla_rl_ros.tools.cli import main

pytestmark = [pytest.mark.graph, pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def _needs_compiler_and_driver() -> None:
    pytest.importorskip("pyspacemouse")
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc for the stand-in of the HID library")


def test_what_he_shows_is_recorded_tick_by_tick_as_a_humans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "button", "--episodes", "1", "--attempts", "2", "--image-px", "64"]
    arguments += ["--robot-ip", "127.0.0.44", "--out", str(tmp_path)]
    assert main(["record", "demos", "--sim", "--stand-in", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["demonstrations"] == 1
    (bag,) = (path for path in (tmp_path / "bags").iterdir() if path.name != "failed")
    found = meaning(bag)
    assert found is not None
    reader = BagRows(ActionSpec(), found.version)
    (episode,) = reader.read([bag])
    assert episode.is_success
    assert reader.counters.lost_ticks == 0
    ticks = [row for row in episode.rows if not row.is_end]
    first = next(n for n, row in enumerate(ticks) if row.source is Source.HUMAN)
    # From his first move on the arm is his; a third of a second passes before he sees anything.
    assert first <= 8
    assert all(row.source is Source.HUMAN for row in ticks[first:])
    assert all(after.tick - before.tick == 1 for before, after in itertools.pairwise(ticks))


def test_he_brings_a_policy_that_stands_still_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "button", "--episodes", "1", "--policy", "still", "--headless"]
    arguments += ["--robot-ip", "127.0.0.44", "--out", str(tmp_path), "--no-record"]
    assert main(["up", "--sim", "--stand-in", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["success"]["button"] == 1.0
