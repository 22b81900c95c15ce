# SPDX-License-Identifier: Apache-2.0
"""A policy server that speaks openpi's published protocol, run as a process of its own.

Shares no code with the package: it packs arrays by itself. What it does is told by the prompt, so
that one process serves every test; ``python openpi_server.py PORT LOG`` prints its port.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np

HORIZON, DIM = 10, 7


def pack_array(value):
    return {
        b"__ndarray__": True,
        b"data": np.ascontiguousarray(value).tobytes(),
        b"dtype": value.dtype.str,
        b"shape": list(value.shape),
    }


def unpack_array(value):
    if b"__ndarray__" in value:
        flat = np.frombuffer(value[b"data"], dtype=value[b"dtype"])
        return flat.reshape(value[b"shape"])
    return value


def describe(question: dict) -> dict:
    return {
        key: [str(value.dtype), list(value.shape), float(value.sum())]
        if isinstance(value, np.ndarray)
        else value
        for key, value in question.items()
    }


def predict(question: dict) -> np.ndarray:
    """Rows that follow from what was sent; a prefix is repeated as Being-H's server does."""
    rows = np.zeros((HORIZON, DIM), dtype=np.float32)
    rows[:, :3] = 0.01 * np.sin(np.arange(HORIZON)[:, None] + question["state"][:3])
    rows[:, 6] = 1.0
    if "prev_chunk" in question:
        num_locked = question["inference_delay"]
        rows[:num_locked] = question["prev_chunk"][:num_locked]
    return rows


def with_actions(actions: object) -> bytes:
    return msgpack.packb({"actions": actions, "server_timing": {"infer_ms": 1.0}})


NONSENSE = {
    "garbage": bytes(range(128, 256)) * 4,
    "huge": bytes(64 * 2**20),
    "text": "Traceback (most recent call last):\n  ...\nKeyError: 'observation/image'\n",
    "list": msgpack.packb([1, 2, 3]),
    "nameless": msgpack.packb({"action": pack_array(np.zeros((HORIZON, DIM)))}),
    "few rows": with_actions(pack_array(np.zeros((5, DIM)))),
    "wide rows": with_actions(pack_array(np.zeros((HORIZON, 32)))),
    "nan": with_actions(pack_array(np.full((HORIZON, DIM), np.nan))),
    "short": with_actions({**pack_array(np.zeros((HORIZON, DIM))), b"data": b"abc"}),
    "object": with_actions({**pack_array(np.zeros((HORIZON, DIM))), b"dtype": "|O"}),
}
"""Answers that are none, by prompt."""


def answer(question: dict) -> bytes | str:
    """What goes over the wire for a prompt."""
    prompt = question["prompt"]
    if prompt == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if prompt.startswith("sleep "):
        time.sleep(float(prompt.removeprefix("sleep ")))
    return NONSENSE.get(prompt) or with_actions(pack_array(predict(question)))


def serve(port: int, log: Path) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve as serve_websockets

    def handle(link) -> None:
        link.send(msgpack.packb({"name": "test server"}))
        try:
            while True:
                question = msgpack.unpackb(link.recv(), object_hook=unpack_array)
                with log.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(describe(question)) + "\n")
                reply = answer(question)
                link.send(reply)
                if isinstance(reply, str):
                    link.close(1011, "Internal server error.")
        except ConnectionClosed:
            pass

    with serve_websockets(handle, "127.0.0.1", port, compression=None, max_size=None) as server:
        sys.stdout.write(f"{server.socket.getsockname()[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


class ServerProcess:
    """The server as a process that a test may kill and start again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "questions.jsonl"
        self._process: subprocess.Popen | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port), str(self._log)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def questions(self) -> list[dict]:
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
