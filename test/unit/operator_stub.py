# SPDX-License-Identifier: Apache-2.0
"""An operator's view without a cell behind it, and the server around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np

from vla_rl_ros.tools.operator_server import OperatorServer

COUNT = {"ticks": 100, "human_ticks": 12, "interventions": 3, "rate": 0.12}


class StubView:
    """Answers as a running cell would, and remembers what was pressed."""

    def __init__(self) -> None:
        self.pressed: list[str] = []
        self.answer = (True, "as you wish")
        self.slow: set[str] = set()
        self.waiting: list[Future[tuple[bool, str]]] = []
        self.brightness = 200
        self.may_look = threading.Event()
        self.may_look.set()
        self.state: dict[str, Any] = {
            "episode": {
                "phase": "running",
                "id": "20260102T000000Z_peg_0000",
                "task": "peg",
                "instruction": "insert the peg",
                "outcome": "",
                "reset": "none",
                "reason": "",
                "is_waiting": False,
                "phase_s": 4.0,
            },
            "last": {"id": "e0", "outcome": "aborted", "reason": "false start refused"},
            "driver": "human",
            "success": {
                "task/success": {
                    "silent_s": 0.1,
                    "value": {"probability": 0.87, "is_decided": False, "model": "abc peg"},
                }
            },
            "human": {
                "intervening_s": 30.0,
                "resetting_s": 60.0,
                "labelling_s": 0.0,
                "total_s": 90.0,
                "waiting_s": 0.0,
                "num_resets": 1,
                "num_rolling": 20,
                "session": COUNT,
                "episode": COUNT,
                "rolling": COUNT,
            },
            "silent_s": {"supervisor": 0.1, "gate": 0.1},
            "nodes": [
                {"name": "intervention", "level": 0, "message": "human drives", "silent_s": 0.4},
                {"name": "learner", "level": 0, "message": "active", "silent_s": 12.0},
            ],
            "cameras": ["wrist", "front"],
        }

    def snapshot(self) -> dict[str, Any]:
        return self.state

    def image(self, camera: str) -> np.ndarray | None:
        if camera == "front":
            return None
        if camera != "wrist":
            raise KeyError(camera)
        self.may_look.wait(10.0)
        return np.full((48, 64, 3), self.brightness, np.uint8)

    def press(self, button: str) -> Future[tuple[bool, str]]:
        if button not in ("start", "success", "failure", "stop", "recover", "reset_done"):
            raise KeyError(button)
        self.pressed.append(button)
        future: Future[tuple[bool, str]] = Future()
        if button in self.slow:
            self.waiting.append(future)
        else:
            future.set_result(self.answer)
        return future

    def answer_slow(self) -> None:
        """Answer the presses of buttons in `slow`."""
        while self.waiting:
            self.waiting.pop().set_result(self.answer)


@contextmanager
def serving(view: StubView, host: str = "127.0.0.1") -> Iterator[OperatorServer]:
    """A server on a free port."""
    server = OperatorServer(view, host, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
