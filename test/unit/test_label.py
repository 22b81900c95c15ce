# SPDX-License-Identifier: Apache-2.0
"""Labels: what follows from outcomes, buttons and truth, and a set that survives a kill."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from io import StringIO

import numpy as np
import pytest
from unit.classifier_samples import CAMERAS, grey, write_brightness_classifier

from vla_rl_ros.core.episode import Outcome
from vla_rl_ros.core.errors import BagError, ConfigError
from vla_rl_ros.data.label_frames import EpisodeFrames, Mark
from vla_rl_ros.data.label_rules import LabelRules, labels_of, pick
from vla_rl_ros.data.label_set import LabelSet
from vla_rl_ros.learning.classifier_model import SuccessModel
from vla_rl_ros.tools.label import add_episode
from vla_rl_ros.tools.label_viewer import Review, make_server, view_in_terminal
from vla_rl_ros.tools.loopback_http import PageHandler

TICK_NS = 100_000_000


def frames(count=30, *, outcome=Outcome.SUCCESS, end=20, shades=None, **changes):
    shades = [20] * count if shades is None else shades
    stack = np.stack([grey(shade)["wrist"][0] for shade in shades])
    values = {
        "episode": "one",
        "task": "lift",
        "source": "bags/one",
        "outcome": outcome,
        "stamps_ns": TICK_NS * np.arange(count),
        "images": dict.fromkeys(CAMERAS, stack),
        "states": np.zeros((count, 4), np.float32),
        "start_ns": 0,
        "end_ns": TICK_NS * end,
    }
    return EpisodeFrames(**{**values, **changes})


def spans(labels):
    """Runs of equal labels: first letter and length."""
    found = []
    for label in labels:
        if found and found[-1][0] == label[0] + label[1]:
            found[-1][1] += 1
        else:
            found.append([label[0] + label[1], 1])
    return [(name, length) for name, length in found]


def test_the_end_of_a_success_is_one_and_what_leads_to_it_is_in_doubt():
    labels = labels_of(frames(), LabelRules(success_s=0.2, doubt_s=0.3))
    assert spans(labels) == [("fa", 15), ("sk", 3), ("su", 12)]


@pytest.mark.parametrize("outcome", [Outcome.FAILURE, Outcome.TIMEOUT])
def test_every_frame_of_a_failure_is_one(outcome):
    assert spans(labels_of(frames(outcome=outcome), LabelRules())) == [("fa", 30)]


@pytest.mark.parametrize("outcome", [None, Outcome.ABORTED, Outcome.FAULT])
def test_an_end_that_says_nothing_labels_nothing(outcome):
    assert spans(labels_of(frames(outcome=outcome), LabelRules())) == [("sk", 30)]


def test_a_button_of_the_operator_wins_for_a_moment():
    marks = (
        Mark(stamp_ns=5 * TICK_NS, name="success"),
        Mark(stamp_ns=25 * TICK_NS, name="failure"),
    )
    labels = labels_of(frames(outcome=Outcome.TIMEOUT, marks=marks), LabelRules(mark_s=0.2))
    assert spans(labels) == [("fa", 5), ("su", 3), ("fa", 22)]


def test_truth_labels_all_but_what_is_nearly_true():
    truth = np.arange(30) >= 20
    labels = labels_of(frames(truth=truth), LabelRules(source="truth", doubt_s=0.3))
    assert spans(labels) == [("fa", 17), ("sk", 3), ("su", 10)]
    with pytest.raises(BagError, match="does not hold"):
        labels_of(frames(), LabelRules(source="truth"))


def test_the_end_and_a_spread_are_picked_or_what_is_hardest():
    labels = np.array(["failure"] * 20 + ["success"] * 10)
    rules = LabelRules(positives=3, negatives=6)
    chosen = pick(labels, rules)
    assert len(chosen) == 9
    assert {17, 18, 19, 20, 29, 0} <= set(chosen.tolist())
    hardness = np.zeros(30)
    hardness[[2, 3, 5, 7, 11, 13, 22, 24, 26]] = 0.9
    assert pick(labels, rules, hardness).tolist() == [2, 3, 5, 7, 11, 13, 22, 24, 26]


def test_a_set_keeps_frames_labels_and_who_said_so(tmp_path):
    labels = LabelSet(tmp_path, "lift", CAMERAS)
    rules = LabelRules(positives=4, negatives=5)
    add_episode(labels, frames(shades=range(30)), rules, None, 100, 100)
    add_episode(labels, frames(episode="two", outcome=Outcome.FAILURE), rules, None, 100, 100)
    # The same episode again changes nothing: that is how a stopped command goes on.
    add_episode(labels, frames(shades=range(100, 130)), rules, None, 100, 100)
    again = LabelSet(tmp_path)
    assert again.counts() == {"success": 4, "failure": 10, "skip": 0}
    loaded = again.load()
    assert loaded.is_success.sum() == 4
    assert set(loaded.episodes) == {"one", "two"}
    shades = loaded.images["wrist"][:, 0, 0, 0]
    np.testing.assert_array_equal(shades[:9], loaded.stamps_ns[:9] // TICK_NS)
    assert {word.who for word in again.words} == {"outcome"}


def test_a_set_never_grows_beyond_its_limits(tmp_path):
    labels = LabelSet(tmp_path, "lift", CAMERAS)
    for number in range(6):
        add_episode(labels, frames(episode=f"{number}"), LabelRules(), None, 10, 25)
    assert labels.counts() == {"success": 10, "failure": 25, "skip": 0}


def test_what_a_classifier_gets_wrong_comes_first(tmp_path):
    model = SuccessModel(write_brightness_classifier(tmp_path / "model"))
    shades = np.full(30, 20)
    shades[[3, 8]] = 240  # near-misses: they look like success
    labels = LabelSet(tmp_path / "labels", "lift", CAMERAS)
    seen = frames(outcome=Outcome.FAILURE, shades=shades)
    add_episode(labels, seen, LabelRules(negatives=2), model, 10, 10)
    assert [word.stamp_ns // TICK_NS for word in labels.words] == [3, 8]


def test_a_frame_somebody_marked_waits_for_a_person(tmp_path):
    labels = LabelSet(tmp_path, "lift", CAMERAS)
    marks = (Mark(stamp_ns=7 * TICK_NS, name="mark"),)
    seen = frames(outcome=Outcome.FAILURE, marks=marks)
    add_episode(labels, seen, LabelRules(negatives=2), None, 10, 10)
    assert labels.counts()["skip"] == 1


def test_a_torn_last_line_is_forgotten_and_the_episode_comes_again(tmp_path):
    labels = LabelSet(tmp_path, "lift", CAMERAS)
    add_episode(labels, frames(), LabelRules(), None, 100, 100)
    path = tmp_path / "labels.jsonl"
    path.write_text(path.read_text() + '{"episode": "two", "bag')
    again = LabelSet(tmp_path)
    assert again.episodes == {"one"}
    add_episode(again, frames(episode="two"), LabelRules(), None, 100, 100)
    assert LabelSet(tmp_path).episodes == {"one", "two"}


def test_other_tasks_cameras_and_damage_are_refused_by_name(tmp_path):
    LabelSet(tmp_path, "lift", CAMERAS)
    with pytest.raises(ConfigError, match="holds 'lift'"):
        LabelSet(tmp_path, "peg", CAMERAS)
    with pytest.raises(ConfigError, match="no label set"):
        LabelSet(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no labelled frame"):
        LabelSet(tmp_path).load()
    (tmp_path / "labels.jsonl").write_text('{"episode": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        LabelSet(tmp_path)


def test_a_name_that_leads_out_of_the_set_is_refused(tmp_path):
    labels = LabelSet(tmp_path / "set", "lift", CAMERAS)
    with pytest.raises(ConfigError, match="no name for a file"):
        add_episode(labels, frames(episode="../../x"), LabelRules(), None, 100, 100)
    assert not labels.episodes


@pytest.fixture
def labels(tmp_path):
    made = LabelSet(tmp_path, "lift", CAMERAS)
    add_episode(made, frames(), LabelRules(positives=2, negatives=2), None, 9, 9)
    return made


def test_the_terminal_takes_keys_and_stores_at_once(labels):
    shown = StringIO()
    touched = []
    review = Review(labels, "ada", lambda: touched.append(len(touched)))
    view_in_terminal(review, StringIO("f\nnonsense\nx\nb\ns\nq\n"), shown)
    found = LabelSet(labels.directory).words
    assert [(word.label, word.who) for word in found[:3]] == [
        ("failure", "ada"), ("success", "ada"), ("success", "outcome"),
    ]  # fmt: skip
    assert "1 of 4" in shown.getvalue()
    assert len(touched) > 6


class Page:
    """A browser, as far as the server can tell."""

    def __init__(self, labels):
        self.server = make_server(Review(labels, "ada"), 0)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def get(self, path, **headers):
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read()

    def post(self, path, body, kind="application/json", **headers):
        request = urllib.request.Request(
            f"{self.address}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": kind, **headers},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())

    def close(self):
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def page(labels):
    made = Page(labels)
    yield made
    made.close()


def test_the_page_shows_frames_and_stores_labels(page, labels):
    assert b"http" not in page.get("/").replace(b"http-equiv", b"")  # nothing from elsewhere
    shown = json.loads(page.get("/frames"))
    assert [frame["label"] for frame in shown["frames"]] == ["failure"] * 2 + ["success"] * 2
    assert page.get("/image?n=0&camera=wrist").startswith(b"\x89PNG")
    assert page.post("/label", {"n": 1, "label": "skip"}) == {"label": "skip", "who": "ada"}
    assert LabelSet(labels.directory).counts() == {"success": 2, "failure": 1, "skip": 1}


def test_the_page_says_when_it_is_done(page):
    assert page.post("/done", {}) == {}


@pytest.mark.parametrize("body", [{"n": 99, "label": "skip"}, {"n": 0, "label": "maybe"}, {}, []])
def test_nonsense_is_refused_and_changes_nothing(page, labels, body):
    with pytest.raises(urllib.error.HTTPError) as refused:
        page.post("/label", body)
    assert refused.value.code == 400
    refused.value.close()
    assert LabelSet(labels.directory).counts()["skip"] == 0


@pytest.mark.parametrize(
    ("kind", "headers"),
    [("text/plain", {}), ("application/json", {"Host": "evil.example"})],
)
def test_other_sites_cannot_label(page, kind, headers):
    with pytest.raises(urllib.error.HTTPError) as refused:
        page.post("/label", {"n": 0, "label": "skip"}, kind, **headers)
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.parametrize("length", ["-1", "abc", "", "99999", "\u00b2"])
def test_a_length_that_is_none_is_refused_at_once(page, length):
    connection = http.client.HTTPConnection(*page.server.server_address[:2], timeout=5.0)
    connection.putrequest("POST", "/label")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_a_connection_that_says_nothing_is_closed(page, monkeypatch):
    monkeypatch.setattr(PageHandler, "timeout", 0.02)
    with socket.create_connection(page.server.server_address[:2], timeout=5.0) as connection:
        assert connection.recv(1) == b""


def test_no_other_page_may_show_ours_in_a_frame(page):
    with urllib.request.urlopen(f"{page.address}/", timeout=5) as answer:
        text, headers = answer.read().decode(), answer.headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Frame-Options"] == "DENY"
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in text
    assert "{{" not in text


def test_other_sites_cannot_look(page):
    with pytest.raises(urllib.error.HTTPError) as refused:
        page.get("/image?n=0&camera=wrist", Host="evil.example")
    assert refused.value.code == 403
    refused.value.close()
