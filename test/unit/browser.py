# SPDX-License-Identifier: Apache-2.0
"""A real browser without a window, driven over the Chrome DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Tab:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._count = 0
        self.complaints: list[str] = []

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        self._count += 1
        request = {"id": self._count, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        while True:
            message = json.loads(self._socket.recv(timeout=20.0))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"]))
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, element_id: str) -> str:
        return str(self.value(f"document.getElementById('{element_id}').textContent"))

    def click(self, selector: str) -> None:
        """With the mouse, where the element is."""
        box = self.value(
            f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView();"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def until(self, script: str, timeout_s: float = 20.0) -> None:
        end_s = time.monotonic() + timeout_s
        while not self.value(script):
            assert time.monotonic() < end_s, f"never: {script}"

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a fresh browser; skips the test where there is none."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    client = pytest.importorskip("websockets.sync.client", reason="the browser speaks websocket")
    errors = (folder / "browser.log").open("wb")
    process = subprocess.Popen(
        [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1100,1200",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )
    try:
        with client.connect(_tab_address(folder, process), max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        errors.close()


@contextmanager
def further_tab(folder: Path) -> Iterator[Tab]:
    """Another tab of the browser that runs in a folder; in a window of its own, so it is shown."""
    from websockets.sync import client

    port = (folder / "profile" / "DevToolsActivePort").read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/version") as answer:
        browser = json.load(answer)["webSocketDebuggerUrl"]
    with client.connect(browser, max_size=None) as socket:
        target = Tab(socket).ask("Target.createTarget", url="about:blank", newWindow=True)
    page = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
    with client.connect(page, max_size=None) as socket:
        yield Tab(socket)


def _tab_address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    port_file = folder / "profile" / "DevToolsActivePort"
    end_s = time.monotonic() + 40.0
    while time.monotonic() < end_s:
        assert process.poll() is None, (folder / "browser.log").read_text()
        if port_file.is_file() and len(lines := port_file.read_text().split()) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
    raise AssertionError((folder / "browser.log").read_text())
