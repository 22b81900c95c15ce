# SPDX-License-Identifier: Apache-2.0
"""What every camera saw in one episode, at a steady rate, and what is known of its end.

The common ground of labelling: recordings become `EpisodeFrames` here, the fast simulator makes
them in `learning/classifier_episodes.py`. Reads bags without ROS. Called by `vla-rl-ros label`
and `vla-rl-ros train eyes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.episode import Outcome, Phase
from vla_rl_ros.core.errors import BagError
from vla_rl_ros.data.bag_reader import Bag, BagMessage, read_channels, read_poses
from vla_rl_ros.data.metadata import NS_PER_S, is_safe_name

StampArray = NDArray[np.int64]
ImageStack = NDArray[np.uint8]

STATE_NAMES = ("tcp.x_m", "tcp.y_m", "tcp.z_m", "gripper.width_m")
"""Measured with every frame, for checks of the state beside the image."""
_MAX_GAP_S = 0.1
_IMAGE_TOPIC = "/camera/{}/image"
_JOY, _OUTCOME, _STATE, _TRUTH = (
    "/teleop/joy",
    "/episode/outcome",
    "/episode/state",
    "/sim/success",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A button an operator pressed.

    Attributes:
        stamp_ns: When.
        name: ``success``, ``failure`` or ``mark``.
    """

    stamp_ns: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeFrames:
    """One episode as the cameras saw it.

    Attributes:
        episode: Name, unique and fit for a file name.
        task: What was to be done.
        source: The bag, or how the episode can be made again.
        kind: What sort of episode: ``policy``, or the name of a staged failure.
        outcome: How it ended, None where nobody said.
        stamps_ns: Of the frames, rising, shape (n,).
        images: RGB by camera, shape (n, h, w, 3).
        states: Channels of `STATE_NAMES`, NaN where unknown, shape (n, 4).
        start_ns: When the policy began to drive.
        end_ns: When the outcome was decided.
        truth: Whether the task was solved, shape (n,); None where nobody knows.
        marks: What the operator pressed.
    """

    episode: str
    task: str
    source: str
    kind: str = "policy"
    outcome: Outcome | None
    stamps_ns: StampArray
    images: Mapping[str, ImageStack]
    states: NDArray[np.float32]
    start_ns: int
    end_ns: int
    truth: NDArray[np.bool_] | None = None
    marks: tuple[Mark, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.stamps_ns)

    @property
    def is_simulated(self) -> bool:
        """Whether the simulated cell was seen: nobody else knows the truth."""
        return self.truth is not None

    def chosen(self, index: NDArray[np.int64]) -> EpisodeFrames:
        """The same episode with some of its frames."""
        return replace(
            self,
            stamps_ns=self.stamps_ns[index],
            images={name: stack[index] for name, stack in self.images.items()},
            states=self.states[index],
            truth=None if self.truth is None else self.truth[index],
        )


@dataclass(slots=True)
class _Seen:
    """What one pass over a bag collects."""

    images: dict[str, list[tuple[int, Any]]]
    marks: list[Mark] = field(default_factory=list)
    pressed: tuple[int, ...] | None = None
    ready_ns: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    outcome: Outcome | None = None


def read_frames(
    path: Path, cameras: Sequence[str], *, rate_hz: float = 10.0, buttons: Sequence[str] = ()
) -> EpisodeFrames:
    """Read the frames of a bag at a steady rate, from READY to the end of the recording.

    The first camera's frames decide the times, of the others the nearest one is taken.

    Args:
        path: Bag of one episode.
        cameras: Their names.
        rate_hz: Frames per second to keep at most.
        buttons: Names of the buttons of `teleop/joy`, in order; the marks are found by them.

    Raises:
        BagError: A camera is missing, or is never near the first one in time; or the episode's
            name is unfit for a file.
    """
    bag = Bag(path)
    record = bag.metadata("episode")
    episode = record.get("id") or bag.path.stem
    if not is_safe_name(episode):
        raise BagError(f"{path}: '{episode[:40]}' is no name for an episode, it would name a file")
    missing = [name for name in cameras if _IMAGE_TOPIC.format(name) not in bag.topics]
    if missing:
        have = [topic for topic in bag.topics if topic.endswith("/image")]
        raise BagError(f"{path} has no images of {', '.join(missing)}; it has {', '.join(have)}")
    seen = _Seen(images={name: [] for name in cameras})
    for message in _messages(bag, cameras):
        _note(seen, message, buttons, round(NS_PER_S / rate_hz))
    stamps_ns, images = _aligned(path, seen.images)
    outcome = seen.outcome or _outcome(record.get("outcome", ""))
    start_ns = int(stamps_ns[0]) if seen.start_ns is None else seen.start_ns
    end_ns = int(stamps_ns[-1]) if seen.end_ns is None else seen.end_ns
    return EpisodeFrames(
        episode=episode,
        task=record.get("task", ""),
        source=str(path),
        outcome=outcome,
        stamps_ns=stamps_ns,
        images=images,
        states=_states(bag, stamps_ns),
        start_ns=start_ns,
        end_ns=end_ns,
        truth=_truth(bag, stamps_ns),
        # Before the policy drives, a button judges the episode before, or the reset.
        marks=tuple(m for m in seen.marks if m.name == "mark" or m.stamp_ns >= start_ns),
    )


def _messages(bag: Bag, cameras: Sequence[str]) -> Iterator[BagMessage]:
    topics = [_IMAGE_TOPIC.format(name) for name in cameras]
    return bag.messages([*topics, *({_JOY, _OUTCOME, _STATE} & set(bag.topics))])


