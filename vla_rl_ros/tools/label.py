# SPDX-License-Identifier: Apache-2.0
"""`vla-rl-ros label`: frames of recorded episodes with the word success or failure.

Labels follow from how an episode ended, from the operator's buttons in the recording, or from the
simulator where it was recorded; a person corrects them in the browser or the terminal.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.data.label_rules import Label, LabelRules, labels_of, pick
from vla_rl_ros.data.label_set import LabelSet, is_label_set
from vla_rl_ros.data.label_time import LabelTime, note, noted
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.tools.argument_types import count_or_none, port, positive
from vla_rl_ros.tools.label_source import LeftOut, recorded_or_simulated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vla_rl_ros.data.label_frames import EpisodeFrames
    from vla_rl_ros.data.label_rules import LabelArray
    from vla_rl_ros.learning.classifier_model import SuccessModel

_VIEWS = ("browser", "terminal", "none")


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 - argparse keeps the type private
    """Add `label` to a command line."""
    parser = subparsers.add_parser(
        "label",
        help="label frames of recorded episodes",
        description="Take frames around the end of recorded episodes and along them, label them "
        "by outcome and operator's buttons, and let a person correct that in the browser (keys s, "
        "f, x). The same command goes on where it was stopped. A bag that cannot be read or "
        "labelled is named, left out and counted. Prints one JSON line last.",
    )
    parser.add_argument(
        "bags", type=Path, nargs="*", metavar="BAG",
        help="bags, or folders with bags at any depth; none to look through --out again",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="directory of the label set")
    parser.add_argument("--task", default="", help="take the episodes of this task only")
    parser.add_argument(
        "--cameras", nargs="+", default=list(CAMERAS), help="(default: %(default)s)"
    )
    parser.add_argument("--rate", type=positive, default=10.0, help="frames looked at per second")
    parser.add_argument(
        "--from-truth", action="store_true",
        help="label by the simulator's word, not by outcome; bags without it are left out",
    )  # fmt: skip
    parser.add_argument(
        "--simulate", metavar="TASK", default="",
        help="make episodes in the fast simulator instead of reading bags",
    )  # fmt: skip
    parser.add_argument(
        "--variant", metavar="NAME", default="default",
        help="difficulty of the simulated scene (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--episodes",
        type=count_or_none,
        default=40,
        help="to simulate with the policy (default: 40)",
    )
    parser.add_argument(
        "--staged", type=count_or_none, default=0, metavar="N",
        help="to simulate that fail while they look like success (default: 0)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first of them (default: 0)")
    parser.add_argument(
        "--positives", type=int, default=6, help="frames of success per episode (default: 6)"
    )
    parser.add_argument(
        "--negatives", type=int, default=10, help="other frames per episode (default: 10)"
    )
    parser.add_argument(
        "--most-positives", type=int, default=200, help="frames of success in the set"
    )
    parser.add_argument("--most-negatives", type=int, default=1000, help="other frames in the set")
    parser.add_argument(
        "--hard-first", type=Path, metavar="CLASSIFIER",
        help="take the frames that this classifier gets wrong first",
    )  # fmt: skip
    parser.add_argument(
        "--view", choices=_VIEWS, default="none", help="where to correct labels (default: none)"
    )
    parser.add_argument("--port", type=port, default=0, help="of the browser's page; 0 for any")
    parser.add_argument("--who", default="", help="name noted with corrections (default: login)")
    parser.set_defaults(run=run_label)


def run_label(arguments: argparse.Namespace) -> int:
    """Run `label`; returns the exit code."""
    if arguments.simulate and arguments.bags:
        raise ConfigError("--simulate makes its own episodes: leave the bags out")
    if arguments.simulate and not (arguments.episodes or arguments.staged):
        raise ConfigError("--episodes 0 and --staged 0: there is nothing to simulate")
    if not (arguments.simulate or arguments.bags or is_label_set(arguments.out)):
        raise ConfigError(
            f"--out {arguments.out} is no label set yet: name bags to take frames of, or a task "
            "with --simulate"
        )
    left_out = LeftOut()
    labels = (
        _collect(arguments, left_out)
        if arguments.bags or arguments.simulate
        else LabelSet(arguments.out)
    )
    if arguments.view != "none":
        view(labels, arguments.who or getpass.getuser(), arguments.view, arguments.port)
    figures = {
        "labels": str(labels.directory),
        "task": labels.task,
        "episodes": len(labels.episodes),
        **labels.counts(),
        "by": _speakers(labels),
        "left_out": left_out.count,
        "labelling_s": round(sum(time.labelling_s for time in noted(labels.directory)), 1),
    }
    print(json.dumps(figures), flush=True)
    return 0


def view(labels: LabelSet, who: str, where: str, port: int) -> None:
    """Let a person correct labels, and note how long that took him.

    Args:
        labels: To look at and to write to.
        who: His name.
        where: ``browser`` or ``terminal``.
        port: Of the browser's page, 0 for any.
    """
    from vla_rl_ros.tools.label_clock import LabelClock, LedgerReport
    from vla_rl_ros.tools.label_viewer import Review, view_in_browser, view_in_terminal

    begin = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = LedgerReport()
    clock = LabelClock(report)
    review = Review(labels, who, clock.touch)
    try:
        with clock:
            if where == "browser":
                view_in_browser(review, port)
            else:
                view_in_terminal(review, sys.stdin, sys.stderr)
    finally:
        report.close()
        time = LabelTime(
            who=who, begin=begin, labelling_s=clock.labelling_s, ledger_s=clock.ledger_s
        )
        note(labels.directory, time)


def _collect(arguments: argparse.Namespace, left_out: LeftOut) -> LabelSet:
    from tqdm import tqdm

    rules = LabelRules(
        source="truth" if arguments.from_truth else "outcome",
        positives=arguments.positives,
        negatives=arguments.negatives,
    )
    model = _model(arguments.hard_first)
    labels: LabelSet | None = None
    with tqdm(desc="label", unit="episode", mininterval=0.5) as bar:
        for frames in recorded_or_simulated(arguments, left_out):
            if labels is None:
                labels = LabelSet(arguments.out, frames.task, arguments.cameras)
            if frames.task != labels.task:
                raise ConfigError(
                    f"{frames.source} is an episode of '{frames.task}', the set is about "
                    f"'{labels.task}': choose with --task"
                )
            try:
                add_episode(
                    labels,
                    frames,
                    rules,
                    model,
                    arguments.most_positives,
                    arguments.most_negatives,
                )
            except BagError as error:
                left_out.tell(error)
            bar.update()
            bar.set_postfix(labels.counts(), refresh=False)
    if labels is None and is_label_set(arguments.out):
        labels = LabelSet(arguments.out)
    if labels is None or not labels.episodes:
        raise BagError(_no_episode(arguments.task, left_out.count))
    return labels


def _no_episode(task: str, num_left_out: int) -> str:
    """Why nothing was labelled."""
    of_task = f" of '{task}'" if task else ""
    told = f"no bag gave an episode{of_task}"
    if num_left_out:
        told += f"; {num_left_out} left out, see above"
    return f"{told}: name other bags" + (", or leave --task out" if task else "")


def add_episode(
    labels: LabelSet,
    frames: EpisodeFrames,
    rules: LabelRules,
    model: SuccessModel | None,
    most_positives: int,
    most_negatives: int,
) -> None:
    """Label an episode and keep what is worth it; one that is known already stays as it is."""
    if frames.episode in labels.episodes:
        return
    found = labels_of(frames, rules)
    asked = [mark.stamp_ns for mark in frames.marks if mark.name == "mark"]
    chosen = pick(found, rules, _hardness(model, frames, found))
    for stamp_ns in asked:
        # Nobody has said what it shows: it waits for the viewer.
        index = int(np.abs(frames.stamps_ns - stamp_ns).argmin())
        if index not in chosen:
            found[index] = Label.SKIP.value
            chosen = np.sort(np.append(chosen, index))
    counts = labels.counts()
    keep = np.ones(len(chosen), dtype=bool)
    for label, most in ((Label.SUCCESS, most_positives), (Label.FAILURE, most_negatives)):
        mine = np.flatnonzero(found[chosen] == label.value)
        keep[mine[max(0, most - counts[label.value]) :]] = False
    chosen = chosen[keep]
    labels.add(frames.chosen(chosen), found[chosen], rules.source)


def _hardness(
    model: SuccessModel | None, frames: EpisodeFrames, labels: LabelArray
) -> NDArray[np.float64] | None:
    if model is None:
        return None
    is_success = labels == Label.SUCCESS.value
    wrong: NDArray[np.float64] = np.abs(is_success - model.probabilities(frames.images))
    return wrong


def _model(directory: Path | None) -> SuccessModel | None:
    if directory is None:
        return None
    from vla_rl_ros.learning.classifier_model import SuccessModel

    return SuccessModel(directory)


def _speakers(labels: LabelSet) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in labels.words:
        found[word.who] = found.get(word.who, 0) + 1
    return found
