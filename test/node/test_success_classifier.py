# SPDX-License-Identifier: Apache-2.0
"""The success classifier on a real graph: what it decides, and when it says nothing."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from node.cell_stub import CellStub
from unit.classifier_samples import PX, write_brightness_classifier

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.types import GripperState
from vla_rl_ros.learning.classifier_model import SuccessModel
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.nodes import success_classifier
from vla_rl_ros.ros.nodes.success_classifier import SuccessClassifierNode
from vla_rl_ros.ros.urgency import Urgency, hurry_thread, own_urgency

pytestmark = pytest.mark.ros
NODE = "/success_classifier"
DARK, BRIGHT = 20, 230


class Cell(CellStub):
    """A cell whose cameras show one shade of grey, at a rate of their own."""

    def __init__(self, executor) -> None:
        super().__init__(executor, ("task/success", "/diagnostics"))
        self.shade, self.late_ns, self.size_px = DARK, 0, PX
        self.seeing = {"wrist", "front"}
        self.width_m = 0.04
        self.create_timer(0.03, self._show)

    def _show(self) -> None:
        image = np.full((self.size_px, self.size_px, 3), self.shade, np.uint8)
        now_ns = self.now_ns()
        for name in self.seeing:
            stamp_ns = now_ns - (self.late_ns if name == "wrist" else 0)
            self.send(f"camera/{name}/image", codecs.encode_image(image, stamp_ns, name))
        self.send(
            "gripper/state",
            codecs.encode_gripper(
                GripperState(
                    stamp_ns=now_ns, width_m=self.width_m, is_moving=False, is_grasped=False
                )
            ),
        )

    @property
    def verdicts(self) -> list[bool]:
        return [message.position[1] > 0.5 for message in self.heard["task/success"]]

    def judged(self, count: int) -> bool:
        begin = len(self.verdicts)
        return self.until(lambda: len(self.verdicts) >= begin + count)


@pytest.fixture
def classifier(tmp_path):
    return write_brightness_classifier(
        tmp_path / "bright", task="lift", checks={"gripper.width_m": (0.0, 0.07)}
    )


@pytest.fixture
def cell(executor):
    return Cell(executor)


@pytest.fixture
def node(cell, classifier):
    made = SuccessClassifierNode(
        {"autostart": False, "classifiers": [str(classifier)], "rate_hz": 25.0}
    )
    cell.episode = replace(cell.episode, task="lift")
    cell.bring_up(made)
    cell.enter(Phase.RUNNING)
    yield made
    made.trigger_shutdown()


def test_it_decides_after_enough_frames_and_says_by_which_version(cell, node, classifier):
    assert cell.judged(3)
    assert not any(cell.verdicts)
    cell.shade = BRIGHT
    assert cell.until(lambda: cell.verdicts[-1])
    message = cell.heard["task/success"][-1]
    assert message.position[0] > 0.9
    hashed, name = message.header.frame_id.split(" ", 1)
    assert (len(hashed), name) == (12, "bright")
    bright = [m.position[0] > 0.5 for m in cell.heard["task/success"]]
    # The third bright frame decides, no earlier one does.
    assert cell.verdicts.index(True) == bright.index(True) + 2


@pytest.fixture
def urgencies(monkeypatch):
    """Urgency of the judging thread, judgement by judgement."""
    found = []
    judged = SuccessModel.probability

    def noted(model, images):
        found.append(own_urgency())
        return judged(model, images)

    monkeypatch.setattr(SuccessModel, "probability", noted)
    return found


def shown(cell, key):
    """Newest value of a gauge of the node in diagnostics, None before there was one."""
    values = [
        pair.value
        for message in cell.heard["/diagnostics"]
        for status in message.status
        if NODE in status.name
        for pair in status.values
        if pair.key == key
    ]
    return values[-1] if values else None


@pytest.fixture
def may_hurry():
    """Whether the system permits it; tried in a thread that ends."""
    found = []
    thread = threading.Thread(target=lambda: found.append(hurry_thread(Urgency.JUDGEMENT)))
    thread.start()
    thread.join()
    return found[0]


def test_short_judgements_go_first_and_long_ones_no_longer(
    cell, urgencies, may_hurry, node, monkeypatch
):
    if not may_hurry:
        pytest.skip("the system grants no real-time policy")
    assert cell.until(lambda: Urgency.JUDGEMENT in urgencies)
    assert urgencies[0] is Urgency.NONE
    assert cell.until(lambda: shown(cell, "goes_first") == "True")
    monkeypatch.setattr(success_classifier, "_LONGEST_URGENT_MS", 0.0)
    assert cell.until(lambda: urgencies[-1] is Urgency.NONE)
    assert cell.until(lambda: shown(cell, "goes_first") == "False")


@pytest.fixture
def refused(monkeypatch):
    monkeypatch.setattr(success_classifier, "hurry_thread", lambda _urgency: False)


def test_without_the_right_judgements_stay_ordinary(cell, urgencies, refused, node):
    assert cell.judged(5)
    assert set(urgencies) == {Urgency.NONE}
    assert cell.until(lambda: shown(cell, "goes_first") == "False")


def test_a_check_of_the_state_outranks_the_image(cell, node):
    cell.shade, cell.width_m = BRIGHT, 0.08
    assert cell.until(lambda: any(m.position[0] > 0.9 for m in cell.heard["task/success"]))
    assert cell.judged(6)
    assert not any(cell.verdicts)
    cell.width_m = 0.04
    assert cell.until(lambda: cell.verdicts[-1])


def test_stale_images_give_no_result_and_a_sentence(cell, node):
    assert cell.judged(3)
    cell.seeing = {"front"}
    assert cell.until(lambda: cell.said(NODE, "stale.camera/wrist/image"))
    count = len(cell.verdicts)
    assert cell.until(lambda: node.diag.counted("without_result") > 20)
    assert len(cell.verdicts) == count
    # After a gap the count of agreeing frames begins anew.
    cell.seeing, cell.shade = {"wrist", "front"}, BRIGHT
    assert cell.until(lambda: len(cell.verdicts) >= count + 3)
    assert cell.verdicts[count : count + 2] == [False, False]
    assert cell.until(lambda: cell.said(NODE, "judging"))


def test_images_of_different_times_give_no_result(cell, node):
    assert cell.judged(2)
    cell.late_ns = 200_000_000
    assert cell.until(lambda: cell.said(NODE, "no result"))
    count = len(cell.verdicts)
    assert cell.until(lambda: node.diag.counted("without_result") > 20)
    assert len(cell.verdicts) <= count + 1


def test_another_episode_starts_the_count_anew(cell, node):
    cell.shade = BRIGHT
    assert cell.until(lambda: any(cell.verdicts))
    cell.enter(Phase.RUNNING, epoch=2)
    assert cell.until(lambda: not cell.verdicts[-1])
    assert cell.until(lambda: cell.verdicts[-1])


def test_what_was_seen_in_the_reset_does_not_count(cell, node):
    cell.enter(Phase.RESETTING, epoch=2)
    cell.shade = BRIGHT
    assert cell.until(lambda: any(cell.verdicts))
    cell.enter(Phase.RUNNING, epoch=2)
    assert cell.until(lambda: not cell.verdicts[-1])
    assert cell.until(lambda: cell.verdicts[-1])


def test_a_task_without_classifier_is_not_judged(cell, node):
    assert cell.judged(2)
    cell.episode = replace(cell.episode, task="peg")
    cell.enter(Phase.RUNNING, epoch=3)
    assert cell.until(lambda: cell.said(NODE, "no classifier for task 'peg', only for lift"))


def test_images_that_do_not_fit_are_an_error_not_a_verdict(cell, node):
    assert cell.judged(2)
    cell.size_px = PX + 3
    assert cell.until(lambda: cell.said(NODE, "image_size") or cell.said(NODE, "multiple"))
    assert node.diag.counted("errors") > 0


@pytest.mark.parametrize(
    ("path", "words"), [("", "'classifiers' is empty"), ("nowhere", "cannot be read")]
)
def test_without_a_classifier_it_does_not_start(executor, path, words):
    made = SuccessClassifierNode({"autostart": False, "classifiers": [path]})
    executor.add_node(made)
    sentences = []
    made.diag.level = lambda _, sentence: sentences.append(sentence)
    made.trigger_configure()
    made.trigger_activate()
    assert words in sentences[-1]
    assert not made.is_running
