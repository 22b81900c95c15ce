# SPDX-License-Identifier: Apache-2.0
"""Ports that a killed process left half made, and only they, are removed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from vla_rl_ros.ros.unborn_ports import remove_unborn_ports

NOW_S = 1_000_000.0


def leave(folder: Path, name: str, *, state: int, age_s: float) -> None:
    path = folder / name
    path.write_bytes(state.to_bytes(4, "little") + bytes(60))
    os.utime(path, (NOW_S - age_s, NOW_S - age_s))


def test_only_old_ports_that_are_not_whole_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path, "fastdds_port7010", state=0, age_s=60.0)
    leave(tmp_path, "fastrtps_port7011", state=1, age_s=60.0)
    leave(tmp_path, "fastdds_port7012", state=2, age_s=60.0)
    leave(tmp_path, "fastdds_port7013", state=0, age_s=1.0)
    leave(tmp_path, "fastdds_0123456789abcdef", state=0, age_s=60.0)
    for name in ("sem.fastdds_port7010_mutex", "sem.fastdds_port7012_mutex"):
        (tmp_path / name).touch()
    assert remove_unborn_ports(tmp_path, NOW_S) == ["fastdds_port7010", "fastrtps_port7011"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fastdds_0123456789abcdef",
        "fastdds_port7012",
        "fastdds_port7013",
        "sem.fastdds_port7012_mutex",
    ]
    assert "fastdds_port7010, which a process that was killed" in capsys.readouterr().err


def test_a_port_of_somebody_else_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path, "fastdds_port7010", state=0, age_s=60.0)

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "unlink", refused)
    assert remove_unborn_ports(tmp_path, NOW_S) == []
    said = capsys.readouterr().err
    assert f"rm {tmp_path}/fastdds_port7010 {tmp_path}/sem.fastdds_port7010_mutex" in said


def test_a_port_that_somebody_else_has_put_in_its_place_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "fastdds_port7010", state=0, age_s=60.0)

    def overtaken(*_: object) -> None:
        # Another process of the graph has removed it and made its own.
        (tmp_path / "fastdds_port7010").unlink()
        leave(tmp_path, "fastdds_port7010", state=2, age_s=0.0)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    assert remove_unborn_ports(tmp_path, NOW_S) == []
    assert (tmp_path / "fastdds_port7010").exists()


def test_there_may_be_no_shared_memory(tmp_path: Path) -> None:
    assert remove_unborn_ports(tmp_path / "none", NOW_S) == []
