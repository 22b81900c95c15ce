# SPDX-License-Identifier: Apache-2.0
"""A set of labelled frames on disk: what a success classifier is trained on.

    label_set.json     format, task, cameras, channels of the state
    frames/<key>.npz   images of the chosen frames of one episode, their stamps and states
    labels.jsonl       one line per word on a frame: episode, bag, stamp, label, who; the last wins

Frames are written before the lines that speak of them, so a set is whole after a kill at any
time. Called by `vla-rl-ros label`, which writes, and by the training of the classifier.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.data.label_frames import STATE_NAMES, EpisodeFrames
from vla_rl_ros.data.label_rules import Label, LabelArray
from vla_rl_ros.data.metadata import is_safe_name

FORMAT = 1
_HEADER, _LINES, _FRAMES = "label_set.json", "labels.jsonl", "frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What somebody said of a frame.

    Attributes:
        episode: The episode's name.
        bag: Where it was recorded, or how it can be made again.
        kind: What sort of episode it is.
        stamp_ns: Of the frame.
        label: Value of `Label`.
        who: ``outcome``, ``truth``, or the name of a person.
    """

    episode: str
    bag: str
    kind: str
    stamp_ns: int
    label: str
    who: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledFrames:
    """Frames with a label.

    Attributes:
        images: RGB by camera, shape (n, h, w, 3).
        states: Channels of `label_frames.STATE_NAMES`, shape (n, 4).
        is_success: Shape (n,).
        episodes: Name of each frame's episode.
        kinds: What sort of episode each frame is from.
        stamps_ns: Shape (n,).
    """

    images: Mapping[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    is_success: NDArray[np.bool_]
    episodes: tuple[str, ...]
    kinds: tuple[str, ...]
    stamps_ns: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.is_success)

    def chosen(self, index: NDArray[Any]) -> LabelledFrames:
        """Some of the frames, by number or by mask."""
        numbers = np.arange(len(self))[index]
        return LabelledFrames(
            images={name: stack[numbers] for name, stack in self.images.items()},
            states=self.states[numbers],
            is_success=self.is_success[numbers],
            episodes=tuple(self.episodes[i] for i in numbers),
            kinds=tuple(self.kinds[i] for i in numbers),
            stamps_ns=self.stamps_ns[numbers],
        )


def is_label_set(directory: Path) -> bool:
    """Whether there is one, of whatever task."""
    return (directory / _HEADER).is_file()


