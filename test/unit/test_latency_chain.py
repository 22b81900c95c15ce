# SPDX-License-Identifier: Apache-2.0
"""The way from camera to arm is taken apart without losing or counting twice a millisecond."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings
from vla_rl_ros.ros.latency_events import Frame, Played
from vla_rl_ros.tools import timed_policy
from vla_rl_ros.tools.latency_chain import (
    OVERHEAD_PARTS,
    Inference,
    chain_of,
    used_frame,
)
from vla_rl_ros.tools.latency_run import read_inferences

MS = 1_000_000


def frame(stamp_ms: float, received_ms: float, fingerprint: int = 1) -> Frame:
    return Frame(
        stamp_ns=round(stamp_ms * MS),
        received_ns=round(received_ms * MS),
        fingerprint=fingerprint,
    )


def inference(stamp_ms: float, enter_ms: float, exit_ms: float, **images: int) -> Inference:
    return Inference(
        stamp_ns=round(stamp_ms * MS),
        enter_ns=round(enter_ms * MS),
        exit_ns=round(exit_ms * MS),
        model_ms=exit_ms - enter_ms,
        images=images,
    )


def played(tick_ms: float, sent_ms: float) -> Played:
    return Played(tick_ns=round(tick_ms * MS), sent_ns=round(sent_ms * MS))


def test_a_chain_by_hand() -> None:
    frames = {"wrist": [frame(90, 95, 7)], "front": [frame(80, 86, 8)]}
    asked = inference(100, 104, 154, wrist=7, front=8)
    chain = chain_of(asked, frames, 103 * MS, 156 * MS, played(200, 203))
    assert chain is not None
    assert chain.total_ms == 203 - 80
    assert chain.camera_ms == 6  # the older image
    assert chain.tick_ms == 3
    assert chain.observe_ms == 1
    assert chain.model_ms == 50
    assert chain.answer_ms == 2
    assert chain.target_ms == 3
    assert chain.wait_ms == (100 - 86) + (200 - 156)
    assert chain.overhead_ms == 15


def test_nothing_waits_for_a_tick_that_has_passed() -> None:
    # The image comes after the tick that uses it, the chunk after the tick that plays it.
    chain = chain_of(
        inference(100, 104, 154, wrist=1),
        {"wrist": [frame(97, 103)]},
        102 * MS,
        202 * MS,
        played(200, 206),
    )
    assert chain is not None
    assert chain.wait_ms == 0
    assert chain.tick_ms == 0
    assert chain.observe_ms == 1
    assert chain.target_ms == 4


times = st.floats(0.0, 100.0)


@given(
    camera=times, image_wait=times, tick=times, report=times, ask=times, model=times,
    answer=times, play=times, target=times,
)  # fmt: skip
def test_the_parts_add_up(
    camera, image_wait, tick, report, ask, model, answer, play, target
) -> None:
    received = 1000 + camera
    enter = max(received + image_wait, 1000 + tick) + ask
    chunk = enter + model + answer
    asked = inference(1000 + tick, enter, enter + model, wrist=1)
    sent = max(chunk, chunk - 50 + play) + target
    chain = chain_of(
        asked,
        {"wrist": [frame(1000, received)]},
        round((1000 + report) * MS),
        round(chunk * MS),
        played(chunk - 50 + play, sent),
    )
    assert chain is not None
    parts = chain.overhead_ms + chain.wait_ms + chain.model_ms
    assert parts == pytest.approx(chain.total_ms, abs=1e-5)
    assert min(chain.wait_ms, *(getattr(chain, part) for part in OVERHEAD_PARTS)) >= -1e-5


def test_of_equal_images_the_newest_delivered_one_was_used() -> None:
    frames = [frame(10, 15), frame(40, 45), frame(60, 66, fingerprint=2), frame(70, 75)]
    assert used_frame(frames, 1, 50 * MS) is frames[1]
    assert used_frame(frames, 3, 50 * MS) is None


def test_an_image_that_the_observer_got_later_than_the_policy_is_found() -> None:
    # A recording in a loop shows the same picture again and again.
    frames = [frame(1000, 1005), frame(3000, 3012)]
    used = used_frame(frames, 1, 3010 * MS)
    assert used is not None
    assert used.stamp_ns == 3000 * MS
    assert used.received_ns == 3010 * MS


def test_a_chunk_whose_image_nobody_saw_is_left_out() -> None:
    asked = inference(100, 104, 154, wrist=9)
    assert chain_of(asked, {"wrist": [frame(90, 95)]}, 0, 156 * MS, played(200, 203)) is None


def test_the_timed_policy_answers_as_the_wrapped_one_and_says_what_it_saw(
    tmp_path, monkeypatch
) -> None:
    path = tmp_path / "times.jsonl"
    monkeypatch.setenv(timed_policy.POLICY_VARIABLE, "still")
    monkeypatch.setenv(timed_policy.FILE_VARIABLE, str(path))
    policy = timed_policy.make(PolicySettings(horizon=4), PolicyEnvironment(cameras=("wrist",)))
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    observation = PolicyObservation(
        stamp_ns=123, images={"wrist": image}, state=np.zeros(20), instruction="", task="lift"
    )
    policy.reset()

    actions = policy.infer(observation, None)

    assert actions.shape == (policy.horizon, 7)
    assert policy.cameras == ("wrist",)
    assert policy.anchor is Anchor.MEASURED
    assert Conditioning.LOCK in policy.conditionings
    (row,) = read_inferences(path)
    assert row.stamp_ns == 123
    assert row.enter_ns <= row.exit_ns
    assert row.images == {"wrist": timed_policy.fingerprint(image.tobytes())}


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path) -> None:
    line = json.dumps({"stamp_ns": 1, "enter_ns": 2, "exit_ns": 3, "model_ms": 0.0, "images": {}})
    (tmp_path / "t.jsonl").write_text(f"{line}\n{line[:20]}")
    assert len(read_inferences(tmp_path / "t.jsonl")) == 1
    assert read_inferences(tmp_path / "absent.jsonl") == []
