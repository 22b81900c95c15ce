# SPDX-License-Identifier: Apache-2.0
"""`bench seams`: equal seeds give equal rows, rows survive an interruption, figures add up."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.proportions import wilson_interval
from vla_rl_ros.tools import bench_seams, cli
from vla_rl_ros.tools.seam_cells import (
    Cell,
    jerks_m_per_s3,
    jsonable,
    key_of,
    run_cell,
    weights_hash,
)
from vla_rl_ros.tools.seam_plot import plot_seams

CELL = Cell(
    policy="scripted", path="", weights="", horizon=16, mode="prefix_lock", delay_ticks=2,
    task="button", variant="default", episodes=1, seed=5,
)  # fmt: skip


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_seams.add_parser(parser.add_subparsers())
    return parser.parse_args(["seams", *words])


def row(**values) -> dict:
    known = {
        "kind": "cell", "mode": "naive", "delay_ticks": 0, "task": "lift", "policy": "scripted",
        "episodes": 1, "success": 1.0, "success_low": 0.2, "success_high": 1.0,
        "boundary_jump_ratio": 1.0, "seam_step_ratio": 1.0, "handover_jump_ratio": 1.0,
        "prefix_mismatch": None, "underflows": 0.0, "late_chunks": 0.0,
        "jerk_p95_m_per_s3": 1.0, "episode_s": 2.0,
    }  # fmt: skip
    return {**known, **values}


def test_a_cell_is_the_same_every_time() -> None:
    first = run_cell(CELL)

    assert first == run_cell(CELL)
    assert first["success"] == 1.0
    assert first["execute_ticks"] == 4
    assert first["prefix_mismatch"] == 0.0
    assert first["underflows"] == 0
    assert 0.2 <= first["observation_age_p50_s"] <= 0.5
    assert {name: first[name] for name in key_of(CELL)} == key_of(CELL)


def test_a_mode_that_the_policy_cannot_do_is_skipped_with_the_reason() -> None:
    skipped = run_cell(replace(CELL, mode="rtc"))
    assert skipped["kind"] == "skipped"
    assert "mode='rtc'" in skipped["reason"]


def test_a_policy_that_does_not_exist_ends_the_bench() -> None:
    with pytest.raises(ConfigError, match="policy='scribbled' is unknown"):
        run_cell(replace(CELL, policy="scribbled"))


def test_rows_that_are_there_are_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "seams.jsonl"
    (first,) = bench_seams.run_cells([CELL], [], path, 1)
    path.write_text(f'{path.read_text(encoding="utf-8")}{{"kind": "ce', encoding="utf-8")
    done = bench_seams.read_rows(path)
    assert done == [first]

    # A mark shows that the row was taken over.
    marked = {**done[0], "success": 0.125}
    assert bench_seams.run_cells([CELL], [marked], path, 1) == [marked]
    assert json.loads(path.read_text(encoding="utf-8")) == marked
    # Rows of other settings are no substitute.
    other = {**marked, "seed": 6}
    assert bench_seams.run_cells([CELL], [other], path, 1) == [first]


def test_rows_of_other_weights_under_the_same_path_are_computed_again(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = weights_hash("pi0", str(tmp_path))
    assert before == weights_hash("pi0", str(tmp_path)) != ""
    assert weights_hash("onnx", str(weights)) not in ("", before)
    weights.write_bytes(b"two")
    assert weights_hash("pi0", str(tmp_path)) != before

    assert weights_hash("pi0", "") != ""
    assert weights_hash("scripted", "") == ""
    words = ("--policy", "pi0", "--path", str(tmp_path))
    assert {cell.weights for cell in bench_seams.plan_cells(options(*words))} == {
        weights_hash("pi0", str(tmp_path))
    }


def test_every_cell_is_planned_once_and_modes_share_their_seed() -> None:
    cells = bench_seams.plan_cells(options("--episodes", "3", "--seed", "7"))
    assert len(cells) == len(set(cells)) == 6 * 5 * 3
    assert {(cell.episodes, cell.seed) for cell in cells} == {(3, 7)}
    few = bench_seams.plan_cells(options("--modes", "rtc", "--delays", "1", "--tasks", "peg"))
    assert [(cell.mode, cell.delay_ticks, cell.task) for cell in few] == [("rtc", 1, "peg")]


def test_the_summary_takes_the_mean_of_tasks_and_the_worst_of_jumps(tmp_path: Path) -> None:
    rows = [
        row(task="lift", success=1.0, boundary_jump_ratio=2.0, underflows=1.0),
        row(task="peg", success=0.5, boundary_jump_ratio=None, underflows=2.0),
        row(mode="rtc", kind="skipped", reason="cannot"),
    ]
    summary = bench_seams.summarise(rows)

    assert summary["success"] == {"naive": {"0": 0.75}}
    assert summary["boundary_jump_ratio"] == {"naive": {"0": 2.0}}
    assert summary["underflows"] == {"naive": {"0": 3.0}}
    assert summary["prefix_mismatch"] == {"naive": {"0": None}}
    assert summary["skipped"] == {"rtc": "cannot"}
    assert plot_seams(rows, tmp_path / "seams.png").stat().st_size > 10_000


def test_a_quick_run_prints_its_summary_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quick", "--policy", "scripted", "--modes", "naive", "rtc", "--delays", "0", "2")
    assert cli.main(["bench", "seams", *words, "--jobs", "1", "--out", str(tmp_path)]) == 0

    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(summary["success"]["naive"]) == {"0", "2"}
    assert set(summary["skipped"]) == {"rtc"}
    assert summary["soak"]["underflows"] == 0
    assert Path(summary["figure"]).is_file()
    lines = Path(summary["rows"]).read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"cell", "skipped", "soak"}


def test_jerk_of_a_cubic_is_constant() -> None:
    time_s = 0.1 * np.arange(10)
    positions = np.stack([2.0 * time_s**3, time_s, np.ones(10)], axis=1)
    assert jerks_m_per_s3(positions, 0.1) == pytest.approx(np.full(7, 12.0))


def test_wilson_interval_agrees_with_published_values() -> None:
    # Newcombe 1998, table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_what_is_not_a_number_is_null_in_json() -> None:
    assert jsonable(float("nan")) is None
    assert jsonable(float("inf")) is None
    assert jsonable(0.12345678) == 0.123457
    assert jsonable("naive") == "naive"
