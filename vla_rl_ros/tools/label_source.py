# SPDX-License-Identifier: Apache-2.0
"""Where `vla-rl-ros label` and `train eyes` take episodes from: bags, or the fast simulator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vla_rl_ros.core.errors import BagError
from vla_rl_ros.core.teleop_config import BUTTONS
from vla_rl_ros.data.label_set import LabelSet, is_label_set
from vla_rl_ros.ros.graph import CAMERAS

if TYPE_CHECKING:
    from vla_rl_ros.data.label_frames import EpisodeFrames


@dataclass(slots=True)
class LeftOut:
    """Bags that gave nothing.

    Attributes:
        command: Who leaves them out.
        count: Their number.
    """

    command: str = "label"
    count: int = 0

    def tell(self, error: BagError) -> None:
        """Count a bag and say why."""
        self.count += 1
        print(f"[{self.command}] left out: {error}", file=sys.stderr)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Tell of a BagError inside, and go on behind the block."""
        try:
            yield
        except BagError as error:
            self.tell(error)


def recorded_or_simulated(
    arguments: argparse.Namespace, left_out: LeftOut
) -> Iterator[EpisodeFrames]:
    """Frames of the episodes that the arguments of `label` name, without those the set has."""
    known = LabelSet(arguments.out).episodes if is_label_set(arguments.out) else ()
    if arguments.simulate:
        yield from _simulated(arguments, set(known))
        return
    from vla_rl_ros.data.bag_search import find_bags

    yield from recorded(
        find_bags(arguments.bags, left_out.tell),
        arguments.cameras,
        left_out,
        task=arguments.task,
        known=known,
        rate_hz=arguments.rate,
        buttons=BUTTONS,
    )


def recorded(
    bags: Iterable[Path],
    cameras: Sequence[str],
    left_out: LeftOut,
    *,
    task: str = "",
    known: Collection[str] = (),
    rate_hz: float = 10.0,
    buttons: Sequence[str] = (),
) -> Iterator[EpisodeFrames]:
    """Frames of every bag that can be read.

    Args:
        bags: As `find_bags` gives them.
        cameras: Whose images are wanted.
        left_out: Is told of the other bags.
        task: The episodes of this one only; of any if empty.
        known: Episodes that nobody needs again.
        rate_hz: Frames per second to keep at most.
        buttons: Names of the operator's buttons, in order.
    """
    for path in bags:
        frames = None
        with left_out.noting():
            frames = _read(path, cameras, task, known, rate_hz=rate_hz, buttons=buttons)
        if frames is not None:
            yield frames


def _read(
    path: Path,
    cameras: Sequence[str],
    task: str,
    known: Collection[str],
    *,
    rate_hz: float,
    buttons: Sequence[str],
) -> EpisodeFrames | None:
    """Frames of a bag, None where it is of another task or known; every failure is a BagError."""
    from vla_rl_ros.data.bag_reader import Bag
    from vla_rl_ros.data.label_frames import read_frames

    try:
        record = Bag(path).metadata("episode")
        is_wanted = not task or record.get("task", "") == task
        if not is_wanted or record.get("id", "") in known:
            return None
        return read_frames(path, cameras, rate_hz=rate_hz, buttons=buttons)
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
