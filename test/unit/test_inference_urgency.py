# SPDX-License-Identifier: Apache-2.0
"""An inference goes before others only after it has proved to be short; its thread always does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# In a process of its own, where threads may be given another policy.
_SCRIPT = """
import json, os, queue, time
from types import SimpleNamespace
import numpy as np
from vla_rl_ros.ros.inference import InferenceWorker
from vla_rl_ros.ros.urgency import Urgency

class Policy:
    horizon, busy_s, during = 2, 0.0, []
    def infer(self, observation, prefix):
        self.during.append(os.sched_getscheduler(0))
        end_s = time.thread_time() + self.busy_s
        while time.thread_time() < end_s:
            pass
        return np.zeros((2, 7))

policy, woken, after = Policy(), queue.SimpleQueue(), []
worker = InferenceWorker(policy, lambda: woken.put(os.sched_getscheduler(0)))
question = SimpleNamespace(
    request=SimpleNamespace(is_first=False, prefix=None), observation=None, extra_delay_s=0.0
)
allowed = {allow}
worker.urgency = Urgency.COMMAND
for busy_s in (0.0, 0.04, 0.0, 0.0):
    policy.busy_s = busy_s
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


def _seen(allow: str, prelude: str) -> dict[str, list[int]]:
    script = _SCRIPT.replace("{allow}", allow).replace(
        "\nclass Policy", f"{prelude}\nclass Policy"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return json.loads(done.stdout)


def test_a_short_inference_hurries_from_the_second_on_and_a_long_one_costs_the_next() -> None:
    seen = _seen(_MAY, _PROBE)
    if not seen["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert seen["during"] == [os.SCHED_OTHER, os.SCHED_RR, os.SCHED_OTHER, os.SCHED_RR]
    assert seen["after"] == [os.SCHED_RR] * 4


def test_without_the_right_it_answers_all_the_same() -> None:
    seen = _seen("True", _REFUSAL)
    assert set(seen["during"]) == set(seen["after"]) == {os.SCHED_OTHER}
