# SPDX-License-Identifier: Apache-2.0
"""The operator's page in a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from unit.browser import Tab, browser_tab, further_tab
from unit.operator_stub import StubView, serving

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def tab(folder: Path) -> Iterator[Tab]:
    with browser_tab(folder) as tab:
        yield tab


def test_the_page_shows_the_cell_and_presses_its_buttons(tab: Tab) -> None:
    view = StubView()
    with serving(view) as server:
        tab.open(server.url)
        tab.until("document.getElementById('phase').textContent === 'running'")
        assert tab.text("driver") == "human"
        assert tab.text("last") == "last episode: aborted, false start refused (e0)"
        assert tab.text("told") == "peg: insert the peg"
        assert "0.87, not done abc peg" in tab.text("success")
        assert tab.text("episode_count") == "3"
        assert tab.text("rolling_rate") == "12.0 %"
        assert tab.text("total_s") == "1.50 min"
        assert "silent for 12 s" in tab.value(
            "document.querySelector('[data-node=learner]').innerText"
        )
        assert tab.value("document.getElementById('alarm').offsetHeight") == 0
        tab.until("document.querySelector('#cameras img')?.naturalWidth === 64")
        for button in ("start", "success", "failure", "stop", "recover", "reset_done"):
            tab.click(f"button[data-press={button}]")
            tab.until("document.getElementById('said').textContent.includes('as you wish')")
            assert view.pressed[-1] == button
            tab.value("document.getElementById('said').textContent = ''")
        view.answer = (False, "the cell is idle, no episode runs")
        tab.click("button[data-press=success]")
        tab.until("document.getElementById('said').textContent.includes('REFUSED, the cell')")
    assert tab.complaints == []


def test_presses_that_wait_never_bar_the_stop(tab: Tab) -> None:
    view = StubView()
    view.slow = {"start", "success", "failure", "recover", "reset_done"}
    with serving(view) as server:
        tab.open(server.url)
        tab.until("document.getElementById('phase').textContent === 'running'")
        for button in sorted(view.slow):
            for _ in range(3):
                tab.click(f"button[data-press={button}]")
            assert tab.value(f"document.querySelector('[data-press={button}]').disabled")
        for count in (1, 2):
            tab.click("button[data-press=stop]")
            tab.until("document.getElementById('said').textContent.includes('STOP')")
            tab.until("document.getElementById('said').textContent.includes('as you wish')")
            assert view.pressed.count("stop") == count
            assert not tab.value("document.querySelector('[data-press=stop]').disabled")
            tab.value("document.getElementById('said').textContent = ''")
        assert sorted(set(view.pressed) - {"stop"}) == sorted(view.slow)
        assert len(view.pressed) == len(view.slow) + 2
        view.answer_slow()
        tab.until("document.querySelectorAll('button:disabled').length === 0")


def test_two_tabs_that_wait_for_everything_do_not_delay_the_stop(tab: Tab, folder: Path) -> None:
    view = StubView()
    view.slow = {"start", "success", "failure", "recover", "reset_done"}
    with serving(view) as server, further_tab(folder) as other:
        for each in (tab, other):
            each.open(server.url)
            each.until("document.getElementById('phase').textContent === 'running'")
            for button in sorted(view.slow):
                each.click(f"button[data-press={button}]")
        # Neither gets its images, either.
        view.may_look.clear()
        for count, each in enumerate((tab, other), 1):
            begin_s = time.monotonic()
            each.click("button[data-press=stop]")
            each.until("document.getElementById('said').textContent.includes('as you wish')")
            assert time.monotonic() - begin_s < 1.5
            assert view.pressed.count("stop") == count
        view.may_look.set()
        view.answer_slow()
        for each in (tab, other):
            each.until("document.querySelectorAll('button:disabled').length === 0")


def test_silence_prompts_and_a_dead_server_are_shown(tab: Tab) -> None:
    view = StubView()
    with serving(view) as server:
        tab.open(server.url)
        tab.until("document.getElementById('phase').textContent === 'running'")
        view.state["silent_s"] = {"supervisor": 7.3, "gate": 9.0}
        tab.until("document.getElementById('alarm').offsetHeight > 0")
        assert tab.text("alarm") == "supervisor silent for 7 s; gate silent for 9 s"
        view.state["silent_s"] = {"supervisor": 0.1, "gate": 9.0}
        view.state["episode"] |= {
            "phase": "resetting",
            "is_waiting": True,
            "reason": "put it back",
        }
        view.state["human"]["waiting_s"] = 41.0
        tab.until("document.getElementById('alarm').textContent.startsWith('waiting')")
        assert tab.text("alarm") == "waiting for you for 41 s: put it back"
    tab.until("document.getElementById('alarm').textContent.includes('what you see is old')")
    tab.click("button[data-press=start]")
    tab.until("document.getElementById('said').textContent.includes('does not answer')")
    assert view.pressed == []


class _Foreign(BaseHTTPRequestHandler):
    """A page of somebody else."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>foreign</title>")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_page_of_somebody_else_neither_reads_nor_presses(tab: Tab) -> None:
    view = StubView()
    foreign = ThreadingHTTPServer(("127.0.0.1", 0), _Foreign)
    thread = threading.Thread(target=foreign.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with serving(view) as server:
            tab.open(f"http://127.0.0.1:{foreign.server_address[1]}/")
            target = f"http://127.0.0.1:{server.server_address[1]}"
            read = f"fetch('{target}/state').then(() => 'read').catch(() => 'blocked')"
            assert tab.value(read) == "blocked"
            for mode in ("cors", "no-cors"):
                press = f"fetch('{target}/press/start', {{method: 'POST', mode: '{mode}'"
                assert tab.value(f"{press}}}).then(() => 'sent').catch(() => 'blocked')")
            tab.value(
                "(() => { const f = document.createElement('form');"
                f"f.method = 'POST'; f.action = '{target}/press/stop'; f.target = 'w';"
                "const w = document.createElement('iframe'); w.name = 'w';"
                "document.body.append(w, f); f.submit(); })()"
            )
            tab.value(
                "(() => { const w = document.createElement('iframe');"
                f"w.src = '{target}/'; document.body.append(w); }})()"
            )
            # The tab sends in order: once this is answered, everything before has been.
            assert tab.value(read) == "blocked"
            assert view.pressed == []
    finally:
        foreign.shutdown()
        foreign.server_close()
        thread.join(5.0)


def test_a_picture_of_the_page_can_be_taken(tab: Tab, tmp_path: Path) -> None:
    with serving(StubView()) as server:
        tab.open(server.url)
        tab.until("document.querySelector('#cameras img')?.naturalWidth === 64")
        tab.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
