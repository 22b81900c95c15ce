# SPDX-License-Identifier: Apache-2.0
"""An untrained residual in the simulated cell behind the robot's protocol: the base itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.weights_stub import made_weights
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from unit.pi0_checkpoints import write_nano

from vla_rl_ros.core.intervention import ExecutedAction, Source
from vla_rl_ros.learning.actor_bytes import write_actor
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment,
    PolicySettings,
    featured,
    make_policy,
)
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.graph_options import GraphOptions
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.tools.graph import run_graph
from vla_rl_ros.tools.session import EpisodePlan, Session, play_episode, wait_for_bringup

pytestmark = [
    pytest.mark.graph,
    pytest.mark.ros,
    pytest.mark.sim,
    pytest.mark.timeout(240),
]


@pytest.fixture(params=["", "eyes"])
def eyes(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """None but the policy's own, or another tower."""
    return str(write_nano(tmp_path / request.param)) if request.param else ""


@pytest.fixture
def untrained(eyes: str, tmp_path: Path) -> Path:
    """Weights of a learner that has learned nothing, for the shipped policy."""
    environment = PolicyEnvironment(control_period_s=0.1, cameras=CAMERAS)
    features = featured(make_policy("pi0", PolicySettings(eyes=eyes), environment))
    assert features is not None
    seen = ActorObservationSpec(feature_dim=features.feature_dim, tower_hash=features.tower_hash)
    learner = ResidualLearner(LearnerConfig(), seen.dim, 7, 0)
    path = tmp_path / "policy.safetensors"
    write_actor(path, replace(made_weights(seen=seen), weights=learner.weights()))
    return path


def test_an_untrained_residual_executes_the_base_bit_for_bit(
    untrained: Path, eyes: str, tmp_path: Path
) -> None:
    options = GraphOptions(
        residual=str(untrained), eyes=eyes, robot_ip="127.0.0.78", record=False, out=tmp_path
    )
    rows: list[ExecutedAction] = []
    with run_graph(options) as graph, GraphObserver() as observer:
        observer.node.create_subscription(
            JointState,
            "action/executed",
            lambda message: rows.append(decode_executed(message)),
            QoSProfile(depth=500),
        )
        wait_for_bringup(observer, graph.check)
        session = Session()
        plan = EpisodePlan(task="lift", seed=3)
        play_episode(observer, plan, session, None, graph.check, may_recover=True)
        observer.wait_until(
            lambda: "weights" in observer.diagnostics.get("residual_actor", {}),
            5.0,
            "diagnostics",
            graph.check,
        )
        seen = observer.diagnostics["residual_actor"]
        gate = observer.diagnostics["intervention"]
        num_limited = sum(int(n) for key, n in gate.items() if key.startswith("limited."))
    # They act, and what they add is nothing.
    assert (seen["weights"], seen["driver"]) == ("acting", "residual")
    assert seen.get("ticks_with_residual", "0") == "0"
    driven = [row for row in rows if row.source is not Source.HOLD]
    assert len(driven) > 20
    assert {row.source for row in driven} == {Source.VLA}
    assert not any(np.any(row.residual) for row in driven)
    # Limits of the gate act on base and residual alike, and count where they do.
    changed = [row for row in driven if row.executed.tobytes() != row.base.tobytes()]
    assert len(changed) <= num_limited
    assert len(changed) < len(driven) / 2
