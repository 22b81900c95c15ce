# SPDX-License-Identifier: Apache-2.0
"""Faults of the simulated cell that need no running cell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.fci_watch import CommandWatch
from vla_rl_ros.sim.scene_faults import SceneFaults


@pytest.mark.parametrize("extra", [{"packet": 3}, {"duration_s": 1.0}])
def test_a_limit_with_an_unknown_argument_changes_nothing(extra) -> None:
    server = SimpleNamespace(watch=CommandWatch(20))
    faults = SceneFaults(server)
    with pytest.raises(SceneError):
        faults.inject({"fault": "missed_packet_limit", "packets": 7, **extra})
    assert server.watch.limit == 20
    assert faults.inject({"fault": "missed_packet_limit", "packets": 7}) == {"packets": 7}
    assert server.watch.limit == 7
