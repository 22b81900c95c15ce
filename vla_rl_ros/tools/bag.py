# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros bag info|check|human|recover`: look at recorded episodes and mend them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.data.bag_check import BagReport, check
from vla_rl_ros.data.bag_reader import Bag
from vla_rl_ros.data.bag_search import find_bags
from vla_rl_ros.data.human_count import control_period_s, count_bags, total
from vla_rl_ros.data.label_time import noted
from vla_rl_ros.data.recover import recover
from vla_rl_ros.ros.graph import TOPICS


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `bag` and its sub-commands to a command line."""
    parser = subparsers.add_parser("bag", help="look at recorded episodes and repair them")
    commands = parser.add_subparsers(dest="bag_command", required=True)
    for name, run, text in (
        ("info", _info, "episode, provenance and topics of a bag"),
        ("check", _check, "say what is wrong; exit code 1 if anything is"),
        ("human", _human, "count who drove, compare with the ledger; exit code 1 if it differs"),
        ("recover", _recover, "complete bags whose recorder was killed"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "paths",
            type=Path,
            nargs="+",
            metavar="path",
            help="a bag, or a folder with bags at any depth",
        )
        command.set_defaults(run=run)
        if name == "human":
            command.add_argument(
                "--labels", type=Path, nargs="+", default=[], metavar="DIR",
                help="label sets whose noted time of labelling is counted, too",
            )  # fmt: skip


def _info(arguments: argparse.Namespace) -> int:
    def show(path: Path) -> bool:
        bag = Bag(path)
        report = check(path)
        print(f"{path}\n  {_size(report)}")
        for name in ("episode", "human", "provenance", "recovery"):
            values = bag.metadata(name)
            if values:
                print(f"  {name}: " + ", ".join(f"{k}={v}" for k, v in values.items() if v))
        nodes = [name for name in bag.metadata("parameters") if name.startswith("/")]
        if nodes:
            print(f"  parameters of: {', '.join(nodes)}")
        for topic in report.topics:
            rate = f"{topic.rate_hz:8.1f} Hz  gap {topic.max_gap_s:6.3f} s"
            print(f"  {topic.name:24} {topic.type:38} {topic.num_messages:7} {rate}")
        return True

    return _for_each(arguments.paths, show)


def _check(arguments: argparse.Namespace) -> int:
    required = [topic.name for topic in TOPICS]

    def show(path: Path) -> bool:
        report = check(path, required)
        print(f"{path}: {_size(report)}: {'; '.join(report.problems) or 'sound'}")
        return not report.problems

    return _for_each(arguments.paths, show)


def _human(arguments: argparse.Namespace) -> int:
    try:
        bags = find_bags(arguments.paths)
        counts, period_s = count_bags(bags), control_period_s(bags[0])
        times = [time for path in arguments.labels for time in noted(path)]
    except (BagError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    for count in counts:
        rows = count.rows
        print(
            f"{count.bag}: {rows.ticks} ticks, {rows.human_ticks} human, "
            f"{rows.interventions} interventions; {count.verdict}"
        )
    figures = total(counts, period_s, times)
    print(json.dumps(figures))
    return 0 if figures["agrees"] else 1


def _recover(arguments: argparse.Namespace) -> int:
    def show(path: Path) -> bool:
        result = recover(path)
        if result.was_complete:
            print(f"{result.directory}: complete already")
            return True
        print(
            f"{result.directory}: {result.num_messages} messages, "
            f"{result.num_cut_bytes} bytes cut off, {result.num_damaged_chunks} damaged chunks"
        )
        return True

    return _for_each(arguments.paths, show)


def _for_each(paths: Sequence[Path], show: Callable[[Path], bool]) -> int:
    left_out: list[BagError] = []
    try:
        bags = find_bags(paths, left_out.append)
    except BagError as error:
        print(error, file=sys.stderr)
        return 1
    for refusal in left_out:
        print(refusal, file=sys.stderr)
    results = [_attempt(bag, show) for bag in bags]
    return 0 if all(results) and not left_out else 1


def _attempt(path: Path, show: Callable[[Path], bool]) -> bool:
    try:
        return show(path)
    except BagError as error:
        print(error, file=sys.stderr)
        return False


def _size(report: BagReport) -> str:
    return (
        f"{report.duration_s:.1f} s, {report.num_messages} messages, "
        f"{report.num_bytes / 2**20:.1f} MiB"
    )
