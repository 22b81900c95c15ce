# SPDX-License-Identifier: Apache-2.0
"""Brings the nodes up in order, runs episodes, decides outcomes, latches faults, counts people.

Owns episode ids, phases and epochs. Never commands the arm; resets go through the controller's
services while the gate is silent. If this node dies the gate falls silent too.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone

from rclpy.parameter import Parameter
from rclpy.timer import Timer

from vla_rl_ros.core.episode import (
    EpisodeOrderError,
    EpisodeState,
    Phase,
    ResetKind,
)
from vla_rl_ros.core.human_ledger import Work
from vla_rl_ros.core.reset_plan import ResetMode, ResetPlan
from vla_rl_ros.ros.bringup import BringUp
from vla_rl_ros.ros.cell_reset import SIM_CELL, CellReset
from vla_rl_ros.ros.cell_senses import CellSenses, Watch
from vla_rl_ros.ros.clocks import steady_clock
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.episode_codec import encode_episode
from vla_rl_ros.ros.episode_orders import EpisodeOrders
from vla_rl_ros.ros.episode_ports import Ports, Timing
from vla_rl_ros.ros.episode_runner import EpisodeRunner
from vla_rl_ros.ros.episode_start import EpisodeStart
from vla_rl_ros.ros.human_time import HumanTimeKeeper, encode_human_time
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.markers import cell_markers
from vla_rl_ros.ros.run import run
from vla_rl_ros.ros.scene_checks import make_check
from vla_rl_ros.ros.steps import Sequence, Steps
from vla_rl_ros.ros.supervisor_config import SupervisorConfig
from vla_rl_ros.ros.supervisor_services import SupervisorServices

TICK_S = 0.05
HEARTBEAT_S = 0.2


class SupervisorNode(ManagedNode[SupervisorConfig]):
    """Owns the life of the cell."""

    _state: Sender
    _outcome: Sender
    _markers: Sender
    _ledger_out: Sender
    _senses: CellSenses | None = None
    _bring_up: BringUp
    _reset: CellReset
    _start: EpisodeStart

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters."""
        super().__init__("supervisor", SupervisorConfig, overrides)
        self._steady = steady_clock()
        self._endpoints = Endpoints(self)
        self._beats: list[Timer] = []
        self._runner: EpisodeRunner | None = None
        self._side = Sequence()
        config = self.config
        plan = ResetPlan(ResetMode(config.reset), ResetKind(config.pair_help))
        self._orders = EpisodeOrders(
            plan, lambda: self.config, self._count_seed, self.get_logger().warning
        )
        self._human = HumanTimeKeeper(config.control_period_s, config.rate_window, time.monotonic)
        if self._human.problem:
            self.get_logger().warning(self._human.problem)
        self._served = SupervisorServices(self, self._running, self._human)

    def setup(self) -> None:
        """Create topics and clients."""
        config = self.config
        self._state = self._endpoints.publisher("episode/state")
        self._outcome = self._endpoints.publisher("episode/outcome")
        self._markers = self._endpoints.publisher("viz/markers")
        self._ledger_out = self._endpoints.publisher("human/ledger")
        watch = Watch(
            nodes=config.managed_nodes,
            outcome_source=config.outcome_source,
            success_hold_s=config.min_success_hold_s,
            silence_limit_s=config.silence_limit_s,
        )
        self._senses = senses = CellSenses(self, watch, time.monotonic, self._human.count)
        nodes = config.managed_nodes
        self._bring_up = BringUp(self, nodes, senses.health, self._say, self._on_tick)
        self._reset = CellReset(
            self, has_simulator=SIM_CELL in nodes, clock=time.monotonic, wake=self._on_tick
        )
        judge = senses if senses.has_judge else None
        self._start = EpisodeStart(
            self._reset,
            self._orders.plan,
            make_check(config.scene_check, self._reset, judge, time.monotonic),
            senses.arm_rest,
            self._orders.undoing,
            home_timeout_s=config.home_timeout_s,
            say=self._say,
            clock=time.monotonic,
        )

    def start(self) -> None:
        """Begin the life of the cell with the bring-up."""
        # Seconds since 1970: above the epochs of a supervisor that died, unless the clock was set
        # back since.
        now_s = self.get_clock().now().nanoseconds // 1_000_000_000
        first_epoch = max(now_s, self._human.epoch + 1)
        timing = Timing(first_chunk_timeout_s=self.config.first_chunk_timeout_s)
        self._runner = EpisodeRunner(self._ports(), timing, first_epoch)
        self._side.start(self._attend())
        self._beats = [
            self.create_timer(TICK_S, self._on_tick, clock=self._steady),
            self.create_timer(HEARTBEAT_S, self._on_heartbeat, clock=self._steady),
        ]

    def stop(self, reason: str) -> None:
        """End an open episode as aborted."""
        while self._beats:
            self.destroy_timer(self._beats.pop())
        self._side.cancel()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def teardown(self) -> None:
        """Leave the topics."""
        self._endpoints.destroy()
        if self._senses is not None:
            self._senses.destroy()
            self._senses = None

    def on_config(self, config: SupervisorConfig) -> None:
        """Pass a new instruction on to the running episode."""
        runner = self._runner
        if runner is not None and runner.state.task:
            runner.tell(self._orders.told(runner.state.task, config))

    def _ports(self) -> Ports:
        senses, config = self._senses, self.config
        assert senses is not None
        return Ports(
            bring_up=lambda: self._bring_up.up(config.bringup_timeout_s, time.monotonic),
            bring_down=lambda: self._bring_up.down(config.bringup_timeout_s, time.monotonic),
            reset=self._start.steps,
            recover_arm=self._reset.recover_arm,
            next_order=self._orders.due,
            asked_order=self._orders.asked,
            begin_watch=senses.begin_watch,
            is_success=senses.is_success,
            judge=senses.judge,
            has_chunk=senses.has_chunk,
            policy_says=lambda: senses.health.sentence("vla_inference"),
            arm_fault=senses.arm_fault,
            lost=senses.lost,
            stopped=senses.stopped,
            prompted=lambda is_open: self._human.mark(Work.RESETTING, is_begun=is_open),
            publish=self._announce,
            say=self._say,
            clock=time.monotonic,
            utc_now=lambda: datetime.now(timezone.utc),
        )

    def _count_seed(self, seed: int) -> None:
        self.set_parameters([Parameter("seed", value=seed)])

    def _publish_ledger(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._ledger_out.publish(encode_human_time(self._human.now(), now_ns))

    def _say(self, sentence: str) -> None:
        self.get_logger().info(sentence)

    def _announce(self, state: EpisodeState) -> None:
        # One stamp for both: what a learner that hears either of them counts to the episode.
        now_ns = self.get_clock().now().nanoseconds
        self._publish(state, now_ns)
        if state.outcome is not None:
            self._outcome.publish(encode_episode(state, now_ns))
            self._orders.note(state)
            self._publish_ledger()
            self._save_ledger()

    def _save_ledger(self) -> None:
        self._human.save()
        if self._human.problem:
            self.get_logger().warning(self._human.problem)

    def _publish(self, state: EpisodeState, now_ns: int) -> None:
        self._state.publish(encode_episode(state, now_ns))
        sentence, level = state.reason or state.phase.value, Level.OK
        if state.phase is Phase.FAULT:
            level = Level.ERROR
        elif self._human.problem:
            level, sentence = Level.WARN, f"{sentence}; {self._human.problem}"
        self.diag.level(level, sentence)

    def _on_tick(self) -> None:
        if self._runner is not None and self._senses is not None:
            self._senses.listen()
            self._runner.tick()
            self._side.tick()
            if self._runner.state.phase is not Phase.RUNNING and self._human.take_due():
                # A straggler of an episode that has ended: its bag is not open for long.
                self._publish_ledger()
                self._save_ledger()

    def _on_heartbeat(self) -> None:
        if self._runner is None or self._senses is None:
            return
        state = self._runner.state
        now_ns = self.get_clock().now().nanoseconds
        self._publish(state, now_ns)
        self._publish_ledger()
        view = self._senses.view(state, self._human.now())
        self._markers.publish(cell_markers(view, now_ns))

    def _attend(self) -> Steps[None]:
        """Beside the episodes: bring up what was started again, keep the drawn box current."""
        assert self._runner is not None
        runner = self._runner
        while True:
            yield from self._bring_up.attend(
                lambda: runner.state.phase not in (Phase.BRINGUP, Phase.FAULT),
                self.config.bringup_timeout_s,
                time.monotonic,
            )
            if self._senses is not None:
                yield from self._senses.read_box()

    def _running(self) -> EpisodeRunner:
        if self._runner is None:
            raise EpisodeOrderError("the supervisor is not active")
        return self._runner


def main() -> int:
    """Run the node."""
    return run(SupervisorNode)


if __name__ == "__main__":
    raise SystemExit(main())
