# SPDX-License-Identifier: Apache-2.0
"""What settings meant before they existed, so that older runs can be continued and built upon.

Called by `run_memory.check_same` and by `ResidualLearner` before settings are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEARNER: dict[str, Any] = {"xi_parts": (), "acting_tau": 1.0, "takeover_ends": False}
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
