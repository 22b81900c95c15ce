# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several unit test files share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vla_rl_ros.learning.base_scene import VaryingCells


@pytest.fixture(scope="module")
def cells() -> Iterator[VaryingCells]:
    """The simulators in which demonstrations are collected; compiled once per file."""
    # Imported here: it brings the simulator along, which most unit tests do without.
    from vla_rl_ros.learning.base_scene import VaryingCells

    made = VaryingCells()
    yield made
    made.close()
