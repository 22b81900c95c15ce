# SPDX-License-Identifier: Apache-2.0
"""A model runs as an ordinary thread, whatever its thread does before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# In a process of its own, where threads may be given another policy.
_SCRIPT = """
import json, os, queue
from types import SimpleNamespace
import numpy as np
from vla_rl_ros.ros.inference import InferenceWorker
from vla_rl_ros.ros.urgency import Urgency

class Policy:
    horizon, during = 2, []
    def infer(self, observation, prefix):
        self.during.append(os.sched_getscheduler(0))
        return np.zeros((2, 7))

policy, woken, after = Policy(), queue.SimpleQueue(), []
worker = InferenceWorker(policy, lambda: woken.put(os.sched_getscheduler(0)))
question = SimpleNamespace(
    request=SimpleNamespace(is_first=False, prefix=None), observation=None, extra_delay_s=0.0
)
allowed = {allow}
worker.urgency = Urgency.{urgency}
for _ in range(2):
    worker.ask(question)
    after.append(woken.get(timeout=20.0))
assert worker.stop()
print(json.dumps(dict(allowed=allowed, during=policy.during, after=after)))
"""
_MAY = "_may()"
_PROBE = """
def _may():
    old = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, old, os.sched_param(0))
    return True
"""
_REFUSAL = """
def refuse(*_): raise PermissionError
os.sched_setscheduler = refuse
"""


def _seen(allow: str, prelude: str, urgency: str = "COMMAND") -> dict[str, list[int]]:
    script = _SCRIPT.replace("{allow}", allow).replace("{urgency}", urgency)
    script = script.replace("\nclass Policy", f"{prelude}\nclass Policy")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return json.loads(done.stdout)


def test_a_model_never_hurries_but_its_thread_does() -> None:
    seen = _seen(_MAY, _PROBE)
    if not seen["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert seen["during"] == [os.SCHED_OTHER] * 2
    assert seen["after"] == [os.SCHED_RR] * 2


def test_a_policy_that_someone_else_gave_the_process_stays() -> None:
    given = """
def given():
    if not _may():
        return False
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return True
allowed = given()
"""
    seen = _seen("allowed", _PROBE + given, "NONE")
    if not seen["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert set(seen["during"]) == set(seen["after"]) == {os.SCHED_FIFO}


def test_without_the_right_it_answers_all_the_same() -> None:
    seen = _seen("True", _REFUSAL)
    assert set(seen["during"]) == set(seen["after"]) == {os.SCHED_OTHER}
