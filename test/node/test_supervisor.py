# SPDX-License-Identifier: Apache-2.0
"""The supervisor on a real graph of stand-ins: bring-up, episodes, faults, what it publishes."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from vla_rl_ros.core.config import param
from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase, ResetKind
from vla_rl_ros.core.errors import ConfigError, DeviceError
from vla_rl_ros.core.human_ledger import DriveCount, HumanTime
from vla_rl_ros.core.intervention import ExecutedAction, Source
from vla_rl_ros.core.types import ActionChunk
from vla_rl_ros.hardware.target_follower import TARGETS_ARRIVE
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.human_time import decode_human_time
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.nodes.supervisor import SupervisorNode
from vla_rl_ros.ros.processes import RUN_DIR_VARIABLE
from vla_rl_ros.ros.qos import EVENT, LATCHED, PUBLISHER_QOS
from vla_rl_ros.ros.testing import spin_until
from vla_rl_ros.tools.label_clock import LabelClock, LedgerReport

pytestmark = pytest.mark.ros

OFFSET_M = [0.01, -0.02, 0.03]
NAMES = ("impedance_controller", "sim_cell", "vla_inference")


@dataclass(frozen=True, kw_only=True)
class Config:
    home_offset_m: tuple[float, ...] = param((0.0, 0.0, 0.0), doc="Offset.", live=True)
    home_gripper_width_m: float = param(0.0, doc="Width.", live=True)
    task: str = param("", doc="Task.", live=True)
    seed: int = param(0, doc="Seed.", live=True)


class StandIn(ManagedNode[Config]):
    """One node of the cell that does as it is told and remembers what it was asked."""

    def __init__(self, name: str, cell: Cell) -> None:
        super().__init__(name, Config, {"autostart": False})
        self.cell = cell
        for service in ("home", "recover", "rearm", "prepare", "reset", "check"):
            self.create_service(Trigger, f"~/{service}", self.answer(service))

    def answer(self, service: str):
        def handle(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            self.cell.calls.append(f"{self.get_name()}/{service}")
            refusal = self.cell.refusals.get(service, "")
            response.success = not refusal
            start = {"start_offset_m": OFFSET_M, "gripper_width_m": 0.0}
            answer = {"problem": self.cell.problem} if service == "check" else start
            response.message = refusal or json.dumps(answer)
            if service == "recover" and not refusal:
                self.cell.mode = "idle"
            return response

        return handle

    def setup(self) -> None:
        self.cell.calls.append(f"{self.get_name()} setup")
        if self.get_name() in self.cell.broken:
            raise DeviceError("no device: plug it in")

    def start(self) -> None:
        self.cell.calls.append(f"{self.get_name()} start")


class Cell:
    """The supervisor, its stand-ins, and an observer."""

    def __init__(self, executor, **overrides: object) -> None:
        self.executor = executor
        self.calls: list[str] = []
        self.refusals: dict[str, str] = {}
        self.broken: set[str] = set()
        self.problem = ""
        self.mode = "idle"
        self.controller_age_s = 0.0
        self.has_policy = True
        self.is_done = False
        self.states: list[EpisodeState] = []
        self.markers: list[MarkerArray] = []
        self.nodes = {name: self.add(StandIn(name, self)) for name in NAMES}
        self.user = self.add(Node("user"))
        self.user.create_subscription(DiagnosticArray, "episode/state", self.note, LATCHED)
        self.user.create_subscription(MarkerArray, "viz/markers", self.markers.append, EVENT)
        self.chunks = self.user.create_publisher(JointTrajectory, "policy/chunk", EVENT)
        self.success = self.user.create_publisher(JointState, "sim/success", EVENT)
        self.ledger: list[HumanTime] = []
        self.user.create_subscription(JointState, "human/ledger", self.note_ledger, LATCHED)
        self.executed = self.user.create_publisher(
            JointState, "action/executed", PUBLISHER_QOS["DURABLE"]
        )
        self.controller = self.user.create_publisher(JointState, "arm/controller_state", EVENT)
        self.user.create_timer(0.05, self.play)
        values = {"managed_nodes": list(NAMES), "bringup_timeout_s": 10.0, **overrides}
        self.supervisor = self.add(SupervisorNode(values))

    def add(self, node):
        self.executor.add_node(node)
        return node

    def note(self, message: DiagnosticArray) -> None:
        self.states.append(decode_episode(message))

    def note_ledger(self, message: JointState) -> None:
        self.ledger.append(decode_human_time(message))

    def text(self, name: str) -> str:
        """What a marker says."""
        texts = [m.text for m in self.markers[-1].markers if m.ns == name] if self.markers else []
        return texts[0] if texts else ""

    def play(self) -> None:
        """What the rest of the graph would publish."""
        now_ns = self.user.get_clock().now().nanoseconds
        modes = {f"mode.{mode}": float(mode == self.mode) for mode in ("idle", "fault", "stopped")}
        stamp_ns = now_ns - int(self.controller_age_s * 1e9)
        self.controller.publish(encode_channels(modes, stamp_ns))
        done = float(self.is_done)
        channels = {"success.probability": done, "success.decided": done}
        self.success.publish(encode_channels(channels, now_ns))
        if self.states and self.has_policy and self.states[-1].phase is Phase.READY:
            chunk = ActionChunk(
                chunk_id=1,
                epoch=self.states[-1].epoch,
                stamp_ns=now_ns,
                period_ns=100_000_000,
                delay_ticks=0,
                actions=np.zeros((4, 7)),
            )
            self.chunks.publish(encode_chunk(chunk))

    def until(self, predicate, timeout_s: float = 15.0) -> None:
        assert spin_until(self.executor, predicate, timeout_s), (self.states[-1:], self.calls)

    def until_phase(self, phase: Phase) -> EpisodeState:
        self.until(lambda: bool(self.states) and self.states[-1].phase is phase)
        return self.states[-1]

    def ask(self, service: str, kind: type = Trigger, **fields: object) -> tuple[bool, str]:
        client = self.user.create_client(kind, f"supervisor/{service}")
        self.until(client.service_is_ready)
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        response = future.result()
        return response.success, response.message

    def begin_episode(self) -> EpisodeState:
        """Ask for an episode and wait until it runs."""
        assert self.ask("start_episode")[0]
        return self.until_phase(Phase.RUNNING)

    def succeed(self) -> None:
        """End the running episode with success and wait for the next request to be possible."""
        self.is_done = True
        self.until_phase(Phase.ENDED)
        self.is_done = False
        self.until_phase(Phase.IDLE)

    def set(self, **values: object) -> None:
        for name, value in values.items():
            assert self.supervisor.set_parameters([Parameter(name, value=value)])[0].successful

    def phases(self) -> list[str]:
        """Phases without the repetitions of the heartbeat."""
        phases = [state.phase.value for state in self.states]
        return [p for i, p in enumerate(phases) if i == 0 or p != phases[i - 1]]


def idle_cell(executor, **overrides: object) -> Cell:
    """A cell that has come up."""
    cell = Cell(executor, **overrides)
    cell.until_phase(Phase.IDLE)
    return cell


def pair_after_one_turn(executor) -> Cell:
    """A pair of tasks whose first episode has succeeded; what was asked for it is forgotten."""
    cell = idle_cell(executor, reset="pair", pair_help="scripted", task="peg")
    cell.begin_episode()
    cell.succeed()
    cell.calls.clear()
    return cell


def test_nodes_come_up_in_order_and_the_cell_is_idle(executor) -> None:
    cell = idle_cell(executor)
    starts = [call for call in cell.calls if call.endswith(" start")]
    assert starts == [f"{name} start" for name in NAMES]
    assert all(node.is_running for node in cell.nodes.values())


def test_an_episode_resets_the_cell_waits_for_a_chunk_and_ends_with_success(executor) -> None:
    cell = idle_cell(executor)
    cell.set(task="peg", seed=7)
    assert cell.ask("start_episode") == (True, "peg with seed 7")
    running = cell.until_phase(Phase.RUNNING)
    assert (running.task, running.seed, running.instruction) == ("peg", 7, "insert the peg")
    arranged = ["sim_cell/prepare", "impedance_controller/home", "sim_cell/reset"]
    assert cell.calls[-4:] == [*arranged, "sim_cell/check"]
    controller, scene = cell.nodes["impedance_controller"].config, cell.nodes["sim_cell"].config
    assert controller.home_offset_m == tuple(OFFSET_M)
    assert controller.home_gripper_width_m == 0.0
    assert (scene.task, scene.seed) == ("peg", 7)
    cell.is_done = True
    assert cell.until_phase(Phase.ENDED).outcome is Outcome.SUCCESS
    cell.until_phase(Phase.IDLE)
    assert cell.phases()[-6:] == ["idle", "resetting", "ready", "running", "ended", "idle"]
    assert cell.supervisor.config.seed == 8


def test_episodes_run_unasked_with_the_tasks_in_turn(executor) -> None:
    cell = Cell(executor, autorun_episodes=2, tasks=["lift", "button"], seed=3)
    cell.is_done = True
    cell.until(lambda: cell.phases().count("ended") == 2)
    ended = {s.epoch: s for s in cell.states if s.phase is Phase.ENDED}
    assert [(s.task, s.seed) for s in ended.values()] == [("lift", 3), ("button", 4)]
    cell.until_phase(Phase.IDLE)


def test_a_node_that_cannot_come_up_is_named_with_its_own_words(executor) -> None:
    cell = Cell(executor, bringup_timeout_s=0.5)
    cell.broken = {"sim_cell"}
    state = cell.until_phase(Phase.FAULT)
    assert "sim_cell could not configure" in state.reason
    assert "no device: plug it in" in state.reason
    cell.broken = set()
    assert cell.ask("recover") == (True, "recovered")
    cell.until_phase(Phase.IDLE)


def test_a_node_that_never_appears_is_named(executor) -> None:
    cell = Cell(executor, managed_nodes=["impedance_controller", "ghost"], bringup_timeout_s=0.5)
    reason = cell.until_phase(Phase.FAULT).reason
    assert reason.endswith("ghost does not answer for 0.5 s; is its process running?")


def test_an_arm_fault_is_latched_and_recovered_within_a_second(executor) -> None:
    cell = idle_cell(executor)
    cell.begin_episode()
    cell.mode = "fault"
    assert cell.until_phase(Phase.FAULT).outcome is Outcome.FAULT
    is_started, sentence = cell.ask("start_episode")
    assert not is_started
    assert "fault" in sentence
    begin_s = time.monotonic()
    assert cell.ask("recover") == (True, "recovered")
    assert time.monotonic() - begin_s < 1.0
    cell.until_phase(Phase.IDLE)
    cell.begin_episode()


def test_a_refused_home_ends_the_episode_with_the_reason(executor) -> None:
    cell = idle_cell(executor)
    cell.refusals["home"] = "joint 4 is blocked"
    cell.ask("start_episode")
    state = cell.until_phase(Phase.ENDED)
    assert state.outcome is Outcome.FAULT
    assert "joint 4 is blocked" in state.reason


def test_home_waits_for_the_gate_to_fall_silent(executor) -> None:
    cell = idle_cell(executor)
    cell.refusals["home"] = TARGETS_ARRIVE
    cell.ask("start_episode")
    cell.until_phase(Phase.RESETTING)
    cell.until(lambda: cell.calls.count("impedance_controller/home") > 1)
    cell.refusals.clear()
    cell.until_phase(Phase.RUNNING)


def test_a_gate_that_never_falls_silent_ends_the_episode(executor) -> None:
    cell = idle_cell(executor)
    cell.refusals["home"] = TARGETS_ARRIVE
    cell.ask("start_episode")
    assert "silence the gate" in cell.until_phase(Phase.ENDED).reason


def test_a_silent_policy_ends_the_episode_before_it_runs(executor) -> None:
    cell = idle_cell(executor, first_chunk_timeout_s=0.3)
    cell.has_policy = False
    cell.ask("start_episode")
    assert "vla_inference sent no chunk" in cell.until_phase(Phase.ENDED).reason
    assert "running" not in cell.phases()


def test_the_operator_decides_by_service(executor) -> None:
    cell = Cell(executor, outcome_source="operator")
    cell.is_done = True
    cell.until_phase(Phase.IDLE)
    assert not cell.ask("end_episode", SetBool, data=True)[0]
    cell.begin_episode()
    assert cell.ask("end_episode", SetBool, data=False)[0]
    assert cell.until_phase(Phase.ENDED).outcome is Outcome.FAILURE


def test_a_node_that_was_started_again_is_brought_up_again(executor) -> None:
    cell = idle_cell(executor)
    old = cell.nodes["vla_inference"]
    executor.remove_node(old)
    old.destroy_node()
    new = cell.add(StandIn("vla_inference", cell))
    cell.until(lambda: new.is_running)


def test_nodes_go_down_in_reverse_on_demand(executor) -> None:
    cell = idle_cell(executor)
    assert cell.ask("bring_down")[0]
    assert cell.until_phase(Phase.BRINGUP).reason == "the nodes are brought down"
    assert not any(node.is_running for node in cell.nodes.values())
    assert cell.ask("recover")[0]
    cell.until_phase(Phase.IDLE)


def test_the_state_is_latched_and_repeated_and_markers_follow(executor) -> None:
    cell = idle_cell(executor)
    late: list[DiagnosticArray] = []
    cell.user.create_subscription(DiagnosticArray, "episode/state", late.append, LATCHED)
    cell.until(lambda: len(late) >= 4)
    stamps = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in late]
    assert max(np.diff(stamps[1:])) < 0.45
    cell.until(lambda: len(cell.markers) >= 2)
    assert {marker.ns for marker in cell.markers[-1].markers} >= {"episode", "human"}


def test_a_stopping_supervisor_ends_the_open_episode(executor) -> None:
    cell = idle_cell(executor)
    cell.begin_episode()
    cell.supervisor.trigger_shutdown()
    assert cell.until_phase(Phase.ENDED).outcome is Outcome.ABORTED


def test_an_unknown_task_is_refused_at_start_and_live(executor) -> None:
    with pytest.raises(ConfigError, match="juggle"):
        SupervisorNode({"tasks": ["juggle"]})
    cell = Cell(executor)
    result = cell.supervisor.set_parameters([Parameter("task", value="juggle")])[0]
    assert not result.successful
    assert "juggle" in result.reason


def test_a_new_instruction_reaches_the_running_episode(executor) -> None:
    cell = idle_cell(executor)
    before = cell.begin_episode()
    cell.supervisor.set_parameters([Parameter("instruction", value="press the yellow button")])
    cell.until(lambda: cell.states[-1].instruction == "press the yellow button")
    assert cell.states[-1].epoch == before.epoch
    cell.supervisor.set_parameters([Parameter("instruction", value="")])
    cell.until(lambda: cell.states[-1].instruction == before.instruction)


def test_a_pair_takes_turns_without_moving_the_arm_or_the_scene(executor) -> None:
    cell = idle_cell(executor, reset="pair", pair_help="scripted", task="peg")
    begun = []
    for _ in range(3):
        cell.calls.clear()
        state = cell.begin_episode()
        begun.append((state.task, state.reset, state.instruction))
        moved = {call for call in cell.calls if call.split("/")[-1] in ("home", "reset")}
        assert bool(moved) == (len(begun) == 1)
        cell.succeed()
    assert begun == [
        ("peg", ResetKind.SCRIPTED, "insert the peg"),
        ("peg_out", ResetKind.NONE, "pull the peg out"),
        ("peg", ResetKind.NONE, "insert the peg"),
    ]
    assert cell.calls.count("impedance_controller/rearm") == 1
    assert "impedance_controller/recover" not in cell.calls


def test_a_pair_does_not_undo_a_hold_that_was_not_heard_of(executor) -> None:
    cell = pair_after_one_turn(executor)
    cell.refusals["rearm"] = "hold was asked for: call recover first"
    cell.ask("start_episode")
    state = cell.until_phase(Phase.ENDED)
    assert state.outcome is Outcome.FAULT
    assert "hold was asked for" in state.reason
    assert cell.calls == ["impedance_controller/rearm"]


def test_an_arm_that_is_not_heard_of_is_not_taken_to_rest(executor) -> None:
    cell = pair_after_one_turn(executor)
    cell.controller_age_s = 5.0
    cell.ask("start_episode")
    state = cell.until_phase(Phase.ENDED)
    assert "does not say that it rests" in state.reason
    assert cell.calls == []


def test_a_full_disk_ends_no_episode_and_is_shown(executor, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "gone"))
    cell = Cell(executor)
    reports: list[DiagnosticArray] = []
    cell.user.create_subscription(DiagnosticArray, "/diagnostics", reports.append, EVENT)
    cell.until_phase(Phase.IDLE)
    cell.begin_episode()
    cell.succeed()
    cell.until(
        lambda: any("human time is not written down" in r.status[0].message for r in reports)
    )


def test_a_false_start_is_refused_and_the_cell_goes_on(executor) -> None:
    cell = idle_cell(executor)
    cell.problem = "the cube does not lie on the table"
    cell.ask("start_episode")
    state = cell.until_phase(Phase.ENDED)
    assert state.outcome is Outcome.ABORTED
    assert state.reason == "false start refused: the cube does not lie on the table"
    cell.until_phase(Phase.IDLE)
    cell.problem = ""
    cell.begin_episode()


def test_a_person_is_asked_and_the_time_until_the_answer_is_counted(executor) -> None:
    cell = idle_cell(executor, reset="human")
    assert not cell.ask("reset_done")[0]
    cell.ask("start_episode")
    cell.until(lambda: cell.states[-1].is_waiting)
    assert "reset the scene for lift" in cell.states[-1].reason
    cell.until(lambda: bool(cell.ledger) and cell.ledger[-1].waiting_s > 0.4)
    assert cell.ask("reset_done")[0]
    assert cell.until_phase(Phase.RUNNING).reset is ResetKind.HUMAN
    cell.until(lambda: cell.ledger[-1].waiting_s == 0.0)
    assert cell.ledger[-1].num_resets == 1
    assert 0.4 < cell.ledger[-1].resetting_s < 10.0


def test_ticks_are_counted_published_and_drawn(executor) -> None:
    cell = idle_cell(executor)
    epoch = cell.begin_episode().epoch
    now_ns = cell.user.get_clock().now().nanoseconds
    driven = [Source.VLA, Source.HUMAN, Source.HUMAN, Source.HOLD, Source.HUMAN]
    cell.until(lambda: cell.executed.get_subscription_count() > 0)
    for index, source in enumerate(driven):
        for _ in range(2):
            cell.executed.publish(
                encode_executed(
                    ExecutedAction(
                        stamp_ns=now_ns + index * 100_000_000,
                        epoch=epoch,
                        source=source,
                        executed=np.zeros(7),
                        base=np.zeros(7),
                        residual=np.zeros(7),
                        chunk_id=1,
                        chunk_step=index,
                    )
                )
            )
    cell.until(lambda: bool(cell.ledger) and cell.ledger[-1].episode.ticks == len(driven))
    time = cell.ledger[-1]
    assert time.session == DriveCount(ticks=5, human_ticks=3, interventions=2)
    assert time.intervening_s == pytest.approx(0.3)
    cell.until(lambda: "2 interventions, 60 %" in cell.text("human"))


@pytest.mark.parametrize("who", ["classifier", "operator", "ground_truth"])
def test_an_outcome_says_who_judged(executor, who: str) -> None:
    source = "classifier" if who == "operator" else who
    cell = Cell(executor, outcome_source=source)
    classifier = cell.user.create_publisher(JointState, "task/success", EVENT)

    def judge() -> None:
        # Not before the episode runs: a start that is done already would be refused.
        is_running = bool(cell.states) and cell.states[-1].phase is Phase.RUNNING
        is_decided = is_running and who == "classifier"
        channels = {"success.probability": 0.9, "success.decided": float(is_decided)}
        now_ns = cell.user.get_clock().now().nanoseconds
        classifier.publish(encode_channels(channels, now_ns, "0123456789ab lift"))

    cell.user.create_timer(0.05, judge)
    cell.until_phase(Phase.IDLE)
    cell.begin_episode()
    cell.is_done = who == "ground_truth"
    if who == "operator":
        assert cell.ask("end_episode", SetBool, data=True)[0]
    ended = cell.until_phase(Phase.ENDED)
    assert ended.outcome is Outcome.SUCCESS
    assert ended.judge == ("classifier 0123456789ab lift" if who == "classifier" else who)


def test_labelling_is_counted_while_somebody_says_so(executor) -> None:
    cell = idle_cell(executor)
    assert cell.ask("labelling", SetBool, data=True)[0]
    cell.until(lambda: bool(cell.ledger) and cell.ledger[-1].labelling_s > 0.2)
    assert cell.ask("labelling", SetBool, data=False)[0]
    cell.until(lambda: cell.ledger[-1] == cell.ledger[-2])


def test_the_clock_of_the_label_command_reaches_the_ledger(executor) -> None:
    cell = idle_cell(executor)
    report = LedgerReport()
    done = threading.Event()

    def label() -> None:
        with LabelClock(report) as clock:
            clock.touch()
            done.wait(20.0)
        cell.heard_s = clock.ledger_s

    worker = threading.Thread(target=label)
    worker.start()
    cell.until(lambda: bool(cell.ledger) and cell.ledger[-1].labelling_s > 0.2)
    done.set()
    cell.until(lambda: not worker.is_alive())
    report.close()
    cell.until(lambda: cell.ledger[-1] == cell.ledger[-2])
    assert cell.ledger[-1].labelling_s == pytest.approx(cell.heard_s, abs=0.5)
