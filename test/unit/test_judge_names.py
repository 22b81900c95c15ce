# SPDX-License-Identifier: Apache-2.0
"""The names behind the codes of judges in rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from unit.row_samples import LAYOUT, episode

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.verdict import GROUND_TRUTH, OPERATOR, judge_code
from vla_rl_ros.learning.judge_names import FILE_NAME, JudgeNames
from vla_rl_ros.learning.replay import Replay


def test_names_outlive_the_process_that_noted_them(tmp_path: Path) -> None:
    JudgeNames(tmp_path / "replay").note(GROUND_TRUTH, "")
    JudgeNames(tmp_path / "replay").note(OPERATOR)
    names = JudgeNames(tmp_path / "replay")
    assert set(names) == {GROUND_TRUTH, OPERATOR}
    assert names.name(judge_code(OPERATOR)) == OPERATOR
    assert names.name(0) == ""


def test_two_judges_that_rows_cannot_tell_apart_are_both_named(tmp_path: Path) -> None:
    numbered = (f"classifier {number} lift" for number in itertools.count())
    other = next(name for name in numbered if judge_code(name) == judge_code(OPERATOR))
    names = JudgeNames(tmp_path)
    for judge in (OPERATOR, other, other, OPERATOR):
        names.note(judge)
    assert set(JudgeNames(tmp_path)) == {f"operator or {other}"}


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": "operator"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError, match=FILE_NAME):
        JudgeNames(tmp_path)


def test_rows_of_before_are_read_and_were_judged_by_nobody_known(tmp_path: Path) -> None:
    older = np.dtype(
        [
            ("pad", "u1", (2 + LAYOUT.dtype["pad"].itemsize,)) if name == "judge" else (name, kind)
            for name, kind in ((name, LAYOUT.dtype[name]) for name in LAYOUT.dtype.names)
            if name != "pad"
        ]
    )
    assert older.itemsize == LAYOUT.dtype.itemsize
    rng = np.random.default_rng(0)
    rows = LAYOUT.pack(episode(rng, [0.0, 1.0], number=0, end="terminated"))
    with_names = Replay(tmp_path, LAYOUT, n_step=1, gamma=0.9)
    with_names.append(rows)
    with_names.close()
    before = np.fromfile(tmp_path / "rows.bin", older, count=len(rows))
    assert before["pad"].sum() == 0
    for name in ("obs", "rewards", "source", "flags", "tick", "episode", "stamp_ns"):
        assert np.array_equal(before[name], rows[name])
    assert set(before.view(LAYOUT.dtype)["judge"]) == {0}
