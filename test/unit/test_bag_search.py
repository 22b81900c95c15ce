# SPDX-License-Identifier: Apache-2.0
"""Where commands find the bags that a person names by a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unit.bag_samples import make_bag, make_partial

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_search import find_bags
from vla_rl_ros.tools.cli import main


def bag_at(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or (f"{folder.name}_0.mcap",):
        (folder / name).touch()
    return folder


def test_bags_of_a_run_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    later = bag_at(tmp_path / "out/2_demo/bags/e1")
    failed = bag_at(tmp_path / "out/1_demo/bags/failed/e0")
    earlier = bag_at(tmp_path / "out/1_demo/bags/e2")
    assert find_bags([tmp_path / "out"]) == [earlier, failed, later]
    assert find_bags([later, tmp_path / "out"]) == [later, earlier, failed]


def test_nothing_within_a_bag_is_another_bag(tmp_path: Path) -> None:
    bag = bag_at(tmp_path / "e1")
    bag_at(bag / "copy")
    assert find_bags([tmp_path]) == [bag]
    assert find_bags([bag]) == [bag]


def test_files_side_by_side_are_a_bag_each(tmp_path: Path) -> None:
    folder = bag_at(tmp_path / "copied", "b.mcap", "a.mcap")
    assert find_bags([tmp_path]) == [folder / "a.mcap", folder / "b.mcap"]
    assert find_bags([folder / "b.mcap"]) == [folder / "b.mcap"]


def test_a_file_that_lies_beside_bags_hides_none_of_them(tmp_path: Path) -> None:
    first, second = bag_at(tmp_path / "out/bags/e1"), bag_at(tmp_path / "out/bags/deep/e2")
    stray = tmp_path / "out/bags/copy.mcap"
    stray.touch()
    assert find_bags([tmp_path]) == [stray, second, first]


def test_a_folder_that_cannot_be_looked_into_is_told_of_and_the_others_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bag(tmp_path / "b", 10)
    (tmp_path / "a").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path) == tmp_path / "a":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told: list[BagError] = []
    assert find_bags([tmp_path], told.append) == [tmp_path / "b"]
    assert [str(each) for each in told] == [
        f"{tmp_path}/a cannot be looked into: Permission denied"
    ]
    # What was named itself, and where nobody can be told, is an error.
    for paths, hear in (([tmp_path / "a"], told.append), ([tmp_path], None)):
        with pytest.raises(BagError, match="cannot be looked into"):
            find_bags(paths, hear)
    assert main(["bag", "info", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "a cannot be looked into" in said.err
    assert f"{tmp_path}/b\n" in said.out


def test_a_bag_named_by_its_folder_and_by_its_file_is_one(tmp_path: Path) -> None:
    bag = bag_at(tmp_path / "e1")
    file = bag / "e1_0.mcap"
    assert find_bags([bag, file]) == [bag]
    assert find_bags([file, tmp_path]) == [file]


def test_the_folder_in_which_one_stands_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag_at(tmp_path / "run/e1")
    monkeypatch.chdir(tmp_path)
    assert find_bags([Path()]) == [Path("run/e1")]
    monkeypatch.chdir(tmp_path / "run/e1")
    assert find_bags([Path()]) == [Path()]


def test_links_are_followed_once_though_they_lead_back(tmp_path: Path) -> None:
    bag = bag_at(tmp_path / "elsewhere/e1")
    runs = tmp_path / "runs"
    (runs / "deep").mkdir(parents=True)
    (runs / "a").symlink_to(bag.parent)
    (runs / "b").symlink_to(bag.parent)
    (runs / "deep/back").symlink_to(runs)
    assert find_bags([runs]) == [runs / "a/e1"]


def test_bags_that_are_being_repaired_are_no_bags_and_cut_off_ones_are(tmp_path: Path) -> None:
    bag_at(tmp_path / "e1.recovering")
    cut_off = bag_at(tmp_path / "e1.partial")
    assert find_bags([tmp_path]) == [cut_off]
    assert find_bags([tmp_path / "e1"]) == [cut_off]


def test_where_there_is_none_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty/folder").mkdir(parents=True)
    bag = bag_at(tmp_path / "e1")
    with pytest.raises(BagError, match=rf"no bag in {tmp_path}/empty or a folder below it"):
        find_bags([bag, tmp_path / "empty"])
    with pytest.raises(BagError, match=rf"{tmp_path}/nothing: there is no such"):
        find_bags([tmp_path / "nothing"])


def test_a_bag_whose_file_is_gone_is_told_of_and_the_others_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bag(tmp_path / "b", 10)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a_0.mcap").symlink_to(tmp_path / "nothing.mcap")
    assert main(["bag", "info", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "a/a_0.mcap is no file, or a link to one that is gone" in told.err
    assert f"{tmp_path}/b\n" in told.out


def test_the_command_mends_all_bags_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_partial(tmp_path / "run/bags/a", 10)
    make_bag(tmp_path / "run/bags/b", 10)
    assert main(["bag", "recover", str(tmp_path)]) == 0
    assert main(["bag", "info", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "run/bags/a: 30 messages" in told
    assert f"{tmp_path}/run/bags/b\n" in told
