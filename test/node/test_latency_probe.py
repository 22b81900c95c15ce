# SPDX-License-Identifier: Apache-2.0
"""`bench latency` on real messages: what passes is noted with the middleware's own times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.types import ActionChunk
from vla_rl_ros.hardware.frame_pattern import draw_pattern
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.codec_costs import codec_costs
from vla_rl_ros.ros.codecs import encode_image
from vla_rl_ros.ros.latency_probe import LatencyProbe
from vla_rl_ros.ros.observer import GraphObserver
from vla_rl_ros.tools.latency_chain import Chain, Inference
from vla_rl_ros.tools.latency_plot import plot_latency
from vla_rl_ros.tools.latency_run import SourceResult
from vla_rl_ros.tools.timed_policy import fingerprint

pytestmark = pytest.mark.ros

TICK_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000


@pytest.fixture
def observer() -> Iterator[GraphObserver]:
    with GraphObserver("latency_test") as made:
        yield made


class Traffic:
    """Publishes what the probe listens to."""

    def __init__(self, observer: GraphObserver, probe: LatencyProbe) -> None:
        node = observer.node
        self.image = node.create_publisher(Image, "camera/wrist/image", 10)
        self.chunk = node.create_publisher(JointTrajectory, "policy/chunk", 10)
        self.row = node.create_publisher(JointState, "action/executed", 10)
        for publisher in (self.image, self.chunk, self.row):
            observer.wait_until(
                lambda publisher=publisher: publisher.get_subscription_count() > 0, 10.0, "a match"
            )


def row(tick: int, chunk_id: int, step: int) -> JointState:
    zeros = np.zeros(7)
    return encode_executed(
        ExecutedAction(
            stamp_ns=TICK_NS + tick * PERIOD_NS, epoch=1,
            source=Source.HOLD if step == NO_STEP else Source.VLA,
            executed=zeros, base=zeros, residual=zeros, chunk_id=chunk_id, chunk_step=step,
        )
    )  # fmt: skip


def test_the_first_tick_of_a_chunk_and_the_numbers_of_images_are_noted(observer) -> None:
    probe = LatencyProbe(observer, fingerprint=fingerprint, numbered=True)
    traffic = Traffic(observer, probe)
    before_ns = time.time_ns()
    for number in (3, 4, 7, 0):  # two are missing, then the recording starts over
        picture = draw_pattern(number, 32, 32)
        traffic.image.publish(encode_image(picture, TICK_NS + number, "camera"))
        observer.wait_until(
            lambda picture=picture: (
                bool(probe.frames["wrist"])
                and probe.frames["wrist"][-1].fingerprint == fingerprint(picture.tobytes())
            ),
            10.0,
            "an image",
        )
    chunk = ActionChunk(
        chunk_id=5, epoch=1, stamp_ns=TICK_NS, period_ns=PERIOD_NS, delay_ticks=1,
        actions=np.zeros((4, 7)),
    )  # fmt: skip
    traffic.chunk.publish(encode_chunk(chunk))
    observer.wait_until(lambda: bool(probe.chunks), 10.0, "a chunk")
    for tick, chunk_id, step in ((0, 4, 2), (1, 5, NO_STEP), (2, 5, 2), (3, 5, 3)):
        traffic.row.publish(row(tick, chunk_id, step))
    observer.wait_until(lambda: len(probe.reports) == 4, 10.0, "the rows")
    after_ns = time.time_ns()

    assert [frame.stamp_ns - TICK_NS for frame in probe.frames["wrist"]] == [3, 4, 7, 0]
    assert probe.missed["wrist"] == 2
    assert before_ns <= probe.frames["wrist"][0].received_ns <= after_ns
    assert before_ns <= probe.chunks[TICK_NS] <= after_ns
    assert set(probe.played) == {TICK_NS}
    assert probe.played[TICK_NS].tick_ns == TICK_NS + 2 * PERIOD_NS
    assert before_ns <= probe.played[TICK_NS].sent_ns <= after_ns


def test_every_message_between_camera_and_arm_has_its_cost(tmp_path: Path) -> None:
    costs = codec_costs(image_px=64, horizon=8, repetitions=3)

    assert [cost.message for cost in costs][:2] == ["image", "chunk"]
    assert costs[0].num_bytes > 64 * 64 * 3
    for cost in costs:
        times = (cost.encode_us, cost.serialize_us, cost.deserialize_us, cost.decode_us)
        assert min(times) > 0.0
    chain = Chain(
        total_ms=100.0, camera_ms=5.0, tick_ms=2.0, observe_ms=1.0, answer_ms=2.0, target_ms=3.0,
        wait_ms=60.0, model_ms=27.0,
    )  # fmt: skip
    result = SourceResult(chains=[chain, chain])
    assert plot_latency({"sim": result}, costs, tmp_path / "l.png").stat().st_size > 10_000


def test_the_summary_of_a_source_names_median_and_tail() -> None:
    chains = [
        Chain(
            total_ms=50.0, camera_ms=camera_ms, tick_ms=1.0, observe_ms=1.0, answer_ms=1.0,
            target_ms=1.0, wait_ms=30.0, model_ms=10.0,
        )
        for camera_ms in np.linspace(0.0, 10.0, 101)
    ]  # fmt: skip
    asked = Inference(stamp_ns=0, enter_ns=0, exit_ns=0, model_ms=10.0, images={})
    summary = SourceResult(chains=chains, inferences=[asked]).summary()

    assert summary["overhead_p50_ms"] == pytest.approx(9.0)
    assert summary["overhead_p99_ms"] == pytest.approx(13.9)
    assert summary["inference_p99_ms"] == 10.0
    with pytest.raises(DeviceError, match="no chunk was followed"):
        SourceResult().summary()
