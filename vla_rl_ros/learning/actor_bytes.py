# SPDX-License-Identifier: Apache-2.0
"""Weights of a residual actor as bytes: what travels on `learner/actor`, and what lies in a file.

A safetensors file whose metadata say what the weights are for, with a checksum over both. Nothing
is executed when it is read, and nothing of it is used before all of it has been checked. Needs no
torch. Called by the `learner` and `residual_actor` nodes and by tools.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import ACTION_CHANNELS
from vla_rl_ros.learning.acting import Float32Array, ResidualActor, Weights
from vla_rl_ros.learning.schedule import Driver

FORMAT = "1"
_CHECKSUM = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActorWeights:
    """Weights, and what they are for.

    Attributes:
        weights: What `acting.ResidualActor` takes.
        version: Counts up with every set of weights that a run gives out.
        updates: Gradient updates that made them.
        made_ns: ROS time of the last of these updates; 0 where nobody knows.
        driver: Who is to drive; with `Driver.BASE` the residual rests.
        wander_std: Where positive, who explores wanders around the base instead of following the
            weights (`exploration.Wanderer`): the learner is warming up.
        wander_ticks: Over how many ticks that is correlated.
        obs_version: `ActorObservationSpec.version` they were trained on; empty where unknown.
        obs_names: Channels of an observation; empty where unknown.
        action_channels: Channels of an action.
    """

    weights: Weights
    version: int = 0
    updates: int = 0
    made_ns: int = 0
    driver: Driver = Driver.RESIDUAL
    wander_std: float = 0.0
    wander_ticks: float = 1.0
    obs_version: str = ""
    obs_names: tuple[str, ...] = ()
    action_channels: tuple[str, ...] = ACTION_CHANNELS

    def actor(self) -> ResidualActor:
        """The policy they are.

        Raises:
            InvalidCommandError: ``wrong_size`` where they do not fit each other or what they say
                of themselves.
        """
        try:
            actor = ResidualActor(self.weights)
            # Layers that do not fit each other show here instead of in a tick.
            actor.act(np.zeros(actor.obs_dim), np.zeros(actor.action_dim))
        except (ValueError, TypeError, IndexError) as error:
            raise InvalidCommandError("wrong_size", str(error)) from error
        if self.obs_names and actor.obs_dim != len(self.obs_names):
            sizes = f"{actor.obs_dim} inputs for {len(self.obs_names)} named channels"
            raise InvalidCommandError("wrong_size", sizes)
        if actor.action_dim != len(self.action_channels):
            sizes = f"{actor.action_dim} actions for {len(self.action_channels)} named channels"
            raise InvalidCommandError("wrong_size", sizes)
        return actor


def encode_actor(actor: ActorWeights) -> bytes:
    """Bytes of weights, with a checksum over them and what they are for."""
    from safetensors.numpy import save

    facts = {
        "format": FORMAT,
        "version": str(actor.version),
        "updates": str(actor.updates),
        "made_ns": str(actor.made_ns),
        "driver": actor.driver.value,
        "wander_std": repr(actor.wander_std),
        "wander_ticks": repr(actor.wander_ticks),
        "obs_version": actor.obs_version,
        "obs_names": json.dumps(actor.obs_names),
        "action_channels": json.dumps(actor.action_channels),
    }
    facts[_CHECKSUM] = _checksum(actor.weights, facts)
    return bytes(save(dict(actor.weights), metadata=facts))


def decode_actor(data: bytes) -> ActorWeights:
    """Inverse of `encode_actor`.

    Raises:
        InvalidCommandError: ``not_weights`` (truncated, or something else), ``wrong_hash``,
            ``wrong_layout``, ``wrong_size`` or ``not_finite``.
    """
    facts, weights = _parse(data)
    if facts.get(_CHECKSUM) != _checksum(weights, facts):
        raise InvalidCommandError("wrong_hash", "the checksum of the weights does not fit them")
    return _checked(facts, weights)


def read_actor(path: Path) -> ActorWeights:
    """Weights of a file that `write_actor` or `train residual` wrote.

    Args:
        path: The file, or the directory of a run with a ``policy.safetensors`` in it.

    Raises:
        ConfigError: No such file, or not whole; names it.
    """
    file = path / "policy.safetensors" if path.is_dir() else path
    try:
        data = file.read_bytes()
        facts, weights = _parse(data)
        # Runs in other environments write no checksum and no channels of this cell.
        return decode_actor(data) if _CHECKSUM in facts else _checked(facts, weights)
    except (OSError, InvalidCommandError) as error:
        raise ConfigError(f"residual '{file}' cannot be used: {error}") from error


def write_actor(path: Path, actor: ActorWeights) -> None:
    """Write a file for `read_actor`; it is whole or the old one."""
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(encode_actor(actor))
    unfinished.replace(path)


def _parse(data: bytes) -> tuple[dict[str, str], dict[str, Float32Array]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        weights = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    # A type that numpy does not know is a KeyError.
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidCommandError("not_weights", f"{len(data)} bytes: {error}") from error
    return dict(header.get("__metadata__", {})), weights


def _checked(facts: Mapping[str, str], weights: dict[str, Float32Array]) -> ActorWeights:
    if facts.get("format") != FORMAT:
        raise InvalidCommandError("wrong_layout", f"format {facts.get('format')}, not {FORMAT}")
    for name, values in weights.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise InvalidCommandError("not_finite", f"'{name}' is not finite float32")
    try:
        actor = ActorWeights(
            weights=weights,
            version=int(facts.get("version", facts.get("steps", "0"))),
            updates=int(facts.get("updates", "0")),
            made_ns=int(facts.get("made_ns", "0")),
            driver=Driver(facts.get("driver", Driver.RESIDUAL.value)),
            wander_std=float(facts.get("wander_std", "0.0")),
            wander_ticks=float(facts.get("wander_ticks", "1.0")),
            obs_version=facts.get("obs_version", ""),
            obs_names=tuple(json.loads(facts.get("obs_names", "[]"))),
            action_channels=tuple(
                json.loads(facts.get("action_channels", "null")) or ACTION_CHANNELS
            ),
        )
    except (TypeError, ValueError) as error:
        raise InvalidCommandError("wrong_layout", str(error)) from error
    if not (0.0 <= actor.wander_std <= 10.0 and 1.0 <= actor.wander_ticks <= 1000.0):
        raise InvalidCommandError("wrong_layout", f"wander_std={actor.wander_std}")
    if actor.action_channels != ACTION_CHANNELS:
        raise InvalidCommandError("wrong_layout", f"actions are {actor.action_channels}")
    actor.actor()
    return actor


def _checksum(weights: Mapping[str, Float32Array], facts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps({k: v for k, v in sorted(facts.items()) if k != _CHECKSUM}).encode())
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
