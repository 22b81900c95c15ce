# SPDX-License-Identifier: Apache-2.0
"""A learner beside the whole graph as processes: killed, it touches nothing and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from std_srvs.srv import SetBool

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.tools.graph import run_graph
from vla_rl_ros.tools.ros_audit import Audit, stored_ticks
from vla_rl_ros.tools.session import wait_for_bringup

pytestmark = [pytest.mark.graph, pytest.mark.ros, pytest.mark.timeout(240)]

SETTINGS = (
    "learner.hidden=32,32 learner.batch_size=16 learner.base_episodes=1 "
    "learner.warm_up_steps=0 learner.critic_only_updates=10"
)
LIMIT_S = 60.0


def test_a_killed_learner_leaves_acting_alone_and_loses_no_tick(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = GraphOptions(
        backend=Backend.FAKE,
        learner=run,
        learner_settings=SETTINGS,
        record=False,
        out=tmp_path,
        overrides={"learner": {"publish_period_s": 0.5}},
    )
    with run_graph(options) as graph, GraphObserver() as observer:
        audit = Audit(observer)
        wait_for_bringup(observer, graph.check)
        wait = observer.wait_until
        start_episode(observer, graph)
        wait(lambda: ticks(observer) > 15, LIMIT_S, "ticks", graph.check)
        end_episode(observer, graph)
        wait(lambda: audit.weights is not None, LIMIT_S, "weights", graph.check)
        wait(lambda: audit.metrics.get("updates", 0) >= 10, LIMIT_S, "updates", graph.check)
        start_episode(observer, graph)
        begun_at = ticks(observer)
        wait(lambda: ticks(observer) > begun_at + 10, LIMIT_S, "ticks", graph.check)
        before = observer.number("residual_actor", "ticks_skipped")
        assert audit.kill_learner(graph.runner_pid)
        at_kill = ticks(observer)
        wait(lambda: ticks(observer) > at_kill + 20, LIMIT_S, "ticks", graph.check)
        # It went on while nobody learned: no tick was skipped, and nothing was held.
        assert observer.number("residual_actor", "ticks_skipped") == before
        end_episode(observer, graph)
        wait(lambda: bool(audit.restarts), LIMIT_S, "the learner's return", graph.check)
        wait(lambda: audit.metrics.get("episodes") == 2.0, LIMIT_S, "rows", graph.check)
        # Of a tick without a fresh state of the arm nothing was seen, so there is no row of it.
        blind = observer.diagnostics["residual_actor"].get("ticks_blind", "0")
    (restart,) = audit.restarts
    assert restart["went_on_at"] >= restart["killed_at"]
    assert audit.num_ticks > 30
    assert audit.ticks_without_row(run) <= int(blind)
    assert len(stored_ticks(run)) == 2


def start_episode(observer: GraphObserver, graph) -> None:
    observer.trigger("supervisor/start_episode")
    observer.wait_until(
        lambda: observer.episode is not None and observer.episode.phase is Phase.RUNNING,
        LIMIT_S,
        "an episode",
        graph.check,
    )


def end_episode(observer: GraphObserver, graph) -> None:
    """The operator says that it was done, which pays the reward."""
    client = observer.node.create_client(SetBool, "supervisor/end_episode")
    observer.wait_until(client.service_is_ready, LIMIT_S, "the supervisor", graph.check)
    answer = client.call_async(SetBool.Request(data=True))
    observer.wait_until(answer.done, LIMIT_S, "an answer", graph.check)
    assert answer.result().success
    observer.wait_until(
        lambda: observer.episode is not None and observer.episode.phase is Phase.IDLE,
        LIMIT_S,
        "the end",
        graph.check,
    )


def ticks(observer: GraphObserver) -> float:
    return observer.number("residual_actor", "ticks")