def _note(seen: _Seen, message: BagMessage, buttons: Sequence[str], period_ns: int) -> None:
    if message.topic == _JOY:
        _note_buttons(seen, message, buttons)
    elif message.topic in (_OUTCOME, _STATE):
        _note_episode(seen, message)
    elif seen.ready_ns is None or message.time_ns >= seen.ready_ns:
        # A frame taken before READY and received after it shows the scene before the reset.
        frames = seen.images[message.topic.split("/")[2]]
        # A little early counts: 30 Hz does not divide into 10 Hz without jitter. Only the first
        # camera is thinned out, the others must have a frame near each of its.
        is_first = frames is next(iter(seen.images.values()))
        if not is_first or not frames or message.time_ns - frames[-1][0] > 0.9 * period_ns:
            frames.append((message.time_ns, message))


def _note_buttons(seen: _Seen, message: BagMessage, buttons: Sequence[str]) -> None:
    pressed = tuple(message.decode().buttons)
    # What is down in the first message was pressed before the bag began, nobody knows when.
    before = pressed if seen.pressed is None else seen.pressed
    seen.pressed = pressed
    for name, was, now in zip(buttons, before, pressed, strict=False):
        if now and not was and name in ("success", "failure", "mark"):
            seen.marks.append(Mark(stamp_ns=message.time_ns, name=name))


def _note_episode(seen: _Seen, message: BagMessage) -> None:
    values = {pair.key: pair.value for pair in message.decode().status[0].values}
    phase, outcome = values.get("phase", ""), _outcome(values.get("outcome", ""))
    if phase == Phase.READY.value and seen.ready_ns is None:
        seen.ready_ns = message.time_ns
    if phase == Phase.RUNNING.value and seen.start_ns is None:
        seen.start_ns = message.time_ns
    if outcome is not None and seen.end_ns is None:
        seen.end_ns, seen.outcome = message.time_ns, outcome


def _outcome(text: str) -> Outcome | None:
    return Outcome(text) if text in {each.value for each in Outcome} else None


def _aligned(
    path: Path, frames: Mapping[str, list[tuple[int, Any]]]
) -> tuple[StampArray, dict[str, ImageStack]]:
    first = next(iter(frames.values()))
    stamps = np.array([stamp for stamp, _ in first], dtype=np.int64)
    keep = np.ones(len(stamps), dtype=bool)
    nearest: dict[str, NDArray[np.int64]] = {}
    for name, own in frames.items():
        times = np.array([stamp for stamp, _ in own], dtype=np.int64)
        if not len(times):
            raise BagError(f"{path} holds no image of camera '{name}'")
        nearest[name] = np.abs(times[None] - stamps[:, None]).argmin(1)
        keep &= np.abs(times[nearest[name]] - stamps) <= _MAX_GAP_S * NS_PER_S
    if not keep.any():
        raise BagError(f"{path}: cameras {', '.join(frames)} have no frames of the same time")
    images = {
        name: np.stack([_image(own[at][1]) for at in nearest[name][keep]])
        for name, own in frames.items()
    }
    return stamps[keep], images


def _image(message: BagMessage) -> ImageStack:
    image = message.decode()
    if image.encoding != "rgb8":
        raise BagError(f"{message.topic} is '{image.encoding}', only rgb8 can be labelled")
    pixels = np.frombuffer(bytes(image.data), np.uint8)
    return pixels.reshape(image.height, image.width, 3)


def _states(bag: Bag, stamps_ns: StampArray) -> NDArray[np.float32]:
    states = np.full((len(stamps_ns), len(STATE_NAMES)), np.nan, np.float32)
    if "/arm/tcp_pose" in bag.topics:
        times, poses = read_poses(bag.path, "/arm/tcp_pose")
        states[:, :3] = _sampled(times, poses[:, :3], stamps_ns)
    if "/gripper/state" in bag.topics:
        times, widths = read_channels(bag.path, "/gripper/state", STATE_NAMES[3:])
        states[:, 3:] = _sampled(times, widths, stamps_ns)
    return states


def _sampled(
    times_ns: StampArray, values: NDArray[np.float64], stamps_ns: StampArray
) -> NDArray[np.float64]:
    """The sample nearest to every stamp, NaN where none is near, shape (n, channels)."""
    found = np.full((len(stamps_ns), values.shape[1]), np.nan)
    if len(times_ns):
        nearest = _nearest(times_ns, stamps_ns)
        is_near = np.abs(times_ns[nearest] - stamps_ns) <= _MAX_GAP_S * NS_PER_S
        found[is_near] = values[nearest[is_near]]
    return found


def _truth(bag: Bag, stamps_ns: StampArray) -> NDArray[np.bool_] | None:
    if _TRUTH not in bag.topics:
        return None
    times, decided = read_channels(bag.path, _TRUTH, ["success.decided"])
    return np.asarray(decided[_nearest(times, stamps_ns), 0] > 0.5) if len(times) else None


def _nearest(times_ns: StampArray, stamps_ns: StampArray) -> NDArray[np.int64]:
    """Index of the nearest of rising times for every stamp."""
    last = len(times_ns) - 1
    after = np.searchsorted(times_ns, stamps_ns).clip(min(1, last), last)
    before = np.maximum(after - 1, 0)
    is_before = stamps_ns - times_ns[before] < times_ns[after] - stamps_ns
    found: NDArray[np.int64] = np.where(is_before, before, after)
    return found
