# SPDX-License-Identifier: Apache-2.0
"""Messages of a session, live or recorded, as events for `learning/session_rows.py`.

Takes messages of rclpy and of the bag reader alike: only their fields are looked at.
"""

from __future__ import annotations

from typing import Any

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.learning.session_rows import EpisodeRows, SessionRows
from vla_rl_ros.ros.action_codecs import decode_executed, decode_observation
from vla_rl_ros.ros.channels import from_stamp
from vla_rl_ros.ros.episode_codec import decode_episode

OBSERVATION, EXECUTED, STATE = "policy/observation", "action/executed", "episode/state"
SESSION_TOPICS = (OBSERVATION, EXECUTED, STATE)
"""What rows are made of."""


class SessionDecoder:
    """Hands every message of a session on as an event.

    Attributes:
        rows: Gets the events.
    """

    def __init__(
        self, rows: SessionRows, obs_version: str, obs_names: tuple[str, ...] | None = None
    ) -> None:
        """Feed a collection of rows.

        Args:
            rows: Gets the events.
            obs_version: `ActorObservationSpec.version`; other observations are refused.
            obs_names: Their channels; left out where who packs the rows looks after that.
        """
        self.rows = rows
        self._obs_version, self._obs_names = obs_version, obs_names

    def take(self, topic: str, message: Any) -> list[EpisodeRows]:  # noqa: ANN401 - of any topic
        """Take a message.

        Args:
            topic: One of `SESSION_TOPICS`.
            message: Decoded.

        Returns:
            Episodes that are complete with it.

        Raises:
            InvalidCommandError: The message was malformed and nothing came of it;
                ``other_version`` for an observation of another meaning, ``wrong_channels`` for
                one that does not hold what its version says.
        """
        if topic == OBSERVATION:
            seen = decode_observation(message)
            if seen.version != self._obs_version:
                detail = f"observation {seen.version} instead of {self._obs_version}"
                raise InvalidCommandError("other_version", detail)
            if self._obs_names not in (None, seen.names):
                raise InvalidCommandError("wrong_channels", f"{len(seen.names)} channels")
            self.rows.on_observation(seen.stamp_ns, seen.vector)
        elif topic == EXECUTED:
            self.rows.on_executed(decode_executed(message))
        else:
            return self.rows.on_state(from_stamp(message.header.stamp), decode_episode(message))
        return []
