# SPDX-License-Identifier: Apache-2.0
"""Urgent threads get the real-time policy where the system permits it, models never do."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# In a process of its own: the policy is inherited by all that comes later.
_SCRIPT = """
import json, os, threading
from vla_rl_ros.ros.urgency import Urgency, hurry, hurry_along, unhurried

def policy_in_new_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
    thread.start()
    thread.join()
    return seen[0]

done = threading.Event()
older = threading.Thread(target=done.wait)
older.start()
{call}
with unhurried():
    inside, child = os.sched_getscheduler(0), policy_in_new_thread()
print(json.dumps(dict(
    allowed=allowed, inside=inside, child=child,
    after=os.sched_getscheduler(0), older=os.sched_getscheduler(older.native_id),
)))
done.set()
"""
_REFUSAL = """
def refuse(*_): raise PermissionError
os.sched_setscheduler = refuse
"""


def _policies(call: str) -> dict[str, int]:
    script = _SCRIPT.replace("{call}", call)
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return json.loads(done.stdout)


def test_executor_and_middleware_hurry_but_not_what_is_loaded() -> None:
    policies = _policies("allowed = hurry(Urgency.COMMAND)")
    if not policies["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert policies["after"] == policies["older"] == os.SCHED_RR
    assert policies["inside"] == policies["child"] == os.SCHED_OTHER


def test_the_middleware_alone_may_hurry() -> None:
    policies = _policies("allowed = hurry(Urgency.COMMAND, is_for_callbacks=False)")
    if not policies["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert policies["older"] == os.SCHED_RR
    assert policies["after"] == policies["inside"] == os.SCHED_OTHER


def test_without_the_right_everything_stays_ordinary() -> None:
    policies = _policies(f"{_REFUSAL}\nallowed = hurry(Urgency.COMMAND)")
    assert policies["allowed"] is False
    assert {policies[name] for name in ("inside", "child", "after", "older")} == {os.SCHED_OTHER}


def test_the_threads_of_a_camera_follow_its_executor() -> None:
    policies = _policies(
        "allowed = hurry(Urgency.IMAGES)\n"
        "os.sched_setscheduler(older.native_id, os.SCHED_OTHER, os.sched_param(0))\n"
        "assert hurry_along() is allowed"
    )
    if not policies["allowed"]:
        pytest.skip("the system grants no real-time policy")
    assert policies["older"] == os.SCHED_RR


def test_what_is_not_urgent_stays_as_it_is() -> None:
    policies = _policies("allowed = hurry(Urgency.NONE) and not hurry_along()")
    assert policies["allowed"] is True
    assert policies["after"] == policies["older"] == os.SCHED_OTHER


def test_a_priority_that_someone_else_set_counts_as_the_next_lower_urgency() -> None:
    found = _policies(
        "from vla_rl_ros.ros.urgency import own_urgency\n"
        "def current(priority):\n"
        "    os.sched_getscheduler = lambda _: os.SCHED_RR\n"
        "    os.sched_getparam = lambda _: os.sched_param(priority)\n"
        "    return own_urgency()\n"
        "real = os.sched_getscheduler, os.sched_getparam\n"
        "allowed = [current(priority) for priority in (4, 25, 99)]\n"
        "os.sched_getscheduler, os.sched_getparam = real"
    )
    assert found["allowed"] == [0, 20, 30]
