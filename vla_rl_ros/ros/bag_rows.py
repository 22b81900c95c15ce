# SPDX-License-Identifier: Apache-2.0
"""Rows out of recordings: what a session's bags say about the episodes in them.

Bags are opened by the `data` reader and decoded as live messages are. Called by
`vla-rl-ros train residual --bags`, and by whoever has to catch up with what it missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_rl_ros.core.errors import BagError, InvalidCommandError
from vla_rl_ros.core.reward import Reward, make_reward
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.data.bag_reader import Bag, BagMessage
from vla_rl_ros.data.bag_search import find_bags
from vla_rl_ros.learning.actor_observation import PHASE_CHANNEL
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionCounters, SessionRows
from vla_rl_ros.ros.action_codecs import decode_observation
from vla_rl_ros.ros.session_decoder import OBSERVATION, SESSION_TOPICS, SessionDecoder

FEATURES = "policy/features"


@dataclass(frozen=True, slots=True, kw_only=True)
class BagEpisode:
    """The recording of one episode; more than one bag where the recorder began anew within it.

    Attributes:
        episode_id: Of the supervisor.
        epoch: Number of the episode in its rows.
        task: Its name.
        bags: In order of time.
    """

    episode_id: str
    epoch: int
    task: str
    bags: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the observations of a recording hold.

    Attributes:
        names: Channels, length O.
        version: `ActorObservationSpec.version` of what made them.
        control_period_s: From one to the next [s].
    """

    names: tuple[str, ...]
    version: str
    control_period_s: float


def find_episodes(directories: Sequence[Path]) -> list[BagEpisode]:
    """Episodes recorded in directories, each found once, in order of their names.

    Args:
        directories: As `data.bag_search.find_bags` takes them.

    Raises:
        BagError: A directory is not there or holds no bag.
    """
    found: dict[str, dict[Path, dict[str, str]]] = {}
    for path in find_bags(directories):
        bag = Bag(path)
        record = bag.metadata("episode")
        found.setdefault(record.get("id", bag.path.stem), {})[bag.path.resolve()] = record
    return [
        BagEpisode(
            episode_id=episode_id,
            epoch=max(int(record.get("epoch", "-1")) for record in parts.values()),
            task=next(iter(parts.values())).get("task", ""),
            bags=tuple(parts),
        )
        for episode_id, parts in sorted(found.items())
    ]


def meaning(path: Path) -> Meaning | None:
    """What the observations in a bag hold; None where there are none, or one alone.

    An actor that was started within the episode does not know the features before they come, so
    the last observation counts.

    Raises:
        BagError: They are malformed, or of a runtime that recorded something else.
    """
    last: BagMessage | None = None
    steps: Counter[int] = Counter()
    for message in _messages(Bag(path), [OBSERVATION]):
        if last is not None:
            steps[message.time_ns - last.time_ns] += 1
        last = message
    if last is None or not steps:
        return None
    try:
        seen = decode_observation(last.decode())
    except InvalidCommandError as error:
        raise BagError(f"{path}: {OBSERVATION}: {error}") from error
    if PHASE_CHANNEL not in seen.names:
        raise BagError(
            f"{path}: {OBSERVATION} has no channel {PHASE_CHANNEL}; it was recorded by an older "
            "runtime, which kept the arm's state alone: record the episodes again"
        )
    ((period_ns, _),) = steps.most_common(1)
    return Meaning(names=seen.names, version=seen.version, control_period_s=period_ns * 1e-9)


def common_meaning(episodes: Sequence[BagEpisode]) -> Meaning:
    """What the observations of all episodes hold; those without any are passed over.

    Raises:
        BagError: No episode has observations, or they do not mean the same; says what to do.
    """
    by_meaning: dict[Meaning, list[BagEpisode]] = {}
    for episode in episodes:
        found = {each for path in episode.bags if (each := meaning(path)) is not None}
        for each in found:
            by_meaning.setdefault(each, []).append(episode)
    if not by_meaning:
        raise BagError(
            f"none of the {len(episodes)} recorded episodes has {OBSERVATION}, of which rows are "
            "made; images alone do not say what the actor would have seen: record again with the "
            "residual actor of this version running, which needs no weights for that"
        )
    if len(by_meaning) > 1:
        raise BagError("the recordings do not mean the same: " + _differences(by_meaning))
    return next(iter(by_meaning))


def _differences(by_meaning: Mapping[Meaning, Sequence[BagEpisode]]) -> str:
    groups = [
        f"{len(episodes)} episodes like {episodes[0].episode_id} with {len(each.names)} channels "
        f"every {each.control_period_s:g} s (version {each.version}, vision tower "
        f"{', '.join(_towers(episodes[0])) or 'none'})"
        for each, episodes in by_meaning.items()
    ]
    return (
        "; ".join(groups) + ". Features of different towers cannot be learned from together: "
        "name only directories of one base policy in --bags"
    )


def _towers(episode: BagEpisode) -> list[str]:
    found = {
        str(message.decode().header.frame_id)
        for path in episode.bags
        for message in _messages(Bag(path), [FEATURES])
    }
    return sorted(found - {""})


class BagRows:
    """Reads episodes, and keeps count over all of them.

    Attributes:
        counters: What became of the messages.
        num_malformed: Messages that could not be decoded.
    """

    def __init__(
        self,
        spec: ActionSpec,
        obs_version: str,
        make_reward: Callable[[], Reward] = make_reward,
    ) -> None:
        """Read with these meanings.

        Args:
            spec: Range of actions, and the control period.
            obs_version: `Meaning.version`; other observations are refused.
            make_reward: See `SessionRows`.
        """
        self.counters = SessionCounters()
        self.num_malformed = 0
        self._spec, self._obs_version, self._make_reward = spec, obs_version, make_reward

    def read(self, bags: Iterable[Path]) -> list[EpisodeRows]:
        """Rows of the bags of one episode; empty where there is nothing to learn from."""
        rows = SessionRows(self._spec, make_reward=self._make_reward)
        decoder = SessionDecoder(rows, self._obs_version)
        found: list[EpisodeRows] = []
        for path in bags:
            found += self._read(Bag(path), decoder)
        found += rows.finish()
        self.counters.add(rows.counters)
        return found

    def _read(self, bag: Bag, decoder: SessionDecoder) -> Iterator[EpisodeRows]:
        for message in _messages(bag, SESSION_TOPICS):
            topic = next(name for name in SESSION_TOPICS if message.topic.endswith(f"/{name}"))
            try:
                yield from decoder.take(topic, message.decode())
            except InvalidCommandError:
                self.num_malformed += 1


def _messages(bag: Bag, topics: Iterable[str]) -> Iterator[BagMessage]:
    """Messages of topics that may be missing, and may lie in a namespace."""
    found = [name for name in bag.topics if any(name.endswith(f"/{topic}") for topic in topics)]
    return bag.messages(found) if found else iter(())
