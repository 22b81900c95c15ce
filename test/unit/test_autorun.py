# SPDX-License-Identifier: Apache-2.0
"""A supervisor that was killed does not run its series of episodes twice."""

from __future__ import annotations

from pathlib import Path

from vla_rl_ros.ros.autorun import AutorunLedger


def test_a_new_supervisor_goes_on_counting(tmp_path: Path) -> None:
    ledger = AutorunLedger(str(tmp_path))
    ledger.begin()
    ledger.begin()
    assert AutorunLedger(str(tmp_path)).num_begun == 2


def test_without_a_launcher_the_count_lives_in_memory(tmp_path: Path) -> None:
    ledger = AutorunLedger("")
    ledger.begin()
    assert ledger.num_begun == 1
    assert AutorunLedger("").num_begun == 0
