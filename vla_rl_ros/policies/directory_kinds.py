# SPDX-License-Identifier: Apache-2.0
"""What a directory of weights is, told by its manifest to whoever wanted another one."""

from __future__ import annotations

from pathlib import Path

_KINDS = {
    "eyes.json": "trained eyes: give it as --eyes",
    "classifier.json": "a success classifier: give it as --classifier",
    "policy.json": "a policy: give it as --checkpoint",
    "checkpoint/policy.json": "a run of 'train base': give its folder 'checkpoint'",
}


def kind_of(directory: Path) -> str:
    """What a directory is and where it belongs, empty where that is not known.

    Example: ``a success classifier: give it as --classifier``.
    """
    return next((kind for file, kind in _KINDS.items() if (directory / file).is_file()), "")
