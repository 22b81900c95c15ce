# SPDX-License-Identifier: Apache-2.0
"""Where `vla-rl-ros label` takes episodes from: bags, or the fast simulator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.core.teleop_config import BUTTONS
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.ros.graph import CAMERAS

if TYPE_CHECKING:
    from vla_rl_ros.data.label_frames import EpisodeFrames


@dataclass(slots=True)
class LeftOut:
    """Bags that gave nothing."""

    count: int = 0

    def tell(self, error: BagError) -> None:
        """Count a bag and say why."""
        self.count += 1
        print(f"[label] left out: {error}", file=sys.stderr)


def recorded_or_simulated(
    arguments: argparse.Namespace, left_out: LeftOut
) -> Iterator[EpisodeFrames]:
    """Frames of the episodes that the arguments of `label` name, without those the set has."""
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
    maker = EpisodeMaker(task, None, arguments.variant)
    maker.policy = make_policy(
        "pi0",
        PolicySettings(device="cpu"),
        PolicyEnvironment(control_period_s=maker.sim.spec.control_period_s, cameras=CAMERAS),
    )
    for kind, seed in episodes(maker, arguments.episodes, arguments.staged, arguments.seed):
        if episode_name(task, kind, seed, arguments.variant) not in known:
            yield maker.play(kind, seed)
    maker.close()
