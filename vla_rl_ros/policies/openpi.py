# SPDX-License-Identifier: Apache-2.0
"""A policy behind openpi's websocket server, on another machine or in another environment.

``policy.json`` at `PolicySettings.path` says which name of the server's observation gets what, and
what its actions mean. Nothing of the server is needed to make the policy: it connects when it is
asked, and an arm whose server dies holds until the server is back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_rl_ros.core.errors import ConfigError, InferenceError, InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.action_codec import ActionCodec
from vla_rl_ros.policies.manifest import PolicyManifest, read_manifest
from vla_rl_ros.policies.model_inputs import ModelInputs
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings

if TYPE_CHECKING:
    from vla_rl_ros.policies.openpi_connection import OpenpiConnection

PREFIX_FIELDS = ("prev_chunk", "prev_chunk_left_over")
"""Promised actions from element 0 on, as Being-H's server and LeRobot's policies call them."""
DELAY_FIELD = "inference_delay"


class OpenpiPolicy:
    """Asks a server over the network."""

    def __init__(self, manifest: PolicyManifest, connection: OpenpiConnection) -> None:
        """Speak through `connection`.

        Raises:
            ConfigError: The manifest lacks inputs or the horizon.
        """
        if manifest.horizon == 0:
            raise ConfigError("horizon is missing: the number of rows the server answers with")
        self._manifest, self._connection = manifest, connection
        self._inputs = ModelInputs(manifest)
        self._codec = ActionCodec(manifest.action)
        self._conditionings = frozenset(
            {Conditioning.NONE, *map(Conditioning, manifest.prefix.conditioning)}
        )

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._manifest.horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras whose images are sent."""
        return self._manifest.cameras

    @property
    def needs_objects(self) -> bool:
        """It sees what a robot sees."""
        return False

    @property
    def anchor(self) -> Anchor:
        """As its action codec says."""
        return self._codec.anchor

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """What the manifest says the server can do."""
        return self._conditionings

    @property
    def max_locked(self) -> int:
        """Longest prefix the server's model was trained for."""
        return self._manifest.prefix.max_locked

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Ask the server.

        Raises:
            InvalidCommandError: The observation lacks something or is malformed.
            InferenceError: The server gave no usable answer in time.
        """
        self._codec.check(observation)
        question: dict[str, object] = dict(self._inputs.read(observation))
        is_sent = prefix is not None and prefix.conditioning in (
            self._conditionings - {Conditioning.NONE}
        )
        if prefix is not None and is_sent and len(prefix.actions) > 0:
            rows = self._codec.encode(prefix.actions[: self.horizon], observation)
            question.update(dict.fromkeys(PREFIX_FIELDS, rows.astype(np.float32)))
            question[DELAY_FIELD] = prefix.num_locked
        rows = self._rows(self._connection.ask(question))
        try:
            return self._codec.decode(rows, observation, prefix)
        except InvalidCommandError as error:
            raise InferenceError(f"the policy server's actions are unusable: {error}") from error

    def reset(self) -> None:
        """The protocol has no reset; servers keep no memory between questions."""

    def _rows(self, answer: Mapping[str, object]) -> FloatArray:
        """Actions of an answer, shape (horizon, dim)."""
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray):
            found = ", ".join(sorted(map(str, answer))) or "nothing"
            raise InferenceError(f"the policy server's answer has no array 'actions', but {found}")
        if actions.ndim != 2 or actions.shape[0] < self.horizon:
            raise InferenceError(
                f"the policy server's actions have shape {actions.shape}, horizon in policy.json "
                f"is {self.horizon}"
            )
        if actions.shape[1] != self._codec.dim:
            raise InferenceError(
                f"the policy server's actions have {actions.shape[1]} numbers per row, the codec "
                f"'{self._manifest.action.codec}' in policy.json has {self._codec.dim}"
            )
        return actions[: self.horizon].astype(np.float64)


def make(settings: PolicySettings, environment: PolicyEnvironment) -> OpenpiPolicy:
    """Entry point of the back end.

    Raises:
        ConfigError: `path` names no manifest, or it does not fit the cell.
    """
    if not settings.path:
        raise ConfigError(
            "path is empty: name the policy.json that says what the server expects; "
            "config/policies holds examples"
        )
    try:
        from vla_rl_ros.policies.openpi_connection import OpenpiConnection
    except ModuleNotFoundError as error:
        raise ConfigError(f"policy='openpi' needs the Python package {error.name}") from error
    manifest = read_manifest(Path(settings.path).expanduser())
    manifest.check_fits("openpi", environment)
    return OpenpiPolicy(manifest, OpenpiConnection(settings.url, settings.timeout_s))
