# SPDX-License-Identifier: Apache-2.0
"""The operator's view on a graph of stand-ins: what it hears, presses, and says of silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node.cell_stub import CellStub
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.human_ledger import HumanLedger
from vla_rl_ros.core.intervention import ExecutedAction, Source
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.human_time import encode_human_time
from vla_rl_ros.ros.operator_view import OperatorView

pytestmark = pytest.mark.ros


class Cell(CellStub):
    """A graph with services that remember what was asked of them."""

    def __init__(self, executor) -> None:
        super().__init__(executor, ())
        self.calls: list[str] = []
        self.refusal = ""
        self.cameras = {"wrist"}
        self.create_service(Trigger, "supervisor/start_episode", self.answer("start"))
        self.create_service(Trigger, "supervisor/recover", self.answer("recover"))
        self.create_service(Trigger, "supervisor/reset_done", self.answer("reset_done"))
        self.create_service(Trigger, "impedance_controller/hold", self.answer("hold"))
        self.create_service(SetBool, "supervisor/end_episode", self.answer("end"))

    def answer(self, name: str):
        def handle(request, response):
            data = getattr(request, "data", None)
            self.calls.append(name if data is None else f"{name} {data}")
            response.success, response.message = not self.refusal, self.refusal or "as you wish"
            return response

        return handle


@pytest.fixture
def view(executor) -> Iterator[OperatorView]:
    made = OperatorView()
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            made.spin_once()

    thread = threading.Thread(target=spin)
    thread.start()
    yield made
    stop.set()
    thread.join(10.0)
    made.close()


@pytest.fixture
def cell(executor) -> Cell:
    return Cell(executor)


def when(cell: Cell, view: OperatorView, holds: Callable[[dict], bool]) -> dict:
    assert cell.until(lambda: holds(view.snapshot())), view.snapshot()
    return view.snapshot()


def test_it_shows_what_the_graph_says(cell: Cell, view: OperatorView) -> None:
    cell.enter(Phase.RUNNING, epoch=3)
    seen = when(cell, view, lambda s: s["episode"] is not None)
    assert (seen["episode"]["phase"], seen["episode"]["task"]) == ("running", "lift")
    ledger = HumanLedger(0.1, window=5)
    ledger.tick(3, 1, Source.HUMAN)

    def talk(state: dict) -> bool:
        now_ns = cell.now_ns()
        success = {"success.probability": 0.9, "success.decided": 1.0}
        cell.send("task/success", encode_channels(success, now_ns, "abc peg"))
        cell.send("human/ledger", encode_human_time(ledger.time(0.0), now_ns))
        row = ExecutedAction(
            stamp_ns=now_ns,
            epoch=3,
            source=Source.HUMAN,
            executed=np.zeros(7),
            base=np.zeros(7),
            residual=np.zeros(7),
            chunk_id=1,
            chunk_step=1,
        )
        cell.send("action/executed", encode_executed(row))
        status = DiagnosticStatus(level=bytes([1]), name="/learner", message="slow")
        cell.send("/diagnostics", DiagnosticArray(status=[status]))
        return bool(state["success"] and state["human"] and state["driver"] and state["nodes"])

    seen = when(cell, view, talk)
    judged = seen["success"]["task/success"]["value"]
    assert judged == {"probability": 0.9, "is_decided": True, "model": "abc peg"}
    assert seen["driver"] == "human"
    assert seen["human"]["episode"]["human_ticks"] == 1
    node = seen["nodes"][0]
    assert (node["name"], node["level"], node["message"]) == ("learner", 1, "slow")


def test_images_are_listened_to_only_while_somebody_looks(cell: Cell, view: OperatorView) -> None:
    topic = "camera/wrist/image"
    assert cell.until(lambda: cell.count_publishers(topic) > 0)
    assert cell.count_subscribers(topic) == 0
    assert cell.until(lambda: view.image("wrist") is not None)
    assert view.image("wrist").shape == (8, 8, 3)
    assert view.image("front") is None
    with pytest.raises(KeyError):
        view.image("roof")
    cell.cameras = set()
    when(cell, view, lambda s: s["silent_s"].get("camera_wrist", 0.0) > 0.5)
    assert cell.until(lambda: cell.count_subscribers(topic) == 0, timeout_s=15.0)


def test_buttons_reach_their_services(cell: Cell, view: OperatorView) -> None:
    for button, call in (
        ("start", "start"),
        ("success", "end True"),
        ("failure", "end False"),
        ("stop", "hold"),
        ("recover", "recover"),
        ("reset_done", "reset_done"),
    ):
        # Discovery takes its time; a button pressed before it says so.
        def is_reached(button: str = button, call: str = call) -> bool:
            answer = view.press(button)
            assert cell.until(answer.done)
            return answer.result() == (True, "as you wish") and cell.calls[-1] == call

        assert cell.until(is_reached)
    cell.refusal = "the cell is idle, no episode runs"
    answer = view.press("success")
    assert cell.until(answer.done)
    assert answer.result() == (False, cell.refusal)
    with pytest.raises(KeyError):
        view.press("self_destruct")


def test_a_stop_is_sent_though_the_view_itself_hangs(executor, cell: Cell) -> None:
    view = OperatorView()
    try:
        # Nobody calls `spin_once`: it may be busy with images of other tabs.
        assert cell.until(lambda: view.node.count_services("impedance_controller/hold") > 0)

        def is_sent() -> bool:
            view.press("stop")
            return cell.until(lambda: "hold" in cell.calls, timeout_s=0.5)

        assert cell.until(is_sent)
        assert view.press("start").done() is False
    finally:
        view.close()


def test_a_dead_supervisor_is_told_by_its_silence_and_its_buttons_say_so(
    cell: Cell, view: OperatorView
) -> None:
    when(cell, view, lambda s: s["episode"] is not None)
    assert view.snapshot()["silent_s"]["supervisor"] < 1.0
    cell.is_supervised = False
    begin_s = time.monotonic()
    when(cell, view, lambda s: s["silent_s"]["supervisor"] > 1.2)
    assert time.monotonic() - begin_s > 1.0
    # What was known last stays, with its age.
    assert view.snapshot()["episode"]["phase"] == "idle"


def test_without_a_graph_every_button_is_answered(view: OperatorView) -> None:
    for button in ("start", "stop"):
        is_done, sentence = view.press(button).result(5.0)
        assert not is_done
        assert "is its node running?" in sentence
    assert view.snapshot()["episode"] is None
