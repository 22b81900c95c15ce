# SPDX-License-Identifier: Apache-2.0
"""A supervisor that was killed does not run its series of episodes twice."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from vla_rl_ros.ros.autorun import FILE_NAME, AutorunLedger


def ledger_in(folder: Path | str, said: list[str] | None = None) -> AutorunLedger:
    def warn(sentence: str) -> None:
        if said is None:
            raise AssertionError(sentence)
        said.append(sentence)

    return AutorunLedger(warn, str(folder))


def test_a_new_supervisor_goes_on_counting(tmp_path: Path) -> None:
    ledger = ledger_in(tmp_path)
    ledger.begin()
    ledger.begin()
    assert ledger_in(tmp_path).num_begun == 2


def test_without_a_launcher_the_count_lives_in_memory() -> None:
    ledger = ledger_in("")
    ledger.begin()
    assert ledger.num_begun == 1
    assert ledger_in("").num_begun == 0


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_full_disk_is_told_and_stops_no_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    said: list[str] = []
    ledger = ledger_in(tmp_path, said)
    ledger.begin()
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, step, full)
        ledger.begin()
    assert ledger.num_begun == 2
    [sentence] = said
    assert "No space left on device" in sentence
    assert "2, is not written down" in sentence
    # What was written before is still whole, and with room again the count is right.
    assert ledger_in(tmp_path).num_begun == 1
    ledger.begin()
    assert ledger_in(tmp_path).num_begun == 3


@pytest.mark.parametrize("left", [b"", b"three", b"\xff"])
def test_a_damaged_count_is_told_and_stops_no_supervisor(tmp_path: Path, left: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(left)
    said: list[str] = []
    assert ledger_in(tmp_path, said).num_begun == 0
    assert len(said) == 1
    assert FILE_NAME in said[0]
