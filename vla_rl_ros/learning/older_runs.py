# SPDX-License-Identifier: Apache-2.0
"""What settings meant before they existed, so that older runs can be continued and built upon.

Called by `run_memory.check_same`, `ResidualLearner` and `base_trainer.Trainer` before settings are
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEARNER: dict[str, Any] = {
    "xi_parts": (), "acting_tau": 1.0, "takeover_ends": False, "timeout_ends": False,
}  # fmt: skip
_BASE: dict[str, Any] = {"second_steps": 0, "relays": 0}
_BASE_UNKNOWN = ("second_rate", "relay_part", "episodes", "data_seed")
"""Without meaning in a run of one phase, or not noted by older ones."""
_SAME_AS = {"schedule.return_p": "schedule.worse_p"}


def completed_learner(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a learner by field, with those that came later."""
    return {**_LEARNER, **settings}


def completed_run(begun: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run as `run_memory.begun_with` names them, with those that came later."""
    learner = {
        # JSON, in which they are stored, has no tuples.
        f"learner.{name}": list(value) if isinstance(value, tuple) else value
        for name, value in _LEARNER.items()
    }
    same = {name: begun[other] for name, other in _SAME_AS.items() if other in begun}
    return {**learner, **same, **begun}


def completed_base(begun: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a base's run, with those that came later.

    Args:
        begun: As the file has them.
        ours: Present ones, for what an older file cannot tell.
    """
    unknown = {name: ours[name] for name in _BASE_UNKNOWN if name in ours}
    return {**_BASE, **unknown, **begun}
