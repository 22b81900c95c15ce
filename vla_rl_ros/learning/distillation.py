# SPDX-License-Identifier: Apache-2.0
"""Distils probing rollouts into the base policy by the base's own loss (PLD stage 3).

The parent's weights go on learning on a mix of rollouts of `probing` and the demonstrations it was
trained on, so that it learns the one without forgetting the other; normalisation stays the
parent's. Started again with the same settings, parent and rollouts, it continues. Called by
`vla-rl-ros distill`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.base_checkpoint import write_checkpoint
from vla_rl_ros.learning.base_data import DemoSet, joined
from vla_rl_ros.learning.base_labels import STATE_CHANNELS, MixedSampler, Sampler, Scales
from vla_rl_ros.learning.base_trainer import Trainer, TrainerSettings
from vla_rl_ros.learning.probing import num_shards
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.pi0.nano import HORIZON
from vla_rl_ros.policies.pi0.nano_files import load_nano

_SAVE_PERIOD_S = 60.0


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """What is learned from."""

    probe_part: float = param(
        0.5, doc="Part of each batch from probing rollouts.", low=0.0, high=1.0
    )
    demo_shards: int = param(
        15, doc="Files of the parent's demonstrations, 0 for none.", low=0, high=1000
    )
    demo_seed: int = param(0, doc="Of these demonstrations.", low=0)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


def distil(
    out: Path,
    parent: Path,
    probes: list[Path],
    demos: Path,
    mix: MixSettings,
    settings: TrainerSettings,
    *,
    command: str,
    minutes: float | None = None,
    tell: Callable[[int, float], None] = lambda _step, _loss: None,
) -> dict[str, Any]:
    """Train, or continue, and write the checkpoint.

    Args:
        out: Directory of the run.
        parent: Checkpoint of a pi0-nano that was trained by `train base`.
        probes: Directories that `probe` wrote.
        demos: Directory ``data`` of the parent's run.
        mix: Parts of both.
        settings: How to learn; `where_weight` has to be 0, as the heads it trains are not kept.
        command: What to write into the manifest.
        minutes: Stop after this time, unfinished but continuable; None for no limit.
        tell: Called with the step and the flow loss.

    Returns:
        Numbers to print.

    Raises:
        ConfigError: Something is missing or does not fit, or `out` holds a run of another parent,
            of other rollouts or with other settings.
    """
    if settings.where_weight != 0.0:
        raise ConfigError("TrainerSettings.where_weight must be 0: a checkpoint has no such heads")
    scales, begin = parent_scales(parent), load_nano(parent)
    rollouts = _rollouts(probes)
    # Without it a run with other rollouts would go on here, or be taken for finished.
    origin: dict[str, float | str] = {
        **asdict(mix),
        "parent": _digest(weight.numpy() for weight in begin.state_dict().values()),
        "rollouts": _digest_of(rollouts),
    }
    # Rollouts begin at the take-over, in mid-motion.
    practised = Sampler(rollouts, scales, HORIZON, start_part=0.0)
    sampler: Sampler | MixedSampler = practised
    if mix.demo_shards and mix.probe_part < 1.0:
        shown = base_shards.load(demos, seed=mix.demo_seed, shards=range(mix.demo_shards))
        origin["demonstrations"] = _digest_of(shown)
        sampler = MixedSampler(practised, Sampler(shown, scales, HORIZON), mix.probe_part)
    trainer = Trainer(settings, sampler, origin=origin)
    trainer.start_from(begin)
    out.mkdir(parents=True, exist_ok=True)
    state = out / "trainer.pt"
    if state.exists():
        trainer.load(state)
    losses: list[float] = []

    def save() -> None:
        trainer.save(state)
        training = {
            "command": command,
            "seed": settings.seed,
            "steps": trainer.step_number,
            "is_finished": trainer.step_number >= settings.steps,
            "parent": str(read_manifest(parent).training.get("command", "")),
        }
        write_checkpoint(trainer.average.model, scales, out / "checkpoint", training)

    begin_s = saved_s = time.monotonic()
    while trainer.step_number < settings.steps:
        losses = [*losses[-49:], float(trainer.step().flow)]
        tell(trainer.step_number, float(np.mean(losses)))
        now_s = time.monotonic()
        if minutes is not None and now_s - begin_s > 60.0 * minutes:
            break
        if now_s - saved_s > _SAVE_PERIOD_S:
            save()
            saved_s = now_s
    save()
    return {
        "checkpoint": str(out / "checkpoint"),
        "steps": trainer.step_number,
        "is_finished": trainer.step_number >= settings.steps,
        "ticks_of_rollouts": len(rollouts),
        "flow_loss": float(np.mean(losses)) if losses else None,
    }


def _rollouts(probes: list[Path]) -> DemoSet:
    parts = []
    for directory in probes:
        seed, count = num_shards(directory)
        if not count:
            raise ConfigError(f"{directory} holds no complete file: let 'probe' run on")
        parts.append(base_shards.load(directory, seed=seed, shards=range(count)))
    return joined(parts)


def _digest_of(demos: DemoSet) -> str:
    """Of what was seen and shown; images follow from it."""
    return _digest((demos.states, demos.labels, demos.tasks))


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for values in arrays:
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:16]


def parent_scales(parent: Path) -> Scales:
    """Normalisation of a checkpoint.

    Raises:
        ConfigError: It was not made by `train base`.
    """
    manifest = read_manifest(parent)
    state, action = manifest.state, manifest.action
    if tuple(state.channels) != STATE_CHANNELS or action.codec != "delta_measured":
        raise ConfigError(f"{parent}: only a checkpoint of 'train base' can be distilled into")
    return Scales(
        state_mean=np.array(state.mean),
        state_std=np.array(state.std),
        action_mean=np.array(action.mean),
        action_std=np.array(action.std),
    )
