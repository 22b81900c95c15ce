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
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.core.teleop import BUTTONS
from vla_rl_ros.data.label_rules import Label, LabelRules, labels_of, pick
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.ros.graph import CAMERAS

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
        help="bags, or folders of bags; none to look through --out again",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="directory of the label set")
    parser.add_argument("--task", default="", help="take the episodes of this task only")
    parser.add_argument(
        "--cameras", nargs="+", default=list(CAMERAS), help="(default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=10.0, help="frames looked at per second")
    parser.add_argument(
        "--from-truth", action="store_true",
        help="label by the simulator's word, not by outcome; bags without it are left out",
    )  # fmt: skip
    parser.add_argument(
        "--simulate", metavar="TASK", default="",
        help="make episodes in the fast simulator instead of reading bags",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", type=int, default=40, help="to simulate with the policy (default: 40)"
    )
    parser.add_argument(
        "--staged", type=int, default=0, metavar="N",
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
    parser.add_argument("--port", type=int, default=0, help="of the browser's page; 0 for any")
    parser.add_argument("--who", default="", help="name noted with corrections (default: login)")
    parser.set_defaults(run=run_label)


def run_label(arguments: argparse.Namespace) -> int:
    """Run `label`; returns the exit code."""
    if arguments.simulate and arguments.bags:
        raise ConfigError("--simulate makes its own episodes: leave the bags out")
    left_out = _LeftOut()
    labels = (
        _collect(arguments, left_out)
        if arguments.bags or arguments.simulate
        else LabelSet(arguments.out)
    )
    who = arguments.who or getpass.getuser()
    if arguments.view == "browser":
        from vla_rl_ros.tools.label_viewer import view_in_browser

        view_in_browser(labels, who, arguments.port)
    elif arguments.view == "terminal":
        from vla_rl_ros.tools.label_viewer import view_in_terminal

        view_in_terminal(labels, who, sys.stdin, sys.stderr)
    figures = {
        "labels": str(labels.directory),
        "task": labels.task,
        "episodes": len(labels.episodes),
        **labels.counts(),
        "by": _speakers(labels),
        "left_out": left_out.count,
    }
    print(json.dumps(figures), flush=True)
    return 0


@dataclass(slots=True)
class _LeftOut:
    """Bags that gave nothing."""

    count: int = 0

    def tell(self, error: BagError) -> None:
        self.count += 1
        print(f"[label] left out: {error}", file=sys.stderr)


def _collect(arguments: argparse.Namespace, left_out: _LeftOut) -> LabelSet:
    from tqdm import tqdm

    rules = LabelRules(
        source="truth" if arguments.from_truth else "outcome",
        positives=arguments.positives,
        negatives=arguments.negatives,
    )
    model = _model(arguments.hard_first)
    labels: LabelSet | None = None
    with tqdm(desc="label", unit="episode", mininterval=0.5) as bar:
        for frames in _source(arguments, left_out):
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
    if labels is None:
        return LabelSet(arguments.out)
    return labels


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


def _source(arguments: argparse.Namespace, left_out: _LeftOut) -> Iterator[EpisodeFrames]:
    known = LabelSet(arguments.out).episodes if (arguments.out / "label_set.json").exists() else ()
    if arguments.simulate:
        yield from _simulated(arguments, set(known))
        return
    from vla_rl_ros.data.bag_check import find_bags

    bags = [
        bag for path in arguments.bags for bag in (find_bags(path) if path.is_dir() else [path])
    ]
    for path in bags:
        try:
            frames = _read(path, arguments, known)
        except BagError as error:
            left_out.tell(error)
            continue
        if frames is not None:
            yield frames


def _read(
    path: Path, arguments: argparse.Namespace, known: Collection[str]
) -> EpisodeFrames | None:
    """Frames of a bag, None where it is of another task or known; every failure is a BagError."""
    from vla_rl_ros.data.bag_reader import Bag
    from vla_rl_ros.data.label_frames import read_frames

    try:
        record = Bag(path).metadata("episode")
        is_wanted = not arguments.task or record.get("task", "") == arguments.task
        if not is_wanted or record.get("id", "") in known:
            return None
        return read_frames(path, arguments.cameras, rate_hz=arguments.rate, buttons=BUTTONS)
    except BagError:
        raise
    except Exception as error:
        # Of a damaged file the packages that read it can say anything.
        raise BagError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _simulated(arguments: argparse.Namespace, known: set[str]) -> Iterator[EpisodeFrames]:
    from vla_rl_ros.learning.classifier_episodes import EpisodeMaker, episode_name, episodes
    from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicySettings, make_policy
    from vla_rl_ros.sim.tasks import task_by_name

    task = task_by_name(arguments.simulate)
    maker = EpisodeMaker(task, None)
    maker.policy = make_policy(
        "pi0",
        PolicySettings(device="cpu"),
        PolicyEnvironment(control_period_s=maker.sim.spec.control_period_s, cameras=CAMERAS),
    )
    for kind, seed in episodes(maker, arguments.episodes, arguments.staged, arguments.seed):
        if episode_name(task, kind, seed) not in known:
            yield maker.play(kind, seed)
    maker.close()


def _speakers(labels: LabelSet) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in labels.words:
        found[word.who] = found.get(word.who, 0) + 1
    return found