class LabelSet:
    """One directory of labelled frames.

    Attributes:
        directory: Where it is.
        task: What success means.
        cameras: In the order of the classifier's inputs.
    """

    def __init__(self, directory: Path, task: str = "", cameras: Sequence[str] = ()) -> None:
        """Open, or create where `task` and `cameras` are given and nothing is there.

        Raises:
            ConfigError: No label set, or one of another task or other cameras.
        """
        self.directory = directory
        header = directory / _HEADER
        if not header.exists():
            if not task or not cameras:
                raise ConfigError(f"{directory} is no label set: it has no {_HEADER}")
            (directory / _FRAMES).mkdir(parents=True, exist_ok=True)
            _write(
                header,
                json.dumps(
                    {"format": FORMAT, "task": task, "cameras": list(cameras),
                     "state": list(STATE_NAMES)}, indent=2,
                ).encode() + b"\n",
            )  # fmt: skip
        values = _read_header(header)
        self.task, self.cameras = str(values["task"]), tuple(values["cameras"])
        if (task and task != self.task) or (cameras and tuple(cameras) != self.cameras):
            raise ConfigError(
                f"{directory} holds '{self.task}' of cameras {', '.join(self.cameras)}, not "
                f"'{task or self.task}' of {', '.join(cameras or self.cameras)}: "
                "take another directory"
            )
        self._words = self._read_words()

    @property
    def words(self) -> list[Word]:
        """The last word on each frame, in the order in which the frames were added."""
        return list(self._words.values())

    @property
    def episodes(self) -> set[str]:
        """Episodes of which something was said."""
        return {word.episode for word in self._words.values()}

    def counts(self) -> dict[str, int]:
        """Number of frames by label."""
        found = dict.fromkeys((label.value for label in Label), 0)
        for word in self._words.values():
            found[word.label] += 1
        return found

    def add(self, frames: EpisodeFrames, labels: LabelArray, who: str) -> None:
        """Store the frames of an episode; one that is there already stays as it is.

        Raises:
            ConfigError: The episode's name is unfit for a file.
        """
        if frames.episode in self.episodes or not len(frames):
            return
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"image.{name}": frames.images[name] for name in self.cameras}
        np.savez_compressed(buffer, stamps_ns=frames.stamps_ns, state=frames.states, **arrays)
        _write(self._path(frames.episode), buffer.getvalue())
        self.say(
            [
                Word(
                    episode=frames.episode,
                    bag=frames.source,
                    kind=frames.kind,
                    stamp_ns=int(stamp_ns),
                    label=str(label),
                    who=who,
                )
                for stamp_ns, label in zip(frames.stamps_ns, labels, strict=True)
            ]
        )

    def say(self, words: Sequence[Word]) -> None:
        """Append words; they win over what was said of the same frames before."""
        with (self.directory / _LINES).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(word)) + "\n" for word in words)
            file.flush()
            os.fsync(file.fileno())
        for word in words:
            self._words[(word.episode, word.stamp_ns)] = word

    def images(self, word: Word) -> dict[str, NDArray[np.uint8]]:
        """Images of one frame by camera, shape (h, w, 3)."""
        arrays = self._arrays(word.episode)
        row = int(np.flatnonzero(arrays["stamps_ns"] == word.stamp_ns)[0])
        return {name: arrays[f"image.{name}"][row] for name in self.cameras}

    def load(self) -> LabelledFrames:
        """Every frame that is labelled success or failure.

        Raises:
            ConfigError: None is, or a file is damaged.
        """
        by_episode: dict[str, dict[int, Word]] = {}
        for word in self._words.values():
            if word.label != Label.SKIP.value:
                by_episode.setdefault(word.episode, {})[word.stamp_ns] = word
        if not by_episode:
            raise ConfigError(f"{self.directory} holds no labelled frame")
        stacks: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in self.cameras}
        states, stamps, words = [], [], []
        for episode, mine in by_episode.items():
            arrays = self._arrays(episode)
            rows = [i for i, stamp in enumerate(arrays["stamps_ns"]) if int(stamp) in mine]
            for name in self.cameras:
                stacks[name].append(arrays[f"image.{name}"][rows])
            states.append(arrays["state"][rows])
            stamps.append(arrays["stamps_ns"][rows])
            words += [mine[int(arrays["stamps_ns"][i])] for i in rows]
        return LabelledFrames(
            images={name: np.concatenate(own) for name, own in stacks.items()},
            states=np.concatenate(states),
            is_success=np.array([word.label == Label.SUCCESS.value for word in words]),
            episodes=tuple(word.episode for word in words),
            kinds=tuple(word.kind for word in words),
            stamps_ns=np.concatenate(stamps),
        )

    def _path(self, episode: str) -> Path:
        if not is_safe_name(episode):
            raise ConfigError(
                f"{self.directory}: '{episode[:40]}' is no name for a file of frames"
            )
        return self.directory / _FRAMES / f"{episode}.npz"

    def _arrays(self, episode: str) -> dict[str, NDArray[Any]]:
        path = self._path(episode)
        try:
            with np.load(path) as file:
                return dict(file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from error

    def _read_words(self) -> dict[tuple[str, int], Word]:
        path = self.directory / _LINES
        found: dict[tuple[str, int], Word] = {}
        if not path.exists():
            return found
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            # Whoever wrote the last line was killed; what it said was not said.
            text = text[: text.rfind("\n") + 1]
            _write(path, text.encode())
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                word = Word(**json.loads(line))
                Label(word.label)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{path}, line {number}: {error}") from error
            found[(word.episode, word.stamp_ns)] = word
        return found


def _read_header(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    if values.get("format") != FORMAT or not values.get("cameras"):
        raise ConfigError(f"{path}: format {values.get('format')!r} is not {FORMAT}")
    return values


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
